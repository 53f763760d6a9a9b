#!/usr/bin/env bash
# shellcheck disable=SC2154,SC2317 # variables of lib.sh; functions that `check` calls by name
# Builds examples/tide in the cages (copies of Docker's, Kubernetes' and other environments; cages/README.md), pushes it to a
# registry and checks what was pushed with tools that are not ours: the image that this machine's root builds has the right
# config, owners, modes and set-id bits, and what any other place and back-end builds is the same image to the last byte.
#
#     tests/cages.sh [--binary FILE] [--all | PLACE...]
#
# A PLACE is a cage, or CAGE:BACKEND for a back-end that is asked for by name; the default is one of each kind, in a few
# minutes. Needs root, runc, skopeo, umoci, docker-registry, debootstrap and busybox; what cannot be done is skipped aloud.
# The last line reads `N passed, N failed, N skipped`. KEEP=1 keeps the working directory.
set -euo pipefail
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

# Root without namespaces, with them, nobody in a pod, a user with ids of its own; and root in place, also with few capabilities.
places=(docker-default k8s-default k8s-restricted openshift-restricted-v2 rootless-host docker-default:inplace root-nocaps:inplace)
all=("${places[@]}" root-nocaps k8s-baseline-seccomp k8s-default-apparmor k8s-userns k8s-userns-unconfined k8s-userns-unmasked
  crio-default podman-default k8s-nonroot k8s-default:inplace k8s-default:emulate crio-default:inplace rootless-host:emulate
  host:emulate)
# Where root has few rights over the kernel, and by default builds files that are other users' and keeps its own from a step.
rootful=(docker-default root-nocaps)
# Where nobody is root and nothing may be mounted.
restricted=(k8s-restricted openshift-restricted-v2)

zuwai=
while [ $# -gt 0 ]; do
  case $1 in
    --binary) zuwai=$(realpath "$2"); shift 2 ;;
    --all) places=("${all[@]}"); shift ;;
    -*) die "unknown option $1" ;;
    *) break ;;
  esac
done
[ $# = 0 ] || places=("$@") restricted=() rootful=()

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
make_builder
mapfile -t proxy < <(proxy_arguments)
cp -r examples/tide "$work/context" && chmod -R go+rX "$work/context"
# Later than any file of the base image and earlier than all that a build writes: what a build touched has this time, and
# what it has not shows its own.
epoch=$(date +%s)

# build PLACE TAG: as `zuwai build` in the place; stdout (the digest) in $work/TAG.digest, the rest in $work/TAG.log
build() {
  local cage tag=$2
  cage=$(cage_of "$1")
  local arguments=("--build-arg=DEBIAN=$debian" "--insecure-registry=$registry" "${proxy[@]}" "--isolation=$(backend_of "$1")"
    --reproducible "--build-arg=SOURCE_DATE_EPOCH=$epoch")
  # One place speaks Kaniko's language and calls the program by Kaniko's name, the others speak Docker's.
  if [ "$1" = docker-default ]; then
    arguments=(executor "${arguments[@]}" --context=dir://@context@ --dockerfile=Dockerfile "--destination=$registry/tide:$tag")
  else
    arguments=(zuwai build "${arguments[@]}" "--tag=$registry/tide:$tag" --push @context@)
  fi
  time_limit=600 zuwai_in "$cage" "$work/context" "${arguments[@]}" >"$work/$tag.digest" 2>"$work/$tag.log"
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
  python3 - "$work/bundle-$tag/config.json" <<'END_OF_SCRIPT' || return
import json, sys
config = json.load(open(sys.argv[1]))
process = config["process"]
assert process["args"] == ["tide", "serve"], process["args"]
process["args"][1], process["terminal"] = "whoami", False
json.dump(config, open(sys.argv[1], "w"))
END_OF_SCRIPT
  said=$(runc run --bundle "$work/bundle-$tag" "$(basename "$work")-$tag" </dev/null) || status=$?
  echo "status $status: $said"
  rm -rf --one-file-system "$work/bundle-$tag"
  [[ $status = 0 && $said =~ ^"tide 1.0.0 uid=990 gid="[1-9][0-9]*" directory=/var/lib/tide port=8080"$ ]]
}

# is_right TAG NAME: what the image of TAG must be, by what Debian's packages and the Dockerfile say
is_right() {
  check "$2: config, owners, modes and set-id bits" python3 tests/tide_image.py "http://$registry/tide:$1" "http://$debian"
  check "$2: umoci unpacks it, runc runs it" runs "$1"
}

# try PLACE: builds and checks; an image that is the host's to the last byte is as right as that one
try() {
  local place=$1 tag=${1/:/-} begin=$SECONDS status=0
  build "$place" "$tag" || status=$?
  if [ $status != 0 ]; then
    fail "$place: build ended with status $status"
    tail -n 30 "$work/$tag.log" >&2
    return
  fi
  pass "$place: built and pushed in $((SECONDS - begin)) s"
  check "$place: the printed digest is the pushed one" digest_is "$tag"
  if [ -z "$reference" ]; then
    is_right "$tag" "$place"
  elif cmp -s "$work/$tag.digest" "$work/$reference.digest"; then
    pass "$place: the same image as the host's"
  else
    check "$place: the same image as the host's" same_image "$tag"
    is_right "$tag" "$place"
  fi
}

same_image() {
  python3 tests/image_diff.py "http://$registry/tide:$reference" "http://$registry/tide:$1"
  return 1 # the digests are not the same
}

# refuses CAGE: a back-end that cannot work there is an error with the published status and a hint
refuses() {
  local status=0
  build "$1:namespace" refused || status=$?
  echo "status $status"
  cat "$work/refused.log"
  [ "$status" = 6 ] && grep -q 'hint: .*zuwai doctor' "$work/refused.log"
}

# composes CAGE: a Dockerfile without RUN needs no back-end, and its owners and modes are right whoever builds it
composes() {
  local out=$work/composed-$1
  mkdir -p "$work/plain" "$out"
  chmod 0777 "$out"
  cp examples/tide/tide.conf "$work/plain/"
  printf 'FROM %s\nCOPY --chown=1000:2000 --chmod=2755 tide.conf /opt/tide/conf\nWORKDIR /srv/tide\n' "$debian" \
    >"$work/plain/Dockerfile"
  cage_options=(--bind "$out:/out")
  zuwai_in "$1" "$work/plain" zuwai build "--insecure-registry=$registry" --no-push --oci-layout-path /out/image @context@ || return
  cage_options=()
  python3 conformance/flatten.py "$out/image" --base "http://$debian" >"$out/found.json" || return
  python3 - "$out/found.json" <<'END_OF_SCRIPT'
import json, sys
files = json.load(open(sys.argv[1]))["files"]
found = {path: (f["mode"], f["uid"], f["gid"]) for path, f in files.items()}
wanted = {"/opt/tide": ("0755", 1000, 2000), "/opt/tide/conf": ("2755", 1000, 2000), "/srv/tide": ("0755", 0, 0)}
assert found == wanted, found
END_OF_SCRIPT
}

# keeps CAGE: by default a step reads no credentials of the container, while the builder reads a context and writes a file
# that are another user's; who answers the step's calls has not the right by which it does
keeps() {
  local own=$work/keeps-$1 builder supervisor rights=none
  mkdir -p "$own/context/dir" "$own/out" "$own/secret" || return
  cat >"$own/context/Dockerfile" <<END
FROM $debian
COPY . /copied
RUN for root in "" /proc/1/root /proc/self/root /proc/self/cwd/..; do ! cat \$root/secret/config.json && ! ls \$root/out || exit 1; done 2>/dev/null
RUN [ "\$(cat /copied/dir/private)" = private ]
RUN sleep 2
END
  echo private >"$own/context/dir/private" && echo '{"auths":{}}' >"$own/secret/config.json"
  chmod 600 "$own/context/dir/private" && chmod 700 "$own/context/dir" "$own/out" && chmod 755 "$own" "$own/context"
  chown -R 1000:1000 "$own/context" "$own/out"
  cage_options=(--bind "$own/out:/out" --ro-bind "$own/secret:/secret")
  zuwai_in "$1" "$own/context" executor --insecure-registry="$registry" --context=dir://@context@ --no-push --digest-file=/out/digest &
  builder=$!
  cage_options=()
  while kill -0 "$builder" 2>/dev/null; do
    supervisor=$(pgrep -f '^zuwai-run supervise' | head -n 1) || true
    if [ -n "$supervisor" ] && pgrep -f '^sleep 2' >/dev/null; then
      rights=$(awk '/^Cap(Prm|Eff|Inh|Amb)/ { print $2 }' "/proc/$supervisor/status" | sort -u) || true
    fi
    sleep 0.2
  done
  wait "$builder" || return
  if [ "$rights" != 0000000000000000 ]; then echo "rights of the supervisor: $rights" && return 1; fi
  grep -q '^sha256:' "$own/out/digest"
}

reference=
try host
if digest_is host >/dev/null 2>&1; then reference=host; fi
for place in "${places[@]}"; do
  status=0
  reason=$(can_build "$place") || status=$?
  case $status in
    0) try "$place" ;;
    1) fail "$place: a back-end that should work does not: $reason" ;;
    *) skip "$place: $reason" ;;
  esac
done
for cage in "${restricted[@]}"; do
  check "$cage: namespaces are refused with status 6 and a hint" refuses "$cage"
  check "$cage: a Dockerfile without RUN builds, with its owners and modes" composes "$cage"
done
for cage in "${rootful[@]}"; do
  check "$cage: a step reads no credentials, the builder what another user made" keeps "$cage"
done
finish
