#!/usr/bin/env bash
# Podman for the tests, with storage of its own, so that the machine's images and containers are left alone.
#   podman.sh ensure   reuse the podman that is there, else install Debian's
#   podman.sh status   one line; exit 0 if it is usable
#   podman.sh env      the variables by which podman is the tests' own, to be evaluated by a shell
#   podman.sh stop     remove the storage
# Exit status 3: this machine or user cannot have one; the message names what is needed.
set -euo pipefail

state=${MADENGINE_ENGINES_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/pytest-madengine/engines}
own=$state/podman

say() { echo "podman.sh: $*" >&2; }

cannot() {
  say "$*"
  say "needed: podman and runc, run as root (on Debian, run this as root to install them)"
  exit 3
}

env() { printf 'export CONTAINERS_CONF=%q CONTAINERS_STORAGE_CONF=%q\n' "$own/containers.conf" "$own/storage.conf"; }

installed() { [[ $(type -P podman runc | wc -l) == 2 ]]; }

provide() {
  [[ $(type -P apt-get) ]] || cannot 'no podman here, and this is not Debian'
  say 'installing podman'
  export DEBIAN_FRONTEND=noninteractive
  local apt=(apt-get -qq -o DPkg::Lock::Timeout=300)
  "${apt[@]}" install -y --no-install-recommends podman runc >"$state/podman.log" 2>&1 ||
    { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends podman runc; } >"$state/podman.log" 2>&1 ||
    cannot "podman cannot be installed: see $state/podman.log"
}

# A sandbox may let nobody raise a limit, and podman asks for high ones unless it is told.
configure() {
  mkdir -p "$own"
  cat >"$own/containers.conf" <<END
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
END
  cat >"$own/storage.conf" <<END
[storage]
driver = "${1:-overlay}"
graphroot = "$own/storage"
runroot = "$own/run"
END
}

answers() {
  eval "$(env)"
  podman info >"$state/podman.log" 2>&1
}

usable() { installed && [[ -e $own/storage.conf ]] && answers; }

ensure() {
  (umask 077 && mkdir -p "$state")
  exec 9>"$state/podman.lock"
  flock 9
  ((EUID == 0)) || cannot 'this user is not root'
  installed || provide
  [[ -e $own/storage.conf ]] && usable || { configure && answers; } || { configure vfs && answers; } ||
    cannot "podman does not work here: $(tail -n 1 "$state/podman.log")"
  status
}

status() {
  if ! usable; then
    echo 'podman: not usable'
    return 1
  fi
  echo "podman: $(podman --version)"
}

stop() {
  [[ ! -e $own/storage.conf ]] || (eval "$(env)" && podman system reset --force >/dev/null)
  rm -rf "$own"
}

case ${1:-} in
  ensure | status | env | stop) "$1" ;;
  *)
    say "usage: podman.sh ensure|status|env|stop"
    exit 2
    ;;
esac
