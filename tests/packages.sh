#!/usr/bin/env bash
# shellcheck disable=SC2154,SC2317 # variables of lib.sh; functions that `check` calls by name
# Real package work on Debian: each directory of tests/packages is a Dockerfile that installs something, uses it and checks
# what came of it; what its layers must say of owners, modes and capabilities stands in its comments (tests/layer_facts.py).
#
#     tests/packages.sh [--binary FILE] [--in PLACE]... [--short] [PART...]
#
# A PLACE is `host` (the default: root on this machine), a cage of cages/README.md, or CAGE:BACKEND. Without a PART all of
# them are built; --short takes the few that say most in a minute. Needs what tests/cages.sh needs, and no network but
# Debian's archive. The last line reads `N passed, N failed, N skipped`. KEEP=1 keeps the working directory.
set -euo pipefail
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

short=(users ssh dbus)

zuwai='' places=() parts=()
while [ $# -gt 0 ]; do
  case $1 in
    --binary) zuwai=$(realpath "$2"); shift 2 ;;
    --in) places+=("$2"); shift 2 ;;
    --short) parts=("${short[@]}"); shift ;;
    -*) die "unknown option $1 (see the top of $0)" ;;
    *) [ -f "tests/packages/$1/Dockerfile" ] || die "there is no tests/packages/$1"; parts+=("$1"); shift ;;
  esac
done
[ ${#places[@]} -gt 0 ] || places=(host)
if [ ${#parts[@]} = 0 ]; then for file in tests/packages/*/Dockerfile; do parts+=("$(basename "$(dirname "$file")")"); done; fi

if ! is_root; then skip "packages: need root"; finish; fi
if ! install_tools runc=runc skopeo=skopeo umoci=umoci docker-registry=docker-registry debootstrap=debootstrap \
  busybox=busybox-static newuidmap=uidmap python3=python3; then
  skip "packages: a tool is missing"
  finish
fi
[ -n "$zuwai" ] || build_binary ci

make_workdir
make_debian || { skip "packages: no Debian base image"; finish; }
start_registry
push_debian
make_builder
mapfile -t proxy < <(proxy_arguments)
cp -r tests/packages "$work/packages" && chmod -R go+rX "$work/packages"

# with_lists: the base image of all parts, Debian with the archive's lists, so that not every part has to fetch them
with_lists() {
  mkdir -p "$work/lists"
  printf 'FROM %s\nRUN apt-get update\n' "$debian" >"$work/lists/Dockerfile"
  base=$registry/debian:lists
  zuwai_in host "$work/lists" zuwai build "--insecure-registry=$registry" "${proxy[@]}" "--tag=$base" --push @context@ \
    >"$work/lists.log" 2>&1
}

build() {
  zuwai_in "$(cage_of "$1")" "$work/packages/$2" zuwai build "--build-arg=DEBIAN=$base" "--insecure-registry=$registry" \
    "${proxy[@]}" "--isolation=$(backend_of "$1")" --compression-level=1 "--tag=$registry/packages:$3" --push @context@ \
    >"$work/$3.log" 2>&1
}

try() {
  local place=$1 part=$2 tag=$2-${1/:/-} begin=$SECONDS status=0
  build "$place" "$part" "$tag" || status=$?
  if [ $status != 0 ]; then
    fail "$place: $part: the build ended with status $status after $((SECONDS - begin)) s"
    tail -n 40 "$work/$tag.log" >&2
    return
  fi
  pass "$place: $part: built in $((SECONDS - begin)) s"
  check "$place: $part: owners, modes and capabilities in the layers" \
    python3 tests/layer_facts.py "http://$registry/packages:$tag" "http://$base" "tests/packages/$part/Dockerfile"
}

with_lists || { tail -n 20 "$work/lists.log" >&2; fail "packages: the base image with the archive's lists"; finish; }
for place in "${places[@]}"; do
  status=0
  reason=$(can_build "$place") || status=$?
  case $status in
    0) for part in "${parts[@]}"; do try "$place" "$part"; done ;;
    1) fail "$place: a back-end that should work does not: $reason" ;;
    *) skip "$place: $reason" ;;
  esac
done
finish
