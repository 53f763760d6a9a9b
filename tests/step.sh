#!/usr/bin/env bash
# shellcheck disable=SC2154 # variables of lib.sh
# Runs one step in a Debian root file system with the back-end that each cage allows, or another one that works there, without a Dockerfile, an image or a
# registry: what steps expect that the contract suite, which has a busybox only, cannot ask. Whole packages are in
# tests/packages.sh.
#
#     tests/step.sh [CAGE[=BACKEND]...]
#
# Needs root, runc, debootstrap and busybox; what cannot be done is skipped aloud. The last line reads
# `N passed, N failed, N skipped`.
set -euo pipefail
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

cages=(docker-default docker-default=inplace k8s-default root-nocaps=inplace crio-default=inplace k8s-userns-unmasked k8s-restricted
  openshift-restricted-v2)
[ $# = 0 ] || cages=("$@")

# What the step does. Each line of its output is a check's name, or `FAIL` and the name. The metadata log does not show the
# step what is only written down, so modes that it writes down are no part of this.
read -r -d '' step <<'END' || true
t() { n=$1; shift; if out=$("$@" 2>&1); then echo "ok $n"; else echo "FAIL $n: $(echo "$out" | tail -n 2 | tr '\n' ' ')"; fi; }
t 'useradd with a home' sh -c 'useradd -m tester && [ "$(stat -c %U:%G /home/tester)" = tester:tester ]'
t 'su, and what it makes' su tester -c '[ "$(id -un)" = tester ] && touch /home/tester/f'
t 'owner of that' sh -c '[ "$(stat -c %U /home/tester/f)" = tester ]'
t 'su may not write' sh -c '! su tester -c "touch /etc/no" 2>/dev/null && [ ! -e /etc/no ]'
t 'su has the groups of its user' sh -c 'groupadd crew && usermod -aG crew tester && su tester -c id | grep -q crew'
t 'a group owns a file' sh -c 'touch /srv/g && chgrp shadow /srv/g && [ "$(stat -c %G /srv/g)" = shadow ]'
t 'passwd and shadow' sh -c 'echo tester:secret | chpasswd && passwd -S tester | grep -q "tester P"'
t 'localhost' sh -c 'getent hosts localhost'
t 'tar with owners' sh -c 'mkdir /srv/t && cd /srv/t && tar cf t.tar --owner=123 --group=456 /etc/passwd 2>/dev/null && tar xpf t.tar && [ "$(stat -c %u:%g etc/passwd)" = 123:456 ]'
t 'getcwd' sh -c 'cd /usr/share/doc && [ "$(/bin/pwd)" = /usr/share/doc ]'
t 'realpath through links' sh -c '[ "$(realpath /bin/sh)" = /usr/bin/dash ]'
t 'process substitution' bash -c 'read -r x < <(echo hi); [ "$x" = hi ]'
t 'here-documents and pipes' bash -c '[ "$(cat <<<hi | tr h j)" = ji ]'
t 'a program that executes itself' perl -e 'exit !(-e $^X && `$^X -e "print 42"` == 42)'
t 'threads and signals of perl' perl -e '$SIG{ALRM}=sub{exit 0}; alarm 1; sleep 5; exit 1'
t 'a socket with a name' perl -MSocket -e 'socket(S,AF_UNIX,SOCK_STREAM,0)&&bind(S,pack_sockaddr_un("/run/s$$"))&&-S "/run/s$$" or die "$!"'
t 'a diversion' sh -c 'dpkg-divert --quiet --local --rename --add /usr/bin/yes && [ ! -e /usr/bin/yes ] && [ -x /usr/bin/yes.distrib ]'
t 'ldconfig' sh -c 'rm /etc/ld.so.cache; ldconfig && [ -s /etc/ld.so.cache ]'
t 'temporary files' sh -c 'f=$(mktemp) && d=$(mktemp -d) && [ "$(stat -c %a $f $d | tr "\n" " ")" = "600 700 " ]'
t 'find and xargs' sh -c '[ "$(find /usr/share/doc -maxdepth 1 -type d -print0 | xargs -0 -n 50 echo | wc -l)" -ge 1 ]'
t 'script by its interpreter' sh -c 'printf "#!/usr/bin/env -S perl -l\nprint \$0" >/srv/script && chmod 755 /srv/script && [ "$(/srv/script)" = /srv/script ]'
echo the end
END

if ! is_root; then skip "step: need root"; finish; fi
if ! install_tools runc=runc debootstrap=debootstrap busybox=busybox-static python3=python3; then
  skip "step: a tool is missing"
  finish
fi
build_contract ci
make_workdir
make_debian || { skip "step: no Debian base"; finish; }
tar -C "$debian_rootfs" --numeric-owner --sort=name -cf "$work/debian.tar" .
chmod 644 "$work/debian.tar"

for cage in "${cages[@]}"; do
  backend=${cage#*=} cage=${cage%%=*}
  [ "$backend" != "$cage" ] || backend=auto
  case $cage in *restricted*) at=/workspace/work ;; *) at=/var/lib/work ;; esac
  cages/cage "$cage" --ro-bind "$contract:/contract" --ro-bind "$work/debian.tar:/debian.tar" -- \
    /contract run "$backend" "$at" /debian.tar /bin/sh -c "$step" >"$work/$cage.log" 2>&1 </dev/null || true
  while IFS= read -r line; do
    case $line in
      'ok '*) pass "$cage: ${line#ok }" ;;
      'FAIL '*) fail "$cage: ${line#FAIL }" ;;
    esac
  done <"$work/$cage.log"
  if grep -qx 'the end' "$work/$cage.log"; then continue; fi
  if grep -q 'no isolation back-end works here' "$work/$cage.log"; then
    skip "$cage: no back-end"
  else
    fail "$cage: the step did not come to its end"
    tail -n 5 "$work/$cage.log" >&2
  fi
done
finish
