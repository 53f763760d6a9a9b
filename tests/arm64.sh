#!/usr/bin/env bash
# shellcheck disable=SC2154 # variables of lib.sh
# Runs the contract suite of the isolation back-ends on arm64, in a machine that QEMU emulates: Debian's kernel and busybox,
# and in a first file system in memory the suite.
#
#     tests/arm64.sh [PART-OF-A-NAME]
#
# `namespace` as root, and `emulate` as user 1000 without any right. It takes two minutes; where the machine is so busy that it
# takes longer a check with a limit of time may fail. Needs Debian, and root to install what is missing; the kernel and
# busybox are fetched by apt-get, and kept. The kernel is the one of the machine's own release: with Debian 12 one (6.1) that
# is also older than much of what the back-ends can use. The last line reads `N passed, N failed, N skipped`.
set -euo pipefail
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

part=${1:-}
patience=900
kept=$state/arm64

# fetch: the kernel with its modules and busybox, unpacked in `$kept/packages`. Of apt's own state nothing changes: this
# machine's packages are of another architecture.
fetch() {
  local kernel options=(-qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=root
    -o "Dir::State=$kept/apt" -o Dir::State::status=/dev/null -o "Dir::Cache=$kept/apt/cache"
    -o "Dir::Etc::sourcelist=$kept/sources.list" -o Dir::Etc::sourceparts=-)
  [ ! -d "$kept/packages" ] || return 0
  codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  mkdir -p "$kept/apt/lists/partial" "$kept/apt/cache/archives/partial"
  debian_sources | sed 's/^/deb /' >"$kept/sources.list"
  [ -s "$kept/sources.list" ] || { say "no archive of Debian in this machine's apt settings" && return 1; }
  rm -rf "$kept"/*.deb "$kept/unpacked"
  apt-get "${options[@]}" update || return
  # The package that is always there only says which one is the newest.
  kernel=$(apt-get "${options[@]}" --simulate --no-install-recommends install linux-image-cloud-arm64 |
    awk '/^Inst linux-image-[0-9]/ { print $2; exit }')
  (cd "$kept" && apt-get "${options[@]}" download "${kernel:-linux-image-cloud-arm64}" busybox-static) || return
  for package in "$kept"/*.deb; do dpkg-deb -x "$package" "$kept/unpacked" || return; done
  mv "$kept/unpacked" "$kept/packages"
}

# steps: what the machine runs once it is up. Everything it prints comes over its serial line.
steps() {
  cat <<'END'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /tmp /work
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
mount -t tmpfs -o mode=755 work /work
insmod /overlay.ko
ifconfig lo 127.0.0.1 up
mkdir /work/root /work/user
chown 1000:1000 /work/user
exec 2>&1 </dev/null
echo "kernel $(uname -r) $(uname -m)"
echo "== namespace"
/contract namespace /bin/busybox /work/root "$part"
echo "== emulate"
su -s /bin/sh user -c '/contract emulate /bin/busybox /work/user "$part"'
echo "== end"
poweroff -f
END
}

# make_memory: what the machine has for its `/`
make_memory() {
  local root=$work/root
  mkdir -p "$root"/bin "$root"/proc "$root"/sys "$root"/dev "$root"/etc
  cp "$(find "$kept/packages" -path '*bin/busybox' | head -n 1)" "$root/bin/busybox"
  cp "$contract" "$root/contract"
  find "$kept/packages" -name overlay.ko -exec cp {} "$root/" \;
  printf '%s\n' 'root:x:0:0::/:/bin/sh' 'user:x:1000:1000::/:/bin/sh' >"$root/etc/passwd"
  printf '%s\n' 'root:x:0:' 'user:x:1000:' >"$root/etc/group"
  { steps | sed "s/\"\$part\"/\"$part\"/"; } >"$root/init"
  chmod 755 "$root/init"
  (cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$work/memory"
}

boot() {
  timeout --kill-after=10 "$patience" nice qemu-system-aarch64 -M virt -cpu cortex-a72 -smp 1 -m 1024 -nographic -no-reboot \
    -nic none -kernel "$(find "$kept/packages/boot" -name 'vmlinuz-*' | head -n 1)" -initrd "$work/memory" \
    -append "console=ttyAMA0 rdinit=/init quiet loglevel=1 panic=-1" </dev/null 2>&1 | tr -d '\r'
}

case $part in *[!a-zA-Z0-9\ ,-]*) die "a part of a check's name, please" ;; esac
tools=(qemu-system-aarch64=qemu-system-arm busybox=busybox-static dpkg-deb=dpkg)
if ! install_tools "${tools[@]}" || ! arm64_tools || ! fetch; then
  skip "arm64: the compiler, QEMU, Debian's kernel or busybox cannot be had here"
  finish
fi
build_contract ci aarch64-unknown-linux-musl
make_workdir
make_memory
boot >"$work/console" || true
sed -n 's/^kernel /on Linux /p' "$work/console" >&2
for backend in namespace emulate; do
  sed -n "/^== $backend\$/,/^== /p" "$work/console" | grep -v '^== ' >"$work/$backend.log" || true
  [ -s "$work/$backend.log" ] || tail -n 20 "$work/console" >&2
  read_contract "arm64, $backend" "$work/$backend.log"
done
finish
