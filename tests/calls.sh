#!/usr/bin/env bash
# shellcheck disable=SC2154 # variables of lib.sh
# Random system calls under `emulate`: results and trees are those of a real container (tests/calls.py), and threads that
# exchange names, descriptors and directories stay in their tree (tests/calls/race.c), and what got through once is tried again
# (tests/calls/attacks.c).
#
#     tests/calls.sh [--binary FILE] [--calls N] [--race SECONDS] [--seed N] [PLACE...]
#
# A PLACE is CAGE:BACKEND, or `user:BACKEND`: user 1000 of this machine with no_new_privs. Another seed tries other sequences; what
# fails is printed with its own. Needs root, a C compiler and runc; what cannot be done is skipped aloud. The last line reads
# `N passed, N failed, N skipped`.
set -euo pipefail
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

places=(user:emulate k8s-restricted:emulate)
calls=100000 race=20 seed=1
zuwai=
while [ $# -gt 0 ]; do
  case $1 in
    --binary) zuwai=$(realpath "$2"); shift 2 ;;
    --calls) calls=$2; shift 2 ;;
    --race) race=$2; shift 2 ;;
    --seed) seed=$2; shift 2 ;;
    -*) die "unknown option $1" ;;
    *) break ;;
  esac
done
[ $# = 0 ] || places=("$@")

if ! is_root; then skip "calls: need root"; finish; fi
if ! install_tools runc=runc python3=python3 cc=gcc setpriv=util-linux busybox=busybox-static; then
  skip "calls: a tool is missing"
  finish
fi
[ -n "$zuwai" ] || build_binary ci

# Not in /tmp, which is a volume of its own in some of the cages.
TMPDIR=/var/tmp make_workdir
make_builder
# A program of musl's is a tenth of the size, and there is one for many of the sequences.
compiler=cc
if have musl-gcc; then compiler="musl-gcc"; fi
for program in calls race attacks; do
  $compiler -static -Os -Wall -o "$work/$program" "tests/calls/$program.c" -pthread || { skip "calls: no static libc"; finish; }
done
mkdir "$work/builds"
install -d -o 1000 -g 1000 "$work/user"

builders=() names=() commands=()
for place in "${places[@]}"; do
  cage=$(cage_of "$place") backend=$(backend_of "$place")
  if [ "$cage" = user ]; then
    command="setpriv --reuid 1000 --regid 1000 --clear-groups --no-new-privs env HOME=$work/user TMPDIR=$work/user $work/bin/zuwai"
    if ! $command doctor | grep -q "^$backend: works"; then skip "calls in $place: $backend does not work" && continue; fi
    command+=" build --work-dir $work/user"
  else
    if ! reason=$(can_build "$place"); then skip "calls in $place: $reason" && continue; fi
    command="$repository/cages/cage $cage --rootfs $work/image --bind $work/builds:$work/builds -- /zuwai/zuwai build"
  fi
  builders+=("$place=$command --isolation $backend") names+=("$place") commands+=("$command --isolation $backend")
done
if [ ${#builders[@]} = 0 ]; then finish; fi

begin=$SECONDS status=0
CAGE_TMP=$work python3 tests/calls.py --program "$work/calls" --work "$work/builds" --calls "$calls" --seed "$seed" \
  --jobs "$(nproc)" "${builders[@]}" >"$work/log" || status=$?
grep -v '^[0-9]* passed, ' "$work/log" | head -n 400 >&2 || true
say "$calls calls in each of ${#builders[@]} places in $((SECONDS - begin)) s"
read -r passes _ failures _ < <(tail -n 1 "$work/log" | tr -d ,)
passed=$((passed + ${passes:-0})) failed=$((failed + ${failures:-1}))
if [ $status != 0 ] && [ $failed = 0 ]; then failed=1; fi

# Files outside that a step must not reach, in the directories above its own, where the builder's user may write.
canaries=("$work/canary" "$work/user/canary" "$work/image/canary" "$work/builds/canary")
chmod 777 "$work/builds"
for canary in "${canaries[@]}"; do
  echo outside >"$canary" && chmod 666 "$canary"
done
canaries_now() {
  stat -c '%n %i %z %a %u:%g %h' "${canaries[@]}" && cat "${canaries[@]}" && find "${canaries[@]%canary}" -maxdepth 1 -name '*canary*'
}
# Names, owners and modes that the threads can have left in the image.
legal='^[-dlpch][-rwxsStT]{9} (0/0|1000/1000) .* (\./)?((r|d[0-7]|l[0-5]|n[0-3]|f[0-3]|x|w|p|own|secret|plain|setid|[abc][0-2]|\.in|race|race-log'
legal+='|proc|dev|sys|etc|tmp|hosts|resolv.conf|canary-made)/?)*( -> .*| link to .*)?$'

race() { # NAME COMMAND
  local place=$1 out=$work/builds/race before status=0 foreign
  mkdir -p "$out/context"/{proc,dev,sys,etc,tmp} "$out/out" && chmod 777 "$out/out"
  cp "$work/race" "$out/context/race"
  printf 'FROM scratch\nCOPY . /\nRUN ["/race","%s","%s"]\n' "$race" "$seed" >"$out/Dockerfile"
  before=$(canaries_now)
  # shellcheck disable=SC2086 # a command with its arguments
  CAGE_TMP=$work timeout --kill-after=10 $((race + 240)) $2 --file "$out/Dockerfile" --output "type=tar,dest=$out/out/image.tar" \
    "$out/context" >"$work/race.log" 2>&1 </dev/null || status=$?
  if [ $status != 0 ]; then
    fail "threads that exchange names in $place: status $status" && grep -e WRONG -e wrong -e error "$work/race.log" | head -n 40 >&2
  else
    pass "threads that exchange names in $place: $(grep -o '[0-9]* operations' "$work/race.log" | head -n 1)"
  fi
  if [ "$(canaries_now)" = "$before" ]; then
    pass "files outside in $place are as they were"
  else
    fail "files outside in $place have changed" && canaries_now | diff - <(echo "$before") >&2
  fi
  if [ $status = 0 ]; then
    foreign=$(tar --numeric-owner -tvf "$out/out/image.tar" | grep -vE "$legal" || true)
    if [ -z "$foreign" ]; then
      pass "what is left in $place is what was made"
    else
      fail "what is left in $place" && head -n 20 <<<"$foreign" >&2
    fi
  fi
  rm -rf "$out"
}

attacks() { # NAME COMMAND
  local place=$1 out=$work/builds/attacks status=0
  mkdir -p "$out/context"/{proc,dev,sys,etc,tmp}
  cp "$work/attacks" "$out/context/attacks"
  cat >"$out/Dockerfile" <<'END'
FROM scratch AS victim
COPY . /
RUN ["/attacks","victim"]
FROM scratch
COPY . /
RUN ["/attacks","prepare"]
RUN --mount=type=cache,id=moved,target=/cache ["/attacks","part"]
RUN --mount=type=cache,id=moved,target=/cache --mount=type=cache,id=moved,source=part,target=/part ["/attacks","move-out"]
RUN ["/attacks","all"]
COPY --from=victim /attacks /victim
END
  # shellcheck disable=SC2086 # a command with its arguments
  CAGE_TMP=$work timeout --kill-after=10 180 $2 --file "$out/Dockerfile" --no-push "$out/context" >"$work/attacks.log" 2>&1 </dev/null || status=$?
  if [ $status = 0 ] && ! grep -q WRONG "$work/attacks.log"; then
    pass "what got through once holds in $place"
  else
    fail "what got through once in $place: status $status" && tail -n 30 "$work/attacks.log" >&2
  fi
  rm -rf "$out"
}

# second_wall COMMAND: gives the builder and another program of the user the mark of the step's processes, by which the
# builder knows them (crates/sandbox/src/emulate/tasks.rs). Then only the second wall keeps the step from looking into them.
second_wall() {
  local out=$work/builds/second-wall status=0 step='' builder supervisor stranger mark process
  mkdir -p "$out/context"/{proc,dev,sys,etc,tmp}
  cp "$work/attacks" "$out/context/attacks"
  printf 'FROM scratch\nCOPY . /\nRUN ["/attacks","strangers","2"]\n' >"$out/Dockerfile"
  setpriv --reuid 1000 --regid 1000 --clear-groups env SECRET=of-another-program sleep 60 &
  stranger=$!
  # shellcheck disable=SC2086 # a command with its arguments
  timeout --kill-after=10 60 $1 --file "$out/Dockerfile" --no-push "$out/context" >"$work/second-wall.log" 2>&1 </dev/null &
  builder=$!
  for _ in {1..200}; do
    step=$(pgrep -f '^/attacks strangers' | head -n 1) || true
    if [ -n "$step" ] && grep -q READY "$work/second-wall.log"; then break; fi
    sleep 0.1
  done
  mark=$(awk '/^Max file locks/ { print $4 }' "/proc/${step:-self}/limits")
  # step, init, helper, supervisor, builder
  for _ in 1 2 3; do step=$(ps -o ppid= -p "${step:-1}" | tr -d ' '); done
  supervisor=$step
  for process in "$(ps -o ppid= -p "${supervisor:-1}" | tr -d ' ')" "$stranger"; do
    setpriv --reuid 1000 --regid 1000 --clear-groups prlimit --pid "$process" --locks="$mark:unlimited" || status=$?
  done
  wait "$builder" || status=$?
  kill "$stranger" 2>/dev/null || true
  wait "$stranger" 2>/dev/null || true
  if [ $status = 0 ]; then
    pass "the second wall holds where the first is no more"
  else
    fail "the second wall, where the first is no more: status $status" && tail -n 30 "$work/second-wall.log" >&2
  fi
  rm -rf "$out"
}

# full_disk COMMAND: the work directory is the small disk that a step fills
full_disk() {
  local out=$work/builds/full-disk disk=$work/user/disk status=0
  mkdir -p "$out/context"/{proc,dev,sys,etc,tmp} "$disk"
  cp "$work/attacks" "$out/context/attacks"
  printf 'FROM scratch\nCOPY . /\nRUN ["/attacks","full-disk"]\nRUN ["/attacks","nothing"]\n' >"$out/Dockerfile"
  mount -t tmpfs -o size=8m,mode=0755,uid=1000 tmpfs "$disk" || { skip "a full disk: no tmpfs can be mounted" && return; }
  # shellcheck disable=SC2086 # a command with its arguments
  timeout --kill-after=10 60 ${1/--work-dir $work\/user/--work-dir $disk} --file "$out/Dockerfile" --no-push "$out/context" \
    >"$work/full-disk.log" 2>&1 </dev/null || status=$?
  umount "$disk"
  # The build itself may find no room for its layer; the step has come to its end.
  if grep -q WRONG "$work/full-disk.log" || ! grep -q REFUSED "$work/full-disk.log"; then
    fail "what a user makes on a full disk: status $status" && tail -n 20 "$work/full-disk.log" >&2
  else
    pass "what a user makes on a full disk is the user's or not there"
  fi
  rm -rf "$out"
}
for at in "${!names[@]}"; do
  attacks "${names[$at]}" "${commands[$at]}"
  if [ "${names[$at]}" = user:emulate ]; then second_wall "${commands[$at]}" && full_disk "${commands[$at]}"; fi
done
if [ "$race" != 0 ]; then
  for at in "${!names[@]}"; do race "${names[$at]}" "${commands[$at]}"; done
fi
finish
