#!/usr/bin/env bash
# shellcheck disable=SC2154,SC2317 # variables of lib.sh; functions that `check` calls by name
# Builds examples/tide in the cages (copies of Docker's, Kubernetes' and other environments; cages/README.md), pushes it to a
# registry and checks what was pushed with tools that are not ours.
#
#     tests/cages.sh [--binary FILE] [CAGE...]
#
# Needs root, runc, skopeo, umoci, docker-registry, debootstrap and busybox; what cannot be done is skipped aloud. The
# last line reads `N passed, N failed, N skipped`. KEEP=1 keeps the working directory.
set -euo pipefail
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

cages=(docker-default k8s-default k8s-userns-unmasked root-nocaps crio-default rootless-host)
# Where no back-end works yet a build has to say so and what to do, with the published status.
refusing=(k8s-restricted openshift-restricted-v2)

passed=0 failed=0 skipped=0
pass() { passed=$((passed + 1)); say "ok    $*"; }
fail() { failed=$((failed + 1)); say "FAIL  $*"; }
skip() { skipped=$((skipped + 1)); say "SKIP  $*"; }
finish() { echo "$passed passed, $failed failed, $skipped skipped"; [ "$failed" = 0 ]; exit; }
# check NAME COMMAND...: passes when the command succeeds, shows its output when not
check() {
  local name=$1
  shift
  if "$@" >"$work/check.log" 2>&1; then pass "$name"; else fail "$name"; tail -n 12 "$work/check.log" >&2; fi
}

zuwai=
while [ $# -gt 0 ]; do
  case $1 in
    --binary) zuwai=$(realpath "$2"); shift 2 ;;
    -*) die "unknown option $1" ;;
    *) break ;;
  esac
done
if [ $# -gt 0 ]; then
  known=" ${refusing[*]} " cages=() refusing=()
  for cage; do
    case $known in *" $cage "*) refusing+=("$cage") ;; *) cages+=("$cage") ;; esac
  done
fi

if ! is_root; then skip "cages: need root"; finish; fi
if ! install_tools runc=runc skopeo=skopeo umoci=umoci docker-registry=docker-registry debootstrap=debootstrap \
  busybox=busybox-static newuidmap=uidmap python3=python3 xz=xz-utils; then
  skip "cages: a tool is missing"
  finish
fi
[ -n "$zuwai" ] || build_binary ci

make_workdir
make_debian || { skip "cages: no Debian base image"; finish; }
start_registry
push_debian
mapfile -t proxy < <(proxy_arguments)

# The builder's own image holds the program and nothing else, as the published one does.
mkdir -p "$work/image/zuwai" "$work/bin"
cp "$zuwai" "$work/image/zuwai/zuwai" && cp "$zuwai" "$work/bin/zuwai"
ln -s zuwai "$work/image/zuwai/executor"
cp -r examples/tide "$work/context" && chmod -R go+rX "$work/context"

# build CAGE TAG: as `zuwai build` in the cage; stdout (the digest) in $work/TAG.digest, the rest in $work/TAG.log
build() {
  local cage=$1 tag=$2 context=/context
  local program=(/zuwai/zuwai build)
  local arguments=("--build-arg=DEBIAN=$debian" "--insecure-registry=$registry" "${proxy[@]}")
  local within=()
  case $cage in
    host) program=("$work/bin/zuwai" build) context=$work/context ;;
    rootless-host) within=("$repository/cages/cage" "$cage" --) program=("$work/bin/zuwai" build) context=$work/context ;;
    *) within=("$repository/cages/cage" "$cage" --rootfs "$work/image" --ro-bind "$work/context:/context" --) ;;
  esac
  # One cage speaks Kaniko's language and calls the program by Kaniko's name, the others speak Docker's.
  if [ "$cage" = docker-default ]; then
    program=(/zuwai/executor)
    arguments+=("--context=dir://$context" --dockerfile=Dockerfile "--destination=$registry/tide:$tag")
  else
    arguments+=("--tag=$registry/tide:$tag" --push "$context")
  fi
  CAGE_TMP=$work timeout 600 "${within[@]}" "${program[@]}" "${arguments[@]}" >"$work/$tag.digest" 2>"$work/$tag.log"
}

# digest_is TAG: what was printed is what skopeo finds in the registry
digest_is() {
  local found
  found=$(skopeo inspect --tls-verify=false --format '{{.Digest}}' "docker://$registry/tide:$1")
  echo "printed $(cat "$work/$1.digest"), the registry has $found"
  [ "$(cat "$work/$1.digest")" = "$found" ]
}

# runs TAG: the image is unpacked by umoci and its program run by runc, as its user, in its directory
runs() {
  local tag=$1 said status=0
  skopeo copy --quiet --src-tls-verify=false "docker://$registry/tide:$tag" "oci:$work/pulled:$tag" || return
  umoci unpack --image "$work/pulled:$tag" "$work/bundle-$tag" || return
  python3 - "$work/bundle-$tag/config.json" <<'END' || return
import json, sys
config = json.load(open(sys.argv[1]))
process = config["process"]
assert process["args"] == ["tide", "serve"], process["args"]
process["args"][1], process["terminal"] = "whoami", False
json.dump(config, open(sys.argv[1], "w"))
END
  said=$(runc run --bundle "$work/bundle-$tag" "$(basename "$work")-$tag" </dev/null) || status=$?
  echo "status $status: $said"
  rm -rf --one-file-system "$work/bundle-$tag"
  [[ $status = 0 && $said =~ ^"tide 1.0.0 uid=990 gid="[1-9][0-9]*" directory=/var/lib/tide port=8080"$ ]]
}

# verify TAG NAME [REFERENCE_TAG]
verify() {
  local tag=$1 name=$2 like=()
  [ -z "${3:-}" ] || like=(--like "http://$registry/tide:$3")
  check "$name: the printed digest is the pushed one" digest_is "$tag"
  check "$name: config, owners, modes and set-id bits" \
    python3 tests/tide_image.py "http://$registry/tide:$tag" "http://$debian" "${like[@]}"
  check "$name: umoci unpacks it, runc runs it" runs "$tag"
}

try() {
  local cage=$1 begin=$SECONDS status=0
  build "$cage" "$cage" || status=$?
  if [ $status != 0 ]; then
    fail "$cage: build ended with status $status"
    tail -n 15 "$work/$cage.log" >&2
    return
  fi
  pass "$cage: built and pushed in $((SECONDS - begin)) s"
  if [ "$cage" = host ]; then verify host host; else verify "$cage" "$cage" "$reference"; fi
}

refuses() {
  local status=0
  build "$1" "$1" || status=$?
  echo "status $status"
  cat "$work/$1.log"
  [ "$status" = 6 ] && grep -q 'hint: .*zuwai doctor' "$work/$1.log"
}

# composes CAGE: a Dockerfile without RUN needs no back-end, and its owners and modes are right whoever builds it
composes() {
  local out=$work/composed-$1
  mkdir -p "$work/plain" "$out"
  chmod 0777 "$out"
  cp examples/tide/tide.conf "$work/plain/"
  printf 'FROM %s\nCOPY --chown=1000:2000 --chmod=2755 tide.conf /opt/tide/conf\nWORKDIR /srv/tide\n' "$debian" \
    >"$work/plain/Dockerfile"
  CAGE_TMP=$work timeout 300 cages/cage "$1" --rootfs "$work/image" --ro-bind "$work/plain:/context" --bind "$out:/out" -- \
    /zuwai/zuwai build "--insecure-registry=$registry" --no-push --oci-layout-path /out/image /context || return
  python3 conformance/flatten.py "$out/image" --base "http://$debian" >"$out/found.json" || return
  python3 - "$out/found.json" <<'END'
import json, sys
files = json.load(open(sys.argv[1]))["files"]
found = {path: (f["mode"], f["uid"], f["gid"]) for path, f in files.items()}
wanted = {"/opt/tide": ("0755", 1000, 2000), "/opt/tide/conf": ("2755", 1000, 2000), "/srv/tide": ("0755", 0, 0)}
assert found == wanted, found
END
}

reference=
try host
! skopeo inspect --tls-verify=false "docker://$registry/tide:host" >/dev/null 2>&1 || reference=host
for cage in "${cages[@]}"; do
  if cages/cage --self-check "$cage" >"$work/self-check.log" 2>&1; then
    try "$cage"
  else
    skip "$cage: this machine cannot make the cage: $(tail -n 1 "$work/self-check.log")"
  fi
done
for cage in "${refusing[@]}"; do
  check "$cage: refused with status 6 and a hint, no back-end for it yet" refuses "$cage"
  check "$cage: a Dockerfile without RUN builds, with its owners and modes" composes "$cage"
done
finish
