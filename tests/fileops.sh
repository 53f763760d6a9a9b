#!/usr/bin/env bash
# shellcheck disable=SC2154 # variables of lib.sh
# Random file operations as RUN steps in every back-end: the image has what they make of a plain directory (tests/fileops.py).
#
#     tests/fileops.sh [--binary FILE] [--sequences N] [--seed N] [PLACE...]
#
# A PLACE is CAGE:BACKEND; `host` is this machine itself. Another seed tries other sequences; what fails is printed with its own.
# Needs root, a C compiler and runc; what cannot be done is skipped aloud. The last line reads `N passed, N failed, N skipped`.
set -euo pipefail
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

# Marks of overlays are other ones for real root and in a user namespace.
places=(host:namespace rootless-host:namespace docker-default:inplace k8s-restricted:emulate)
sequences=5000 seed=1
zuwai=
while [ $# -gt 0 ]; do
  case $1 in
    --binary) zuwai=$(realpath "$2"); shift 2 ;;
    --sequences) sequences=$2; shift 2 ;;
    --seed) seed=$2; shift 2 ;;
    -*) die "unknown option $1" ;;
    *) break ;;
  esac
done
[ $# = 0 ] || places=("$@")

if ! is_root; then skip "fileops: need root"; finish; fi
if ! install_tools runc=runc newuidmap=uidmap python3=python3 cc=gcc busybox=busybox-static; then
  skip "fileops: a tool is missing"
  finish
fi
[ -n "$zuwai" ] || build_binary ci

# Not in /tmp, which is a volume of its own in some of the cages.
TMPDIR=/var/tmp make_workdir
make_builder
cc -static -O1 -Wall -o "$work/ops" tests/fileops/ops.c || { skip "fileops: no static libc"; finish; }
mkdir "$work/builds" "$work/stages" "$work/stages/root"
install -d -o 1000 -g 1000 "$work/stages/user"

builders=()
for place in "${places[@]}"; do
  cage=$(cage_of "$place") backend=$(backend_of "$place")
  if ! reason=$(can_build "$place"); then skip "fileops in $place: $reason" && continue; fi
  # What hard links of earlier steps do is a matter of the file system, and in place it is a plain one.
  kind=overlay
  [ "$backend" != inplace ] || kind=plain
  [ "$place" != rootless-host:namespace ] || kind=overlay-in-namespace
  case $cage in
    host) command="$work/bin/zuwai build --work-dir $work/stages/root" ;;
    rootless-host) command="$repository/cages/cage $cage -- $work/bin/zuwai build --work-dir $work/stages/user" ;;
    *) command="$repository/cages/cage $cage --rootfs $work/image --bind $work/builds:$work/builds -- /zuwai/zuwai build" ;;
  esac
  builders+=("$place=$kind=$command --isolation $backend")
done
if [ ${#builders[@]} = 0 ]; then finish; fi

begin=$SECONDS status=0
CAGE_TMP=$work python3 tests/fileops.py --ops "$work/ops" --work "$work/builds" --sequences "$sequences" --seed "$seed" \
  --jobs "$(nproc)" "${builders[@]}" >"$work/log" || status=$?
grep -v '^[0-9]* passed, ' "$work/log" | head -n 200 >&2 || true
say "$sequences sequences in $((SECONDS - begin)) s"
read -r passes _ failures _ skips _ < <(tail -n 1 "$work/log" | tr -d ,)
passed=$((passed + ${passes:-0})) failed=$((failed + ${failures:-1})) skipped=$((skipped + ${skips:-0}))
if [ $status != 0 ] && [ $failed = 0 ]; then failed=1; fi
finish
