#!/bin/sh
# Installs cacheport: picks the archive for this machine, checks its sum, puts the
# program, its manual page and its completions in their places. Whatever goes wrong, what
# was installed before stays.
set -eu
umask 022

usage() {
  cat <<'END'
Installs cacheport, its manual page and its completions, or removes them again.

Usage:
  sh install.sh [OPTION...]

Options:
  --prefix DIR    Install to DIR/bin and DIR/share (default /usr/local where that can
                  be written to, else ~/.local); also PREFIX
  --from PLACE    The folder or URL that holds the archives and SHA256SUMS (default the
                  folder of this script); also CACHEPORT_RELEASES
  --version V     Which version, where there are several; also CACHEPORT_VERSION
  --target BUILD  Which build, instead of the one that fits; also CACHEPORT_TARGET
  --uninstall     Remove what was installed
  --help          Show this help

Builds:
  linux-x64, linux-arm64              systems with glibc: Debian, Ubuntu, Fedora, ...
  linux-x64-musl, linux-arm64-musl    systems with musl: Alpine; they need libstdc++
                                      (apk add libstdc++)
  linux-x64-baseline[-musl]           processors without AVX2
  darwin-x64, darwin-arm64            macOS

Examples:
  sh install.sh --prefix ~/.local
  sh install.sh --from https://example.com/releases --version 1.2.3
  sh install.sh --uninstall --prefix ~/.local
END
}

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

# fetch NAME: from the folder or the URL into the temporary folder. What is asked for by
# https is not taken from a redirect to http.
fetch() {
  case $releases in
    http://* | https://*)
      if has curl; then
        case $releases in https://*) secure="--proto =https --proto-redir =https" ;; *) secure= ;; esac
        # shellcheck disable=SC2086 # two options, or none
        curl -fsSL $secure --retry 3 -o "$temporary/$1" "$releases/$1"
      elif has wget; then
        wget -S -O "$temporary/$1" "$releases/$1" 2>"$temporary/wget.log" &&
          case $releases in
            https://*) ! grep -Eiq '^ *location: *http://' "$temporary/wget.log" ;;
          esac
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
  return=$(printf '\r')
  # The last line may have no end, and all of them Windows' ones.
  while read -r sum name || [ -n "$sum" ]; do
    name=${name%"$return"}
    name=${name#\*}
    case $name in
      */*) continue ;;
      cacheport-*-"$1".tar.gz) ;;
      *) continue ;;
    esac
    version=${name#cacheport-}
    version=${version%-"$1".tar.gz}
    [ "${CACHEPORT_VERSION:-$version}" = "$version" ] || continue
    [ "$found" != "$sum $name" ] || continue
    [ "${found#* }" != "$name" ] || fail \
      "Cannot install \"$name\": SHA256SUMS in \"$releases\" lists it twice with different sums" \
      "Get SHA256SUMS again from where the release was published"
    [ -z "$found" ] || fail "Cannot choose a version: there are several in \"$releases\"" \
      "Set CACHEPORT_VERSION to the one that is wanted"
    found="$sum $name"
  done <"$temporary/SHA256SUMS"
  [ -n "$found" ] || fail \
    "Cannot find version ${CACHEPORT_VERSION:-of any number} for $1 in \"$releases\"" \
    "SHA256SUMS lists what is there; CACHEPORT_TARGET chooses another build"
  printf '%s\n' "$found"
}

choose_prefix() {
  if [ -n "${PREFIX:-}" ]; then
    printf '%s\n' "${PREFIX%/}"
  elif [ -w /usr/local/bin ] || { [ ! -e /usr/local/bin ] && [ -w /usr/local ]; }; then
    printf '%s\n' /usr/local
  else
    printf '%s\n' "${HOME:?Cannot choose a folder: HOME is not set}/.local"
  fi
}

# What an archive holds beside the program, and where it goes below the prefix.
extras='
cacheport.1 share/man/man1/cacheport.1
completions/cacheport.bash share/bash-completion/completions/cacheport
completions/_cacheport share/zsh/site-functions/_cacheport
completions/cacheport.fish share/fish/vendor_completions.d/cacheport.fish'

# install_extras FOLDER PREFIX: no reason to fail, for the program is in its place.
install_extras() {
  printf '%s\n' "$extras" | while read -r from to; do
    [ -n "$from" ] && [ -f "$1/$from" ] || continue
    mkdir -p "$2/${to%/*}" && cp "$1/$from" "$2/$to.$$" && chmod 644 "$2/$to.$$" &&
      mv -f "$2/$to.$$" "$2/$to" || say "Cannot write \"$2/$to\""
  done
}

uninstall() {
  prefix=$(choose_prefix)
  [ -f "$prefix/bin/cacheport" ] || fail "Cannot find \"$prefix/bin/cacheport\" to remove it" \
    "Set --prefix to the folder that it was installed to"
  printf '%s\n' "- bin/cacheport$extras" | while read -r _ to; do
    [ -n "$to" ] && [ -f "$prefix/$to" ] || continue
    rm -f "$prefix/$to" || exit 1
    printf '%s\n' "Removed $prefix/$to"
  done
}

# needs_value OPTION COUNT
needs_value() {
  [ "$2" -gt 1 ] || usage_error "option $1 needs a value"
}

usage_error() {
  say "Cannot install: $1"
  printf '%s\n' "hint: sh install.sh --help shows the options" >&2
  exit 2
}

main() {
  action=install
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) usage; exit 0 ;;
      --uninstall) action=uninstall ;;
      --prefix=*) PREFIX=${1#*=} ;;
      --from=*) CACHEPORT_RELEASES=${1#*=} ;;
      --version=*) CACHEPORT_VERSION=${1#*=} ;;
      --target=*) CACHEPORT_TARGET=${1#*=} ;;
      --prefix) needs_value "$1" $#; shift; PREFIX=$1 ;;
      --from) needs_value "$1" $#; shift; CACHEPORT_RELEASES=$1 ;;
      --version) needs_value "$1" $#; shift; CACHEPORT_VERSION=$1 ;;
      --target) needs_value "$1" $#; shift; CACHEPORT_TARGET=$1 ;;
      *) usage_error "there is no option \"$1\"" ;;
    esac
    shift
  done
  if [ "$action" = uninstall ]; then
    uninstall
    return
  fi
  releases=${CACHEPORT_RELEASES:-}
  if [ -z "$releases" ] && [ -f "$(dirname "$0")/SHA256SUMS" ]; then
    releases=$(dirname "$0")
  fi
  [ -n "$releases" ] || fail "Cannot install: it is not said from where" \
    "Set CACHEPORT_RELEASES or --from to the folder or URL that holds SHA256SUMS"
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

  prefix=$(choose_prefix)
  bin=$prefix/bin
  mkdir -p "$bin" || fail "Cannot make folder \"$bin\"" "Set PREFIX to a folder that can be written to"
  [ ! -d "$bin/cacheport" ] || fail "Cannot install to \"$bin/cacheport\": it is a folder"
  # Beside its place, so that it can be renamed into it.
  staged=$bin/.cacheport.$$
  cp "$temporary/${archive%.tar.gz}/cacheport" "$staged" ||
    fail "Cannot write to \"$bin\"" "Set PREFIX to a folder that can be written to"
  chmod 755 "$staged"
  installed=$("$staged" --version) || case $target in
    *-musl) fail "Cannot install \"$archive\": the program does not start" "It needs libstdc++: apk add libstdc++" ;;
    *)
      wanted=$(find_target)
      fail "Cannot install \"$archive\": the program does not start" \
        "This machine needs the build $wanted: set --target or CACHEPORT_TARGET to choose another"
      ;;
  esac
  mv -f "$staged" "$bin/cacheport"
  staged=
  install_extras "$temporary/${archive%.tar.gz}" "$prefix"

  printf '%s\n' "Installed $installed ($target) to $bin/cacheport"
  case :$PATH: in
    *:"$bin":*) ;;
    *) say "$bin is not in PATH" ;;
  esac
}

# At the end, so that nothing runs when the script itself was cut short.
main "$@"
