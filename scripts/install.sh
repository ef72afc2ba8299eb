#!/bin/sh
# Installs cacheport: picks the archive for this machine, checks its sum, puts the
# program in its place. Whatever goes wrong, what was installed before stays.
#
#   sh install.sh
#
#   CACHEPORT_RELEASES  where the archives and SHA256SUMS are, a folder or a URL
#                       (the folder of this script when it holds SHA256SUMS)
#   CACHEPORT_VERSION   which version, where there are several
#   CACHEPORT_TARGET    which build, instead of the one that fits: linux-x64-musl
#   PREFIX              installs to $PREFIX/bin (/usr/local, else ~/.local)
set -eu
umask 022

say() { printf '%s\n' "install.sh: $*" >&2; }

fail() {
  say "$1"
  [ $# -lt 2 ] || printf '%s\n' "hint: $2" >&2
  exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

temporary=
staged=
clean_up() {
  [ -z "$staged" ] || rm -f "$staged"
  [ -z "$temporary" ] || rm -rf "$temporary"
}

# What is built for this machine: linux-x64-baseline-musl.
find_target() {
  system=$(uname -s) machine=$(uname -m)
  case $system in
    Linux) system=linux ;;
    Darwin) system=darwin ;;
    MINGW* | MSYS* | CYGWIN*)
      fail "Cannot install on Windows: this is for Linux and macOS" \
        "Unpack the zip for Windows and put cacheport.exe into a folder of PATH"
      ;;
    *) fail "Cannot install on \"$system\": there is no build for it" ;;
  esac
  case $machine in
    x86_64 | amd64) machine=x64 ;;
    aarch64 | arm64) machine=arm64 ;;
    *) fail "Cannot install on \"$machine\": there is no build for this processor" ;;
  esac
  if [ "$system" = darwin ]; then
    # A shell that runs translated sees the wrong processor.
    [ "$(sysctl -n sysctl.proc_translated 2>/dev/null || :)" != 1 ] || machine=arm64
    printf '%s\n' "darwin-$machine"
    return
  fi
  baseline=
  if [ "$machine" = x64 ] && ! grep -qw avx2 /proc/cpuinfo 2>/dev/null; then
    baseline=-baseline
  fi
  printf '%s\n' "linux-$machine$baseline$(musl_suffix)"
}

# A machine can have both C libraries; ldd is of the one that programs use.
musl_suffix() {
  if has ldd; then
    case $(ldd --version 2>&1 || :) in
      *musl*) echo -musl ;;
    esac
    return
  fi
  for loader in /lib64/ld-linux-x86-64.so.2 /lib/ld-linux-aarch64.so.1; do
    [ ! -e "$loader" ] || return 0
  done
  for loader in /lib/ld-musl-*.so.1; do
    [ ! -e "$loader" ] || echo -musl
  done
}

# fetch NAME: from the folder or the URL into the temporary folder.
fetch() {
  case $releases in
    http://* | https://*)
      if has curl; then
        curl -fsSL --retry 3 -o "$temporary/$1" "$releases/$1"
      elif has wget; then
        wget -q -O "$temporary/$1" "$releases/$1"
      else
        fail "Cannot download \"$releases/$1\": there is neither curl nor wget"
      fi
      ;;
    *) cp "${releases#file://}/$1" "$temporary/$1" ;;
  esac || fail "Cannot get \"$1\" from \"$releases\"" \
    "Set CACHEPORT_RELEASES to the folder or URL that holds SHA256SUMS"
}

sha256() {
  if has sha256sum; then
    sha256sum
  elif has shasum; then
    shasum -a 256
  elif has openssl; then
    openssl dgst -sha256 -r
  else
    fail "Cannot check the download: there is no sha256sum, shasum or openssl"
  fi
}

# The sum and the name of the archive for a target, as SHA256SUMS lists them.
find_archive() {
  found=
  while read -r sum name; do
    name=${name#\*}
    case $name in
      */*) continue ;;
      cacheport-*-"$1".tar.gz) ;;
      *) continue ;;
    esac
    version=${name#cacheport-}
    version=${version%-"$1".tar.gz}
    [ "${CACHEPORT_VERSION:-$version}" = "$version" ] || continue
    [ -z "$found" ] || fail "Cannot choose a version: there are several in \"$releases\"" \
      "Set CACHEPORT_VERSION to the one that is wanted"
    found="$sum $name"
  done <"$temporary/SHA256SUMS"
  [ -n "$found" ] || fail \
    "Cannot find version ${CACHEPORT_VERSION:-of any number} for $1 in \"$releases\"" \
    "SHA256SUMS lists what is there; CACHEPORT_TARGET chooses another build"
  printf '%s\n' "$found"
}

choose_folder() {
  if [ -n "${PREFIX:-}" ]; then
    printf '%s\n' "$PREFIX/bin"
  elif [ -w /usr/local/bin ] || { [ ! -e /usr/local/bin ] && [ -w /usr/local ]; }; then
    printf '%s\n' /usr/local/bin
  else
    printf '%s\n' "${HOME:?Cannot choose a folder: HOME is not set}/.local/bin"
  fi
}

main() {
  releases=${CACHEPORT_RELEASES:-}
  if [ -z "$releases" ] && [ -f "$(dirname "$0")/SHA256SUMS" ]; then
    releases=$(dirname "$0")
  fi
  [ -n "$releases" ] || fail "Cannot install: it is not said from where" \
    "Set CACHEPORT_RELEASES to the folder or URL that holds SHA256SUMS"
  releases=${releases%/}
  target=${CACHEPORT_TARGET:-$(find_target)}

  trap clean_up EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
  temporary=$(mktemp -d)

  fetch SHA256SUMS
  entry=$(find_archive "$target")
  sum=${entry%% *} archive=${entry#* }
  fetch "$archive"
  actual=$(sha256 <"$temporary/$archive")
  actual=${actual%% *}
  [ "$actual" = "$sum" ] || fail \
    "Cannot install \"$archive\": its sum is $actual and SHA256SUMS has $sum" \
    "The download is damaged or was tampered with: get it again"
  tar -xzf "$temporary/$archive" -C "$temporary" ||
    fail "Cannot unpack \"$archive\""

  bin=$(choose_folder)
  mkdir -p "$bin" || fail "Cannot make folder \"$bin\"" "Set PREFIX to a folder that can be written to"
  [ ! -d "$bin/cacheport" ] || fail "Cannot install to \"$bin/cacheport\": it is a folder"
  # Beside its place, so that it can be renamed into it.
  staged=$bin/.cacheport.$$
  cp "$temporary/${archive%.tar.gz}/cacheport" "$staged" ||
    fail "Cannot write to \"$bin\"" "Set PREFIX to a folder that can be written to"
  chmod 755 "$staged"
  installed=$("$staged" --version) || case $target in
    *-musl) fail "Cannot install \"$archive\": the program does not start" "It needs libstdc++: apk add libstdc++" ;;
    *) fail "Cannot install \"$archive\": the program does not start" "Set CACHEPORT_TARGET to choose another build" ;;
  esac
  mv -f "$staged" "$bin/cacheport"
  staged=

  printf '%s\n' "Installed $installed ($target) to $bin/cacheport"
  case :$PATH: in
    *:"$bin":*) ;;
    *) say "$bin is not in PATH" ;;
  esac
}

# At the end, so that nothing runs when the script itself was cut short.
main "$@"
