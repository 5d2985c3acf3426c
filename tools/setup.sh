#!/usr/bin/env bash
# Installs what is missing on this machine and nothing else. Usage: tools/setup.sh build|bench|bench-serve|fuzz|check
#
# Debian packages come from the configured apt sources. ONNX Runtime, unless the machine already has one
# (system package, or ONNXRUNTIME_ROOT), is put together from two pinned files and cached outside the tree:
#   - the official shared library inside the npm package onnxruntime-node (unpacked, never installed: its
#     install script would look for GPU files);
#   - the C headers of Debian trixie's libonnxruntime-dev, read through a private apt state so that trixie
#     is never added to this system. Headers of an older API level work with a newer library.
# A second run finds everything in place, installs nothing and needs no network.
set -euo pipefail

ORT_VERSION=1.30.0
ORT_TARBALL_SHA256=6e3390d6b783e7be946fad629292799da28d0b42f84856e50d2c1b0383291e75
ORT_HEADERS=libonnxruntime-dev
ORT_HEADERS_VERSION=1.21.0+dfsg-1
ORT_HEADERS_SHA256=14f7d959d5deacbcf1504830d4189f91fc67382b399ed9ae9d3aa9c4050ced08

PACKAGES_build="g++ cmake ninja-build ccache pkg-config python3-minimal libpython3-stdlib ca-certificates
  libonnx-dev libprotobuf-dev protobuf-compiler libssl-dev zlib1g-dev libzip-dev zipcmp zipmerge ziptool libpng-dev
  libgrpc++-dev protobuf-compiler-grpc libboost-dev libsimdjson-dev libspdlog-dev prometheus-cpp-dev
  libgloo-dev libjpeg62-turbo-dev libyaml-cpp-dev libcli11-dev libfmt-dev nlohmann-json3-dev libgtest-dev libgmock-dev
  dataset-fashion-mnist"
PACKAGES_bench_serve="wrk"
# libopenblas: with the reference BLAS that python3-torch alone brings, PyTorch would look ten times slower than it is.
PACKAGES_bench="python3-torch python3-numpy libopenblas0-pthread"
PACKAGES_fuzz="clang-14 libclang-rt-14-dev llvm-14"
PACKAGES_check="clang-format-14 clang-tidy-14 libclang-rt-14-dev"

die() { echo "setup: $*" >&2; exit 1; }
say() { echo "setup: $*"; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else die "needs root (or sudo) to run: $*"; fi
}

apt_updated=
apt_install() {
  [ -n "$apt_updated" ] || { as_root apt-get update -qq; apt_updated=yes; }
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 "$@"
}

install_packages() {
  local missing=()
  for p in "$@"; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
  done
  [ ${#missing[@]} = 0 ] && return
  say "installing ${missing[*]}"
  apt_install "${missing[@]}"
}

verify() { echo "$2  $1" | sha256sum --check --quiet - || die "$1 is not the pinned file; delete it, or set ONNXRUNTIME_ROOT to an installed ONNX Runtime"; }

install_onnxruntime() {
  [ -n "${ONNXRUNTIME_ROOT:-}" ] && return
  if [ -f /usr/include/onnxruntime/onnxruntime_c_api.h ] && ls /usr/lib/*/libonnxruntime.so >/dev/null 2>&1; then return; fi
  local cache="${GANGLION_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ganglion}"
  local target="$cache/onnxruntime-$ORT_VERSION"
  [ -f "$target/complete" ] && return

  local arch
  case "$(uname -m)" in
    x86_64) arch=x64 ;;
    aarch64) arch=arm64 ;;
    *) die "no pinned ONNX Runtime for $(uname -m); install one and set ONNXRUNTIME_ROOT" ;;
  esac
  command -v npm >/dev/null || install_packages npm
  command -v xz >/dev/null || install_packages xz-utils

  say "fetching ONNX Runtime $ORT_VERSION into $cache"
  mkdir -p "$cache"
  work="$(mktemp -d "$cache/fetch.XXXXXX")"  # not local: the trap outlives this function
  trap 'rm -rf "$work"' EXIT
  (cd "$work" && npm pack --loglevel=error --ignore-scripts "onnxruntime-node@$ORT_VERSION" >/dev/null) ||
    die "npm could not fetch onnxruntime-node@$ORT_VERSION (see above); or install an ONNX Runtime yourself and set ONNXRUNTIME_ROOT"
  verify "$work/onnxruntime-node-$ORT_VERSION.tgz" "$ORT_TARBALL_SHA256"

  # A private apt: same mirror as this system's Debian, the suite trixie, its own state and cache.
  local site
  site="$(apt-get indextargets --format '$(SITE)' 'Origin: Debian' 'Label: Debian' | sed -n 1p)"
  if [ -z "$site" ]; then  # the lists were never read
    as_root apt-get update -qq
    site="$(apt-get indextargets --format '$(SITE)' 'Origin: Debian' 'Label: Debian' | sed -n 1p)"
  fi
  [ -n "$site" ] || die "no Debian mirror in apt's sources; set ONNXRUNTIME_ROOT to an installed ONNX Runtime"
  mkdir -p "$work"/apt/{lists/partial,cache/archives/partial}
  : > "$work/apt/status"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $site trixie main" > "$work/apt/sources.list"
  local private=(-o "Dir::Etc::sourcelist=$work/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State=$work/apt" -o "Dir::State::lists=$work/apt/lists" -o "Dir::State::status=$work/apt/status"
    -o "Dir::Cache=$work/apt/cache" -o Acquire::Languages=none -o APT::Architecture=amd64
    -o APT::Sandbox::User=root -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false)
  { apt-get -q "${private[@]}" update && (cd "$work" && apt-get -q "${private[@]}" download "$ORT_HEADERS=$ORT_HEADERS_VERSION"); } >/dev/null ||
    die "apt could not fetch $ORT_HEADERS $ORT_HEADERS_VERSION from Debian trixie (see above); or set ONNXRUNTIME_ROOT to an installed ONNX Runtime"
  local deb; deb="$(ls "$work"/"$ORT_HEADERS"_*.deb)"
  verify "$deb" "$ORT_HEADERS_SHA256"

  mkdir -p "$work/tree/lib"
  tar -xzf "$work/onnxruntime-node-$ORT_VERSION.tgz" -C "$work" "package/bin/napi-v6/linux/$arch/libonnxruntime.so.1" package/LICENSE 2>/dev/null ||
    tar -xzf "$work/onnxruntime-node-$ORT_VERSION.tgz" -C "$work" "package/bin/napi-v6/linux/$arch/libonnxruntime.so.1"
  mv "$work/package/bin/napi-v6/linux/$arch/libonnxruntime.so.1" "$work/tree/lib/"
  ln -s libonnxruntime.so.1 "$work/tree/lib/libonnxruntime.so"
  dpkg-deb -x "$deb" "$work/deb"
  mv "$work/deb/usr/include/onnxruntime" "$work/tree/include"
  rm -rf "$target"
  touch "$work/tree/complete"
  mv "$work/tree" "$target"
}

what="${1:-build}"
command -v dpkg-query >/dev/null || die "this script knows Debian; elsewhere install the packages of DEPENDENCIES.md and set ONNXRUNTIME_ROOT"
# shellcheck disable=SC2086
case "$what" in
  build) install_packages $PACKAGES_build; install_onnxruntime ;;
  bench) install_packages $PACKAGES_bench ;;
  bench-serve) install_packages $PACKAGES_bench_serve ;;
  fuzz) install_packages $PACKAGES_build $PACKAGES_fuzz; install_onnxruntime ;;
  check) install_packages $PACKAGES_build $PACKAGES_check; install_onnxruntime ;;
  *) die "unknown set '$what'; one of build, bench, bench-serve, fuzz, check" ;;
esac
