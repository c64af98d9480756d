#!/usr/bin/env bash
# A real image registry for the tests: Debian's docker-registry, of which the program alone is unpacked.
# No package is installed and no service started; tests/engines/registries.py runs it.
#   registry.sh ensure   reuse the program that is there, else fetch it
#   registry.sh status   one line; exit 0 if it is there
#   registry.sh path     where the program is
# Exit status 3: this machine or user cannot have one; the message names what is needed.
set -euo pipefail

state=${MADENGINE_ENGINES_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/pytest-madengine/engines}
program=docker-registry
own=$state/registry/usr/bin/$program

say() { echo "registry.sh: $*" >&2; }

cannot() {
  say "$*"
  say "needed: $program on PATH, or Debian's package of that name, which apt-get can download"
  exit 3
}

path() { command -v $program || { [[ -x $own ]] && echo "$own"; }; }

usable() { path >/dev/null && "$(path)" --version >/dev/null 2>&1; }

download() { # download FOLDER [APT OPTION...]
  (cd "$1" && apt-get -qq "${@:2}" download $program) >>"$state/registry.log" 2>&1
}

# With the machine's package lists, or with fresh ones in a folder of their own.
fetch() { # fetch FOLDER
  local private=(-o Dir::State::lists="$1/lists" -o Acquire::Languages=none)
  ! download "$1" || return 0
  mkdir -p "$1/lists/partial"
  apt-get -qq "${private[@]}" update >>"$state/registry.log" 2>&1 || say "apt-get update met errors; going on"
  download "$1" "${private[@]}"
}

provide() {
  [[ $(type -P apt-get dpkg-deb | wc -l) == 2 ]] || cannot "no $program here, and this is not Debian"
  say "fetching $program"
  work=$(mktemp -d) # global, for the trap
  trap 'rm -rf "$work"' EXIT
  chmod 755 "$work" # apt may download as user _apt
  : >"$state/registry.log"
  if ! fetch "$work"; then
    tail -n 20 "$state/registry.log" >&2
    cannot "Debian's package $program cannot be downloaded"
  fi
  rm -rf "$state/registry"
  dpkg-deb --extract "$work"/$program*.deb "$state/registry"
  usable || cannot "Debian's $program does not run here"
}

ensure() {
  (umask 077 && mkdir -p "$state")
  exec 9>"$state/registry.lock"
  flock 9
  usable || provide
  status
}

status() {
  if ! usable; then
    echo "registry: no usable program"
    return 1
  fi
  echo "registry: $program $("$(path)" --version | awk '{ print $NF }')"
}

case ${1:-} in
  ensure | status | path) "$1" ;;
  *)
    say "usage: registry.sh ensure|status|path"
    exit 2
    ;;
esac
