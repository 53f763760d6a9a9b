#!/usr/bin/env bash
# shellcheck disable=SC2154 # variables of lib.sh
# Runs the contract suite of the isolation back-ends (crates/sandbox/src/contract.rs) in the cages.
#
#     tests/contract.sh [--race SECONDS] [--all | CAGE[=BACKEND]...]
#
# --race: how long a step tries to get out by a race; 600 before a release. Needs root, runc and busybox. The last line reads
# `N passed, N failed, N skipped`.
set -euo pipefail
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

# Every back-end once, and in place with few rights; --all: in every kind of cage that it is for.
cages=(docker-default=inplace k8s-default=namespace root-nocaps=inplace k8s-restricted=emulate)
all=("${cages[@]}" crio-default=inplace podman-default=namespace k8s-userns-unmasked=namespace
  openshift-restricted-v2=emulate docker-default=emulate)
race=3
# Longer than the whole suite takes; a step that hangs must not hang this.
patience=300
if [ "${1:-}" = --race ]; then race=$2 patience=$((patience + race)) && shift 2; fi
case ${1:-} in '') ;; --all) cages=("${all[@]}") ;; *) cages=("$@") ;; esac

if ! is_root; then skip "contract: need root"; finish; fi
if ! install_tools runc=runc busybox=busybox-static python3=python3; then
  skip "contract: a tool is missing"
  finish
fi
build_contract ci
make_workdir

for cage in "${cages[@]}"; do
  backend=${cage#*=} cage=${cage%%=*}
  [ "$backend" != "$cage" ] || backend=auto
  case $cage in *restricted*) at=/workspace/work ;; *) at=/var/lib/work ;; esac
  log=$work/$cage-$backend.log
  timeout --kill-after=10 "$patience" cages/cage "$cage" --ro-bind "$contract:/contract" -- \
    /contract "$backend" /bin/busybox "$at" '' "$race" >"$log" 2>&1 </dev/null || true
  read_contract "$cage, $backend" "$log"
done
finish
