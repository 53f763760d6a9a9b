# shellcheck shell=bash disable=SC1091,SC2034
# What the scripts of this repository share: tools from Debian, the binary, a Debian base image, a registry on loopback.
# To be sourced by a bash script that has set `-euo pipefail`. All that is kept lies below target/.

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$repository" || exit
state=${CARGO_TARGET_DIR:-$repository/target}
export CARGO_TARGET_DIR=$state
# A build on a machine with a proxy must not ask the proxy for the registry on loopback.
export no_proxy="127.0.0.1,localhost${no_proxy:+,$no_proxy}" NO_PROXY="127.0.0.1,localhost${NO_PROXY:+,$NO_PROXY}"

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
is_root() { [ "$(id -u)" = 0 ]; }

# What a script counts; `finish` ends it with the counts, as `./test` reads them.
passed=0 failed=0 skipped=0
pass() { passed=$((passed + 1)); say "ok    $*"; }
fail() { failed=$((failed + 1)); say "FAIL  $*"; }
skip() { skipped=$((skipped + 1)); say "SKIP  $*"; }
finish() { echo "$passed passed, $failed failed, $skipped skipped"; [ "$failed" = 0 ]; exit; }
# check NAME COMMAND...: passes when the command succeeds, shows its output when not
check() {
  local name=$1
  shift
  if "$@" >"$work/check.log" 2>&1; then pass "$name"; else fail "$name"; tail -n 30 "$work/check.log" >&2; fi
}

PATH=$PATH:/usr/sbin:/sbin # runc, debootstrap and chroot live there, and a plain user's PATH may lack it

# install_tools COMMAND=PACKAGE...: installs the packages whose command (or file, by its path) is missing. Needs root and
# apt-get; otherwise it says what to install and fails, and the caller skips what needs the tool.
install_tools() {
  local pair missing=()
  for pair in "$@"; do have "${pair%%=*}" || [ -e "${pair%%=*}" ] || missing+=("${pair#*=}"); done
  [ ${#missing[@]} -gt 0 ] || return 0
  if ! is_root || ! have apt-get; then
    say "missing here: ${missing[*]} (as root on Debian: apt-get install ${missing[*]})"
    return 1
  fi
  say "installing ${missing[*]}"
  local log=$state/apt.log policy=/usr/sbin/policy-rc.d made=
  mkdir -p "$state"
  # Nothing that is installed here shall begin to serve on this machine by itself.
  if [ ! -e $policy ]; then printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy && made=1; fi
  local result=0
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"; } \
    >"$log" 2>&1 || result=$?
  [ -z "$made" ] || rm -f $policy
  [ $result = 0 ] || { tail -n 5 "$log" >&2; say "could not install ${missing[*]}"; return 1; }
}

# rust_target: the target the binary is built for. musl makes the static binary that is released; where its parts cannot
# be had, the binary is linked with this machine's libc, and that is said.
rust_target() {
  local musl gnu
  musl=$(uname -m)-unknown-linux-musl gnu=$(uname -m)-unknown-linux-gnu
  if ! have musl-gcc; then
    say "warning: no musl-gcc (Debian: musl-tools); building a dynamic binary for $gnu instead"
  elif [ ! -d "$(rustc --print sysroot)/lib/rustlib/$musl" ] && ! { have rustup && rustup target add "$musl" >&2; }; then
    say "warning: the Rust target $musl cannot be had; building a dynamic binary for $gnu instead"
  else
    echo "$musl" && return
  fi
  echo "$gnu"
}

# arm64_tools: what it takes to compile for arm64 on another machine. The C compiler is one for glibc, and good enough for
# the C libraries in the dependencies; the linker and musl itself come with Rust.
arm64_tools() {
  local other=aarch64-unknown-linux-musl
  [ -d "$(rustc --print sysroot)/lib/rustlib/$other" ] || { have rustup && rustup target add $other >&2; } || return
  install_tools aarch64-linux-gnu-gcc=gcc-aarch64-linux-gnu aarch64-linux-gnu-gcc=libc6-dev-arm64-cross || return
  export CC_aarch64_unknown_linux_musl=aarch64-linux-gnu-gcc
  export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld
  export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_RUSTFLAGS='-C link-self-contained=yes'
}

# build_binary PROFILE: builds the command and sets `zuwai` to its path.
build_binary() {
  local profile=$1 target
  target=$(rust_target)
  say "building the $profile binary for $target"
  cargo build --locked --quiet --profile "$profile" --target "$target" -p zuwai-cli --bin zuwai >&2
  zuwai=$state/$target/$profile/zuwai
}

# build_contract PROFILE [TARGET]: builds the contract suite of the isolation back-ends as a program; sets `contract` to it
build_contract() {
  local profile=$1 target=${2:-}
  [ -n "$target" ] || target=$(rust_target)
  say "building the contract suite for $target"
  cargo build --locked --quiet --profile "$profile" --target "$target" -p zuwai-sandbox --example contract >&2
  contract=$state/$target/$profile/examples/contract
}

# read_contract WHERE LOG: counts what the contract suite printed
read_contract() {
  local where=$1 log=$2 line last
  while IFS= read -r line; do
    case $line in
      'ok  '*) passed=$((passed + 1)) ;;
      'WRONG '*) fail "$where: ${line#WRONG }" ;;
    esac
  done <"$log"
  if last=$(grep -E '^[0-9]+ of [0-9]+ right$' "$log"); then
    say "$where: $last"
  elif grep -q '^could not enter' "$log"; then
    fail "$where: the back-end does not work here: $(tail -n 1 "$log")"
  else
    fail "$where: did not come to its end; the last check was: $(tail -n 1 "$log")"
  fi
}

# make_workdir: sets `work` to a new directory that any user may enter, and removes it (and the registry) at the end.
make_workdir() {
  work=$(mktemp -d "${TMPDIR:-/tmp}/zuwai-XXXXXX")
  chmod 755 "$work"
  trap 'clean_up' EXIT
  trap 'exit 130' INT TERM
}

clean_up() {
  [ -z "${registry_pid:-}" ] || kill "$registry_pid" 2>/dev/null || true
  [ -z "${KEEP:-}" ] || { say "kept: $work"; return; }
  rm -rf --one-file-system "$work"
}

# start_registry: a Docker registry on a free port of 127.0.0.1; sets `registry` to its address and `registry_pid`.
start_registry() {
  mkdir -p "$work/registry"
  cat >"$work/registry.yml" <<END
version: 0.1
log: {level: info}
storage: {filesystem: {rootdirectory: $work/registry}, delete: {enabled: true}}
http: {addr: "127.0.0.1:0"}
END
  : >"$work/registry.log" # to be read before the registry may have begun it
  OTEL_TRACES_EXPORTER=none docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
  registry_pid=$!
  local try port=
  for try in $(seq 100); do
    port=$(sed -n 's/.*listening on 127\.0\.0\.1:\([0-9]*\).*/\1/p' "$work/registry.log" | head -n 1)
    [ -z "$port" ] || break
    kill -0 "$registry_pid" 2>/dev/null || { cat "$work/registry.log" >&2; die "docker-registry did not start"; }
    sleep 0.1
  done
  [ -n "$port" ] || die "docker-registry did not begin to listen ($try tries)"
  registry=127.0.0.1:$port
}

# debian_sources: "URI RELEASE main" of the Debian archives that this machine's apt uses for its own release. Other
# archives (of a database, of a browser) are no part of a base image.
debian_sources() {
  # shellcheck disable=SC2016 # the format is apt's
  apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
    awk -v r="$codename" '$3 == "main" && ($2 == r || $2 == r "-updates" || $2 == r "-security")' | sort -u
}

# apt_transport_settings: how this machine's apt reaches the archives (proxies and the like), in apt.conf's syntax.
apt_transport_settings() {
  apt-config dump | grep -E \
    '^Acquire::((http|https)::(Proxy|Timeout|Verify-Peer|Verify-Host)|Retries|ForceIPv[46]|Check-(Date|Valid-Until)) "..*"' ||
    true
}

# make_debian: a Debian root file system (`debian_rootfs`, a directory) and the base image made of it (`debian_layout`, an
# OCI layout with the tag `debian`), by debootstrap from this machine's own mirror, kept for the next run. Needs root.
# `codename` is the release's name. zuwai has no part in it: a fault of zuwai must not hide in its own base image.
make_debian() {
  codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  local sources mirror settings stamp base=$state/debian
  debian_rootfs=$base/rootfs debian_layout=$base/layout
  sources=$(debian_sources)
  mirror=$(awk -v r="$codename" '$2 == r {print $1; exit}' <<<"$sources")
  [ -n "$mirror" ] || { say "found no archive of Debian ${codename:-(unknown)} in this machine's apt settings"; return 1; }
  settings=$(apt_transport_settings)
  stamp=$(printf '%s\n' 2 "$codename" "$sources" "$settings" | sha256sum)
  [ "$(cat "$base/stamp" 2>/dev/null)" != "$stamp" ] || return 0

  say "making the Debian base image from $mirror (kept in $base)"
  rm -rf --one-file-system "$base"
  mkdir -p "$base"
  local include=() tls=
  case $sources in *https:*) tls=1 include=(--include=ca-certificates) ;; esac
  debootstrap --variant=minbase "${include[@]}" "$codename" "$debian_rootfs" "$mirror" >"$base/debootstrap.log" 2>&1 ||
    { tail -n 5 "$base/debootstrap.log" >&2; say "debootstrap failed"; return 1; }
  awk '{print "deb " $0}' <<<"$sources" >"$debian_rootfs/etc/apt/sources.list"
  [ -z "$settings" ] || printf '%s\n' "$settings" >"$debian_rootfs/etc/apt/apt.conf.d/99machine"
  if [ -n "$tls" ] && [ -d /usr/local/share/ca-certificates ]; then # a mirror behind a company's own authority
    cp -a /usr/local/share/ca-certificates/. "$debian_rootfs/usr/local/share/ca-certificates/"
    chroot "$debian_rootfs" update-ca-certificates >"$base/ca.log" 2>&1
  fi
  # As in the published Debian images: what apt can fetch or compute again is not kept, or it would fill every layer.
  cat >"$debian_rootfs/etc/apt/apt.conf.d/99small" <<'END'
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb || true"; };
END
  rm -rf "$debian_rootfs"/var/lib/apt/lists/* "$debian_rootfs"/var/cache/apt/*.bin "$debian_rootfs"/var/cache/apt/archives/*.deb
  rm -f "$debian_rootfs/etc/hostname" # the machine's; and its name servers are not the image's either
  : >"$debian_rootfs/etc/resolv.conf"

  tar -C "$debian_rootfs" --numeric-owner --xattrs --xattrs-include='security.capability' --sort=name -cf "$base/rootfs.tar" .
  umoci init --layout "$debian_layout"
  umoci new --image "$debian_layout:debian"
  umoci raw add-layer --image "$debian_layout:debian" "$base/rootfs.tar" >/dev/null
  umoci config --image "$debian_layout:debian" --config.cmd bash \
    --config.env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
  umoci gc --layout "$debian_layout" >/dev/null 2>&1
  rm "$base/rootfs.tar"
  printf '%s\n' "$stamp" >"$base/stamp"
}

# push_debian: the base image into the registry; sets `debian` to its reference there.
push_debian() {
  debian=$registry/debian:$codename
  skopeo copy --quiet --dest-tls-verify=false "oci:$debian_layout:debian" "docker://$debian"
}

# proxy_arguments: the build arguments that carry this machine's proxy settings into RUN, one word per line.
proxy_arguments() {
  local name
  [ -n "${http_proxy:-}${https_proxy:-}${HTTP_PROXY:-}${HTTPS_PROXY:-}" ] || return 0
  for name in http_proxy https_proxy HTTP_PROXY HTTPS_PROXY no_proxy NO_PROXY; do
    [ -z "${!name:-}" ] || printf '%s\n' --build-arg "$name=${!name}"
  done
}

# make_builder: `$work/image`, the image that the builder's container has in a cage: the program (`zuwai` says where it is)
# under its two names and nothing else, as the published image; and `$work/bin`, the program for this machine's own users.
make_builder() {
  mkdir -p "$work/image/zuwai" "$work/bin"
  cp "$zuwai" "$work/image/zuwai/zuwai" && cp "$zuwai" "$work/bin/zuwai"
  ln -s zuwai "$work/image/zuwai/executor" && ln -s zuwai "$work/bin/executor"
}

# zuwai_in CAGE CONTEXT NAME ARGUMENT...: runs the program as NAME (zuwai or executor) in a cage of cages/README.md, or on this
# machine itself (`host`). CONTEXT is a directory that it may read; `@context@` in an argument becomes its path there.
zuwai_in() {
  local cage=$1 context=$2 name=$3 within=() program=/zuwai/$3 place=/context
  shift 3
  case $cage in
    host | rootless-host) program=$work/bin/$name place=$context ;;
  esac
  case $cage in
    host) ;;
    rootless-host) within=(cages/cage "$cage" --) ;;
    *) within=(cages/cage "$cage" --rootfs "$work/image" --ro-bind "$context:$place" ${cage_options[@]+"${cage_options[@]}"} --) ;;
  esac
  CAGE_TMP=$work timeout "${time_limit:-900}" ${within[@]+"${within[@]}"} "$program" "${@//@context@/$place}"
}

# Places to build in are written CAGE or CAGE:BACKEND, the second with that back-end asked for by name.
cage_of() { echo "${1%%:*}"; }
backend_of() { case $1 in *:*) echo "${1#*:}" ;; *) echo auto ;; esac; }

# can_build PLACE: whether a RUN step can be built there. 0 yes; 1 no, it should; 2 no, and it is no fault of zuwai: the cage
# cannot be made here, or this zuwai has no back-end that is meant for it. The reason is said on standard output.
can_build() {
  local cage backend found
  cage=$(cage_of "$1") backend=$(backend_of "$1")
  if [ "$cage" != host ] && ! found=$(cages/cage --self-check "$cage" 2>&1); then
    echo "this machine cannot make the cage: $(tail -n 1 <<<"$found")" && return 2
  fi
  found=$(zuwai_in "$cage" "$work" zuwai doctor 2>&1)
  [ "$backend" != auto ] || backend=$(sed -n 's/^chosen: \([a-z]*\).*/\1/p' <<<"$found")
  ! grep -q "^$backend: works" <<<"$found" || return 0
  if [ "$backend" = none ]; then backend=emulate; fi
  grep -q "^$backend: " <<<"$found" || { echo "this zuwai has no back-end $backend" && return 2; }
  sed -n "/^$backend: /,/^[^ ]/p" <<<"$found"
  return 1
}
