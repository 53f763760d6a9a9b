#!/usr/bin/env bash
# shellcheck disable=SC2154 # variables of tests/lib.sh
# What a RUN step costs in each back-end: the same commands inside a step and in a plain container (runc, Docker's default
# capabilities and seccomp profile, the same root file system over an overlay), timed by themselves within it.
#
#     benches/overhead/run.sh [--binary FILE] [--runs N] [--in PLACE]... [WORKLOAD...]
#
# A PLACE is a cage of cages/README.md, CAGE:BACKEND, or `host`. A run is the container, then one build in each place, and so on
# N (3) times, so that a slow minute of the machine meets all of them; each number is the median. A TMPDIR on a tmpfs (of 8 GB)
# keeps the disk out of it. Needs root. Ends with a table in markdown: seconds in the container, and how many times as long each
# place takes.
set -euo pipefail
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../../tests/lib.sh"

zuwai='' runs=3 places=() workloads=()
while [ $# -gt 0 ]; do
  case $1 in
    --binary) zuwai=$(realpath "$2"); shift 2 ;;
    --runs) runs=$2; shift 2 ;;
    --in) places+=("$2"); shift 2 ;;
    -*) die "unknown option $1 (see the top of $0)" ;;
    *) workloads+=("$1"); shift ;;
  esac
done
[ ${#places[@]} -gt 0 ] || places=(k8s-default docker-default:inplace root-nocaps:inplace k8s-restricted)
[ ${#workloads[@]} -gt 0 ] || workloads=(dpkg compile configure copy walk git exec)

is_root || die "this needs root: sudo $0"
install_tools runc=runc docker-registry=docker-registry debootstrap=debootstrap skopeo=skopeo umoci=umoci busybox=busybox-static \
  newuidmap=uidmap python3=python3 cc=gcc || die "a tool is missing"
install_tools musl-gcc=musl-tools || true
[ -n "$zuwai" ] || build_binary release

make_workdir
make_debian || die "no Debian base image"
start_registry
push_debian
make_builder
mapfile -t proxy < <(proxy_arguments)

# The image with the tools and packages, and the same as a directory for runc; both are kept for the next time.
prepared=$state/overhead image=$registry/overhead:prepared
stamp=$(cat "$state/debian/stamp" benches/overhead/Dockerfile | sha256sum)
if [ "$(cat "$prepared/stamp" 2>/dev/null)" != "$stamp" ]; then
  say "preparing the image (kept in $prepared)"
  rm -rf --one-file-system "$prepared"
  mkdir -p "$prepared"
  "$work/bin/zuwai" build --build-arg "DEBIAN=$debian" --insecure-registry "$registry" "${proxy[@]}" --tag overhead:prepared \
    --no-push --oci-layout-path "$prepared/layout" benches/overhead >"$work/prepare.log" 2>&1 ||
    { tail -n 20 "$work/prepare.log" >&2; die "the image could not be prepared"; }
  skopeo copy --quiet "oci:$prepared/layout" "oci:$prepared/tagged:prepared"
  umoci unpack --image "$prepared/tagged:prepared" "$prepared/bundle"
  printf '%s\n' "$stamp" >"$prepared/stamp"
fi
skopeo copy --quiet --dest-tls-verify=false "oci:$prepared/layout" "docker://$image"
cp -a "$prepared/bundle/rootfs" "$work/rootfs" # on the file system that the builds have
mkdir -p "$work/context"
cp benches/overhead/workload "$work/context/"
printf 'FROM %s\nCOPY workload /workload\nRUN /workload %s\n' "$image" "${workloads[*]}" >"$work/context/Dockerfile"
chmod -R go+rX "$work/context"

# measured NAME COMMAND...: runs it, and adds its times and the whole to $work/times
measured() {
  local name=$1 begin=$EPOCHREALTIME end
  shift
  "$@" >"$work/run.log" 2>&1 || { tail -n 20 "$work/run.log" >&2; die "$name: it failed"; }
  end=$EPOCHREALTIME
  sed -n "s/.*took \([a-z]*\) \([0-9]*\)\$/$name \1 \2/p" "$work/run.log" >>"$work/times"
  echo "$name whole $((${end/./} - ${begin/./}))" >>"$work/times"
}

build() {
  zuwai_in "$(cage_of "$1")" "$work/context" zuwai build "--insecure-registry=$registry" "--isolation=$(backend_of "$1")" \
    --no-push @context@
}

# The back-end that serves a place, for the head of its column
served_by() {
  local backend
  backend=$(backend_of "$1")
  [ "$backend" != auto ] || backend=$(zuwai_in "$(cage_of "$1")" "$work" zuwai doctor 2>&1 | sed -n 's/^chosen: \([a-z]*\).*/\1/p')
  echo "$backend"
}

usable=()
for place in "${places[@]}"; do
  if reason=$(can_build "$place"); then usable+=("$place"); else say "SKIP  $place: $reason"; fi
done
for place in "${usable[@]}"; do echo "$place $(served_by "$place")"; done >"$work/places"
for ((run = 1; run <= runs; run++)); do
  say "run $run of $runs"
  CAGE_TMP=$work measured container cages/cage docker-default --rootfs "$work/rootfs" \
    --ro-bind "$work/context/workload:/workload" -- /workload "${workloads[@]}"
  for place in "${usable[@]}"; do measured "$place" build "$place"; done
done

python3 - "$work/times" "$work/places" "$runs" <<'END'
import collections, statistics, sys
times = collections.defaultdict(list)
for line in open(sys.argv[1]):
    place, workload, microseconds = line.split()
    times[place, workload].append(int(microseconds) / 1e6)
places = [line.split() for line in open(sys.argv[2])]
meant = {
    "dpkg": "`apt-get install` of 60 packages that are there", "compile": "compile Lua, `make -j2`",
    "configure": "`./configure` of GNU hello", "copy": "`tar` copy of /usr/share and /usr/lib", "walk": "`find /` with `stat`, three times",
    "git": "`git clone` and `checkout` of 5,000 files", "exec": "start `/bin/true` 2,000 times",
}
workloads = list(dict.fromkeys(w for p, w in times if p == "container" and w != "whole"))
print("| | container | " + " | ".join(f"`{backend}` ({place})" for place, backend in places) + " |")
print("| --- " * (len(places) + 2) + "|")
for workload in workloads:
    plain = statistics.median(times["container", workload])
    cells = [f"{statistics.median(times[place, workload]) / plain:.2f}" for place, _ in places]
    print(f"| {meant[workload]} | {plain:.1f} s | " + " | ".join(cells) + " |")
rest = []
for place, _ in places:
    whole = [w - sum(steps) for w, steps in zip(times[place, "whole"], zip(*(times[place, w] for w in workloads)))]
    rest.append(f"{statistics.median(whole):.1f} s")
print("| pull, unpack, make the layer: seconds more | | " + " | ".join(rest) + " |")
END
