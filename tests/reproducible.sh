#!/usr/bin/env bash
# shellcheck disable=SC2154,SC2317 # variables of lib.sh; functions that are called by name
# Proves that a build depends on its inputs alone: one commit is built by two runners that have nothing else in common (uid,
# umask, time zone, locale, host name, times and order of the checked out files, number of processors, directories, back-end,
# clock), and the images are the same to the last byte. Then `--verify` says so, and says what is different after a change.
#
#     tests/reproducible.sh [--binary FILE]
#
# Needs root, runc, busybox and python3; what cannot be done is skipped aloud. The last line reads `N passed, N failed, N skipped`.
set -euo pipefail
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

zuwai=
while [ $# -gt 0 ]; do
  case $1 in
    --binary) zuwai=$(realpath "$2"); shift 2 ;;
    *) die "unknown option $1" ;;
  esac
done
if ! is_root; then skip "reproducible: needs root"; finish; fi
if ! install_tools runc=runc busybox=busybox-static python3=python3 unshare=util-linux; then
  skip "reproducible: a tool is missing"
  finish
fi
[ -n "$zuwai" ] || build_binary ci
make_workdir
make_builder
# A file system that lists directories in an order of its own: by creation rather than by a hash of the name.
elsewhere=$work/elsewhere
if [ -d /dev/shm ] && [ -w /dev/shm ]; then elsewhere=/dev/shm/$(basename "$work"); fi
trap 'rm -rf "$elsewhere"; clean_up' EXIT
epoch=1700000000

# checkout DIR NEWEST: the commit, its files written in an order and with times of their own
checkout() {
  local dir=$1 order=$2 name
  local files=(src/main.sh src/lib/one src/lib/two src/lib/deep/three .dockerignore Dockerfile notes.md ignored.tmp)
  [ "$order" = forward ] || mapfile -t files < <(printf '%s\n' "${files[@]}" | tac)
  mkdir -p "$dir"
  for name in "${files[@]}"; do
    mkdir -p "$dir/$(dirname "$name")"
    content "$name" >"$dir/$name"
  done
  # What git keeps of a mode is whether a file is executable.
  chmod +x "$dir/src/main.sh"
  ln -s lib/one "$dir/src/link"
  cp "$work/archive.tar.gz" "$dir/archive.tar.gz"
}

content() {
  case $1 in
    .dockerignore) printf '*.tmp\n' ;;
    Dockerfile) dockerfile ;;
    src/main.sh) printf '#!/bin/sh\necho main\n' ;;
    *) printf 'this is %s\n' "$1" ;;
  esac
}

dockerfile() {
  cat <<END
FROM base AS build
ARG SOURCE_DATE_EPOCH
WORKDIR /build/deep
COPY src/ ./
ADD http://127.0.0.1:$port/fetched.txt /build/
RUN sh main.sh > out; for i in 3 1 2; do mkdir -p d\$i && echo "\$i \$SOURCE_DATE_EPOCH" > d\$i/f; done; ln d1/f hard; chmod 4755 main.sh; chown 12:34 d2/f

FROM base AS other
RUN echo "made in another stage" > /made && touch -d @1234567890 /old

FROM base
COPY . /context/
ADD archive.tar.gz /unpacked
ADD --chmod=644 --chown=7:8 http://127.0.0.1:$port/fetched.txt /fetched/here.txt
COPY --from=build /build /build
COPY --link --from=other /made /old /linked/
COPY --link --chown=5:6 src/lib /linked/lib/
COPY <<EOF /etc/written
as it is
EOF
WORKDIR /new/work/directory
RUN rm /context/notes.md; mkdir many; for i in 1 2 3 4 5 6 7 8 9; do echo \$i > many/\$i; done; chown -R 1000:1000 many
ENV PLACE=anywhere
LABEL one=two
USER 1000
CMD ["sh", "-c", "true"]
END
}

# What is fetched comes with a time of its own, as from any server. The port is part of the Dockerfile: one server for all.
mkdir "$work/served" "$work/base" "$work/base/bin" "$work/base/tmp"
echo "fetched" >"$work/served/fetched.txt" && touch -d @1600000000 "$work/served/fetched.txt"
: >"$work/port" # to be read before the server may have begun it
python3 -c '
import functools, http.server, sys
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
print(server.server_port, flush=True)
server.serve_forever()' "$work/served" >"$work/port" 2>/dev/null &
registry_pid=$! # ended by clean_up
for _ in $(seq 100); do port=$(cat "$work/port"); [ -z "$port" ] || break; sleep 0.1; done
[ -n "$port" ] || die "no server to fetch from"

# The base image: a busybox, in layers that no build of ours wrote as they are (their times are later than the epoch).
busybox=$(command -v busybox)
printf 'FROM scratch\nCOPY busybox /bin/\nCOPY passwd group /etc/\n' >"$work/base/Dockerfile"
cp "$busybox" "$work/base/busybox"
printf 'root:x:0:0::/root:/bin/sh\nrunner:x:1000:1000::/:/bin/sh\n' >"$work/base/passwd"
printf 'root:x:0:\nrunner:x:1000:\n' >"$work/base/group"
"$zuwai" build --quiet --tag base --oci-layout-path "$work/plain" "$work/base" >/dev/null
printf 'FROM plain\nRUN ["/bin/busybox", "--install", "-s", "/bin"]\nENV PATH=/bin\n' >"$work/base/Dockerfile"
"$zuwai" build --quiet --tag base --build-context "plain=oci-layout://$work/plain" --oci-layout-path "$work/layout" "$work/base" >/dev/null
chmod -R a+rX "$work/layout"

mkdir "$work/archive" && mkdir -m 750 "$work/archive/d" && echo packed >"$work/archive/d/f" && ln -s f "$work/archive/d/l"
tar -C "$work/archive" --owner=11 --group=22 --mtime=@1500000000 -czf "$work/archive.tar.gz" .

# Two checkouts of one commit.
one=$work/one two=$elsewhere/much/deeper/two
checkout "$one" forward
(umask 077 && checkout "$two" backward)
# A checkout comes after its commit, and the commit's time is the epoch. (What is older than the epoch stays as it is.)
find "$one" -exec touch -h -d @1800000000 {} +
find "$two" -exec touch -h -d @1999999999 {} +
# COPY takes modes as they are, as BuildKit does, and a umask is part of a checkout's: docs/reproducible.md says what to do. Here
# the files are made equal, so that the umask of the build alone is another one.
find "$two" -type f -exec chmod u=rwX,go=rX {} + -o -type d -exec chmod 755 {} +
chmod 755 "$elsewhere" "$elsewhere/much" "$elsewhere/much/deeper"
for dir in "$one" "$two"; do say "directories are listed as: $(find "$dir" -mindepth 1 -maxdepth 1 -printf '%f ')"; done

common=(--tag app --build-context "base=oci-layout://@layout@")

# runner_host ARGUMENT...: root on this machine, in UTC and C, with one processor; `mask` is its umask
mask=022
runner_host() {
  mkdir -p "$work/host-work"
  (
    umask "$mask"
    export TZ=UTC LC_ALL=C SOURCE_DATE_EPOCH=$epoch
    taskset 1 unshare --uts sh -c 'hostname runner-one && exec "$@"' sh "$zuwai" build --jobs 1 --work-dir "$work/host-work" \
      --progress plain "${common[@]//@layout@/$work/layout}" "$@"
  )
}

# runner_cage CAGE ARGUMENT...: a pod, of any user, with another time zone, locale and host name, and more of everything
runner_cage() {
  local cage=$1
  shift
  mkdir -p "$work/out" && chmod 777 "$work/out"
  CAGE_TMP=$work timeout 300 cages/cage "$cage" --rootfs "$work/image" --ro-bind "$two:/srv/checkout" \
    --ro-bind "$work/layout:/srv/layout" --bind "$work/out:/out" --env TZ=Pacific/Auckland --env LC_ALL=de_DE.UTF-8 \
    --env LANG=tr_TR.UTF-8 --env HOSTNAME=runner-two --env "SOURCE_DATE_EPOCH=$epoch" -- \
    /zuwai/zuwai build --jobs 7 --progress plain "${common[@]//@layout@//srv/layout}" "$@"
}

built() { # built NAME COMMAND...
  local name=$1 status=0
  shift
  "$@" >"$work/$name.digest" 2>"$work/$name.log" || status=$?
  if [ $status = 0 ]; then pass "$name: built"; else fail "$name: status $status"; tail -n 20 "$work/$name.log" >&2; fi
}

same() { echo "$(cat "$work/$1.digest") and $(cat "$work/$2.digest")"; [ -s "$work/$1.digest" ] && cmp "$work/$1.digest" "$work/$2.digest"; }

# The base image's layers are the first ones of the result, as they are.
base_is_untouched() {
  python3 - "$work/layout" "$1" <<'END_OF_SCRIPT'
import json, os, sys
def layers(layout):
    read = lambda digest: json.load(open(os.path.join(layout, "blobs", *digest.split(":"))))
    manifest = read(json.load(open(os.path.join(layout, "index.json")))["manifests"][0]["digest"])
    return [layer["digest"] for layer in manifest["layers"]], read(manifest["config"]["digest"])
(base, base_config), (made, config) = layers(sys.argv[1]), layers(sys.argv[2])
assert len(base) >= 2 and made[:len(base)] == base, (base, made)
history = base_config["history"]
assert config["history"][:len(history)] == history, "the base's history"
assert config["created"] == "2023-11-14T22:13:20Z", config["created"]
assert {entry["created"] for entry in config["history"][len(history):]} == {config["created"]}, config["history"]
END_OF_SCRIPT
}

# No time in a new layer is later than the epoch, and what was older stays so.
times_are_clamped() {
  python3 - "$work/layout" "$1" "$epoch" <<'END_OF_SCRIPT'
import gzip, io, json, os, sys, tarfile
def manifest(layout):
    read = lambda digest: json.load(open(os.path.join(layout, "blobs", *digest.split(":"))))
    return read(json.load(open(os.path.join(layout, "index.json")))["manifests"][0]["digest"])
base = {layer["digest"] for layer in manifest(sys.argv[1])["layers"]}
times = {}
for layer in manifest(sys.argv[2])["layers"]:
    if layer["digest"] not in base:
        blob = open(os.path.join(sys.argv[2], "blobs", *layer["digest"].split(":")), "rb").read()
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(blob))) as tar:
            times.update({entry.name.strip("/"): entry.mtime for entry in tar})
epoch = int(sys.argv[3])
late = {name: time for name, time in times.items() if time > epoch}
assert not late, late
wanted = {"linked/old": 1234567890, "unpacked/d/f": 1500000000, "fetched/here.txt": 1600000000, "new/work/directory": epoch,
          "build/deep/d1/f": epoch, "context/src/main.sh": epoch}
wrong = {name: (times.get(name), time) for name, time in wanted.items() if times.get(name) != time}
assert not wrong, wrong
END_OF_SCRIPT
}

# ends STATUS COMMAND...: the command ends with this status
ends() {
  local wanted=$1 status=0
  shift
  "$@" || status=$?
  echo "status $status"
  [ "$status" = "$wanted" ]
}

verify_finds() { # verify_finds STATUS TEXT COMMAND...: and standard output has the text
  local text=$2 wanted=$1
  shift 2
  ends "$wanted" "$@" >"$work/verify.out" 2>"$work/verify.err" || { cat "$work/verify.out" "$work/verify.err"; return 1; }
  cat "$work/verify.out"
  grep -qF -- "$text" "$work/verify.out"
}

built host runner_host --reproducible --oci-layout-path "$work/host" "$one"
check "the base image's layers and history are untouched" base_is_untouched "$work/host"
check "times in new layers are at most SOURCE_DATE_EPOCH" times_are_clamped "$work/host"
for place in k8s-restricted docker-default:inplace; do
  cage=$(cage_of "$place")
  if ! reason=$(cages/cage --self-check "$cage" 2>&1 </dev/null); then skip "$cage: $(tail -n 1 <<<"$reason")"; continue; fi
  built "$cage" runner_cage "$cage" --isolation "$(backend_of "$place")" --reproducible --oci-layout-path "/out/$cage" /srv/checkout
  check "$cage: the same image as root on this machine builds" same host "$cage"
done
# And with a umask that leaves nothing to others.
mask=077
built rewrite runner_host --output "type=oci,dest=$work/rewrite.tar,rewrite-timestamp=true" "$one"
check "rewrite-timestamp=true, and another umask" same host rewrite

check "--verify: the same image" verify_finds 0 "the same image: $(cat "$work/host.digest")" \
  runner_host --reproducible --verify "oci-layout://$work/host" "$two"
echo "changed" >>"$two/src/lib/two" && chmod 600 "$two/src/lib/one"
check "--verify: another content" verify_finds 7 "context/src/lib/two: size 20 → 28, content" \
  runner_host --reproducible --verify "oci-layout://$work/host" "$two"
check "--verify: another mode" grep -qF "context/src/lib/one: mode 0644 → 0600" "$work/verify.out"
finish
