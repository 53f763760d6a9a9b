#!/usr/bin/env bash
# shellcheck disable=SC2154 # variables of lib.sh
# Memory must not grow with the image: builds and pushes a 2 GiB layer, then a layer of 100,000 files, and copies both to
# another stage; then compares the second with a rebuild, of which every file has another time. Each has to stay below the ceiling.
#
#     tests/memory.sh [--binary FILE]
#
# Needs docker-registry, busybox and 8 GiB in $TMPDIR (or /tmp). The last line reads `N passed, N failed, N skipped`.
set -euo pipefail
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

ceiling_kib=$((128 * 1024))
passed=0 failed=0

zuwai=
[ "${1:-}" != --binary ] || zuwai=$(realpath "$2")

make_workdir
if ! install_tools docker-registry=docker-registry python3=python3 busybox=busybox-static; then
  say "SKIP  memory: a tool is missing"
  echo "0 passed, 0 failed, 1 skipped"
  exit
fi
if [ "$(df --output=avail -k "$work" | tail -n 1)" -lt $((8 << 20)) ]; then
  say "SKIP  memory: less than 8 GiB free in $work"
  echo "0 passed, 0 failed, 1 skipped"
  exit
fi
[ -n "$zuwai" ] || build_binary ci
start_registry

mkdir -p "$work/large" "$work/many"
cp "$(command -v busybox)" "$work/large/busybox"
cp "$work/large/busybox" "$work/many/busybox"
prelude='FROM scratch AS made
COPY --chmod=755 busybox /bin/busybox
SHELL ["/bin/busybox", "sh", "-euc"]'

# One file of 2 GiB: a quarter noise, which no compressor makes smaller, the rest zeros.
cat >"$work/large/Dockerfile" <<END
$prelude
RUN /bin/busybox mkdir /data; /bin/busybox head -c 536870912 /dev/urandom > /data/large; \
    /bin/busybox dd if=/dev/zero bs=65536 count=24576 >> /data/large
FROM scratch
COPY --from=made /data /data
END
# 100,000 small files in 1,000 folders.
cat >"$work/many/Dockerfile" <<END
$prelude
RUN d=0; while [ \$d -lt 1000 ]; do /bin/busybox mkdir -p /data/\$d; f=0; \
    while [ \$f -lt 100 ]; do echo \$d/\$f > /data/\$d/a-file-with-a-name-of-usual-length-\$f; f=\$((f + 1)); done; d=\$((d + 1)); done
FROM scratch
COPY --from=made /data /data
END

# layers_kib KIND: the size of what was pushed, so that a build that lost the data does not pass
layers_kib() {
  python3 - "http://$registry/v2/memory/manifests/$1" <<'END'
import json, sys, urllib.request
kinds = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
with urllib.request.urlopen(urllib.request.Request(sys.argv[1], headers={"Accept": kinds})) as answer:
    print(sum(layer["size"] for layer in json.load(answer)["layers"]) // 1024)
END
}
declare -A least_kib=([large]=$((512 * 1024)) [many]=400)

for kind in large many; do
  begin=$SECONDS status=0 target=$registry/memory:$kind
  python3 tests/peak.py "$work/peak" "$zuwai" build --tag "$target" --push --insecure-registry "$registry" "$work/$kind" \
    >"$work/$kind.digest" 2>"$work/$kind.log" || status=$?
  peak=$(cat "$work/peak")
  said="$kind: $((peak / 1024)) MiB at most, ceiling $((ceiling_kib / 1024)) MiB, $((SECONDS - begin)) s"
  if [ $status != 0 ]; then
    failed=$((failed + 1))
    say "FAIL  $kind: build ended with status $status"
    tail -n 15 "$work/$kind.log" >&2
  elif [ "$(layers_kib "$kind")" -lt "${least_kib[$kind]}" ]; then
    failed=$((failed + 1))
    say "FAIL  $kind: only $(layers_kib "$kind") KiB of layers in the registry"
  elif [ "$peak" -gt "$ceiling_kib" ]; then
    failed=$((failed + 1))
    say "FAIL  $said"
  else
    passed=$((passed + 1))
    say "ok    $said"
  fi
done

begin=$SECONDS status=0
python3 tests/peak.py "$work/peak" "$zuwai" build --verify "$registry/memory:many" --insecure-registry "$registry" "$work/many" \
  >"$work/differences" 2>"$work/verify.log" || status=$?
peak=$(cat "$work/peak") lines=$(wc -l <"$work/differences")
said="verify: $lines lines, $((peak / 1024)) MiB at most, ceiling $((ceiling_kib / 1024)) MiB, $((SECONDS - begin)) s"
if [ $status != 7 ] || [ "$lines" -lt 100000 ]; then
  failed=$((failed + 1))
  say "FAIL  $said: status $status"
  tail -n 15 "$work/verify.log" >&2
elif [ "$peak" -gt "$ceiling_kib" ]; then
  failed=$((failed + 1))
  say "FAIL  $said"
else
  passed=$((passed + 1))
  say "ok    $said"
fi
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
