#!/usr/bin/env bash
# shellcheck disable=SC2154 # variables of lib.sh
# What `inplace` leaves of its container when the disk is full or the builder is killed: everything where it was.
#
#     tests/inplace.sh [--binary ZUWAI] [--every N]
#
# A container is imitated: an overlay of a small image and a tmpfs that can be full, files mounted over /etc, a volume, a process
# namespace. A step runs in it in place, and strace kills the builder at one of its calls that change a file system (every Nth,
# 8 unless said otherwise), or has every one from that on fail as on a full disk. Then the next builder starts, on the disk as it
# is, and all must be as it was. Needs root, strace and busybox. The last line reads `N passed, N failed, N skipped`.
set -euo pipefail
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

every=8 zuwai=
while [ $# -gt 0 ]; do
  case $1 in
    --binary) zuwai=$2 && shift 2 ;;
    --every) every=$2 && shift 2 ;;
    *) die "unknown option $1" ;;
  esac
done

if ! is_root; then skip "inplace: need root"; finish; fi
if ! install_tools strace=strace busybox=busybox-static; then skip "inplace: a tool is missing"; finish; fi
if ! unshare -mpf true 2>/dev/null; then skip "inplace: no namespaces here"; finish; fi
[ -n "${contract:-}" ] || build_contract ci
[ -n "$zuwai" ] || build_binary ci
make_workdir

# The image: what a container has, in layers below the overlay, where directories cannot be renamed.
image=$work/image
mkdir -p "$image"/{bin,etc/sub,root,tmp,usr/lib,var/lib/volume,var/cache,opt,proc,sys,dev,work}
cp /bin/busybox "$image/bin/busybox"
for applet in sh cat cp dd echo find ls mkdir mv rm sort stat sync touch true chmod; do ln -s busybox "$image/bin/$applet"; done
cp "$contract" "$image/opt/contract"
cp "$zuwai" "$image/opt/zuwai"
for name in resolv.conf hosts hostname passwd; do echo "image's $name" >"$image/etc/$name"; done
echo nested >"$image/etc/sub/file"
echo library >"$image/usr/lib/library"
ln -s usr/lib "$image/lib"
echo file >"$image/file"
chmod 700 "$image/root"
chmod 1777 "$image/tmp"
chmod 640 "$image/etc/passwd"
chmod 751 "$image/var/lib"

# The stage, with directories that the container has, and some that it has not.
rootfs=$work/rootfs
mkdir -p "$rootfs"/{bin,etc,usr/lib,srv/data,var/lib,tmp}
cp /bin/busybox "$rootfs/bin/busybox"
for applet in sh dd echo mkdir touch rm; do ln -s busybox "$rootfs/bin/$applet"; done
echo "stage's hosts" >"$rootfs/etc/hosts"
echo stage >"$rootfs/stage-file"
chmod 755 "$rootfs" "$rootfs"/*

# inside: runs in the namespaces. What is left of the builder is this script's process alone.
cat >"$work/inside" <<'END'
set -eu
disk=$1 image=$2 rootfs=$3 options=$4 what=$5 step=$6
mount -t tmpfs -o "$options" disk "$disk"
mkdir "$disk/upper" "$disk/overlay" "$disk/root" "$disk/volume"
mount -t overlay -o "lowerdir=$image,upperdir=$disk/upper,workdir=$disk/overlay" overlay "$disk/root"
root=$disk/root
cp -a "$rootfs" "$root/work/rootfs"
mkdir "$root/work/cache"
echo cached >"$root/work/cache/file"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
for file in resolv.conf hosts hostname; do
  echo "runtime's $file" >"$disk/$file"
  mount --bind "$disk/$file" "$root/etc/$file"
done
echo kept >"$disk/volume/kept"
mount --bind "$disk/volume" "$root/var/lib/volume"

# list: what is in the container, and the volume. Times of directories change with a kill.
list() {
  (cd "$root" && find . -xdev \( -path ./work -o -path ./.zuwai-inplace \) -prune -o -printf '%p %y %m %U:%G %l\n' | sort
   find . -xdev \( -path ./work -o -path ./.zuwai-inplace \) -prune -o -type f -printf '%p %T@ ' -exec sha1sum {} \; | sort
   find var/lib/volume work/cache -type f)
}
fill() {
  # Blocks, then the bytes of the last one, or inodes.
  case $what in
    *inodes*) n=0; while : >"$root/work/fill-$n"; do n=$((n + 1)); done 2>/dev/null || true ;;
    *) dd if=/dev/zero of="$root/work/fill" bs=4k 2>/dev/null || true ;;
  esac
}

list >"$disk/../before"
status=0
# $trace: strace with its options, or nothing
${trace:-} chroot "$root" /opt/contract run inplace /work /work/rootfs --bind /work/cache:/srv/cache /bin/sh -c "$step" </dev/null >"$disk/../output" 2>&1 || status=$?
case $what in *then-full*) fill ;; esac
# The next one. Whatever it does then, it has put things back before.
if [ -e "$root/.zuwai-inplace" ] && [ "$status" != 0 ]; then
  chroot "$root" /opt/zuwai build --work-dir /work /none >"$disk/../next" 2>&1 </dev/null || true
fi
list >"$disk/../after"
if [ -e "$root/.zuwai-inplace/swapped.json" ]; then echo "the record is still there" >>"$disk/../after"; fi
cmp -s "$disk/../before" "$disk/../after" || { diff "$disk/../before" "$disk/../after" | head -n 20; echo "status $status"; tail -n 3 "$disk/../output"; tail -n 3 "$disk/../next" 2>/dev/null; exit 1; }
exit 0
END

# try NAME OPTIONS-OF-TMPFS WHAT STEP [TRACE...]
run=0
try() {
  local name=$1 options=$2 what=$3 step=$4
  shift 4
  run=$((run + 1))
  mkdir -p "$work/$run/disk"
  if trace="$*" unshare -mpf --kill-child bash "$work/inside" "$work/$run/disk" "$image" "$rootfs" "$options" "$what" "$step" >"$work/$run/log" 2>&1; then
    return 0
  fi
  say "$name:"
  tail -n 30 "$work/$run/log" >&2
  return 1
}

# What a step does: as little as possible, or it fills the disk with blocks, or with inodes, where the container has a directory
# and the stage has none as well.
plain='echo x >/new; rm /stage-file; mkdir -p /etc/new /var/cache/new'
blocks="$plain; dd if=/dev/zero of=/x bs=64k; dd if=/dev/zero of=/y bs=1; true"
inodes="$plain; i=0; while : >/srv/f\$i; do i=\$((i+1)); done; true"
many="$plain; i=0; while : >/opt-\$i; do i=\$((i+1)); done; dd if=/dev/zero of=/etc/x; true"
big=size=48m,nr_inodes=3000

for case in "plain|$plain" "a full disk|$blocks" "no inodes|$inodes" "neither|$many"; do
  if try "${case%%|*}" $big '' "${case#*|}"; then pass "in place, ${case%%|*}"; else fail "in place, ${case%%|*}"; fi
done

# Calls that change a file system, of the builder's first thread: it swaps.
calls='/^(rename|mkdir|rmdir|unlink|chown|lchown|fchown|chmod|fchmod|utimens|symlink|link|write|fallocate|ftruncate)'
makes='/^(mkdir|symlink|fallocate)'
count() { # CALLS STEP: how many such calls there are in a run
  try count $big '' "$2" strace -o "$work/count" -e "trace=$1" || true
  grep -c '(' "$work/count"
}

# each NAME STEP WHAT CALLS HOW SUFFIX: at every Nth call
each() {
  local name=$1 step=$2 what=$3 calls=$4 how=$5 suffix=$6 number total bad=0 tried=0
  total=$(count "$calls" "$step")
  for ((number = 1 + RANDOM % every; number <= total; number += every)); do
    tried=$((tried + 1))
    try "$name, call $number of $total" $big "$what" "$step" strace -o "$work/trace" -e "trace=$calls" \
      -e "inject=$calls:$how:when=$number$suffix" || bad=$((bad + 1))
    [ "$bad" -lt 3 ] || break
  done
  if [ $bad = 0 ]; then pass "$name: $tried of $total calls"; else fail "$name"; fi
}
each "killed" "$plain" '' "$calls" signal=SIGKILL ''
each "killed, and the disk is full" "$plain" then-full "$calls" signal=SIGKILL ''
each "killed, and there are no inodes" "$plain" then-full-inodes "$calls" signal=SIGKILL ''
each "killed on a full disk" "$blocks" '' "$calls" signal=SIGKILL ''
each "killed without inodes" "$inodes" '' "$calls" signal=SIGKILL ''
each "a call finds no space" "$plain" '' "$calls" error=ENOSPC ''
each "nothing can be made from then on" "$plain" '' "$makes" error=ENOSPC +
finish
