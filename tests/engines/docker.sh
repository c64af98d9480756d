#!/usr/bin/env bash
# A real Docker engine with BuildKit for the tests.
#   docker.sh ensure   reuse a live engine, else install and start one; make the base image
#   docker.sh status   one line; exit 0 if engine and base image are usable
#   docker.sh stop     end the dockerd that `ensure` started, and no other
# Exit status 3: this machine or user cannot have one; the message names what is needed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
state=${MADENGINE_ENGINES_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/pytest-madengine/engines}
pid_file=$state/dockerd.pid
log=$state/dockerd.log
engine_pid_file=/var/run/docker.pid
oldest_server=23 # the first that builds with BuildKit unless told otherwise
PATH=$PATH:/usr/sbin:/sbin

say() { echo "docker.sh: $*" >&2; }

cannot() {
  say "$*"
  say "needed: a running Docker engine >= $oldest_server with buildx, reachable by this user" \
    "(on Debian 12 or newer, run this as root to get one)"
  exit 3
}

server_version() { timeout 20 docker version --format '{{.Server.Version}}' 2>/dev/null; }

engine_usable() {
  local version
  version=$(server_version) || return 1
  ((${version%%.*} >= oldest_server)) && docker buildx version >/dev/null 2>&1
}

pid_in() { cat "$1" 2>/dev/null || true; }

# True for a live dockerd; a zombie would still answer kill -0.
is_dockerd() {
  local pid=${1:-none} stat
  [[ $(cat "/proc/$pid/comm" 2>/dev/null) == dockerd ]] || return 1
  stat=$(cat "/proc/$pid/stat" 2>/dev/null) || return 1
  [[ ${stat##*) } != Z* ]]
}

debian_version() { # 0 elsewhere, 99 for one without a number
  # shellcheck source=/dev/null
  (. /etc/os-release && [[ $ID == debian ]] && echo "${VERSION_ID:-99}") 2>/dev/null || echo 0
}

missing_packages() {
  server_version >/dev/null || command -v dockerd >/dev/null || echo docker.io containerd
  command -v docker >/dev/null || echo docker-cli
  docker buildx version >/dev/null 2>&1 || echo docker-buildx
}

apt_get() {
  DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" >"$state/apt.log" 2>&1 || {
    tail -n 20 "$state/apt.log" >&2
    return 1
  }
}

apt_update() { apt_get "$@" update || say "apt-get update met errors; going on"; }

# Debian 12's own Docker (20.10) has no build contexts. Take it from the next suite of the mirror
# that this machine already uses, with private package lists so that its own apt stays as it was.
install_from_trixie() {
  local mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  work=$(mktemp -d) # global, for the trap
  trap 'rm -rf "$work"' EXIT
  chmod 755 "$work" # apt downloads as user _apt
  mkdir -p "$work"/{sources,lists/partial}
  [[ ! -e /etc/apt/sources.list ]] || cp /etc/apt/sources.list "$work/sources/machine.list"
  find /etc/apt/sources.list.d \( -name '*.list' -o -name '*.sources' \) -exec cp {} "$work/sources" \;
  local private=(-o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$work/sources"
    -o Dir::Etc::preferences="$work/preferences" -o Dir::State::lists="$work/lists"
    -o Acquire::Languages=none)

  apt_update "${private[@]}"
  # apt says where the release comes from, whichever format the sources are written in
  # shellcheck disable=SC2016  # REPO_URI is apt's to fill in
  mirror=$(apt-get "${private[@]}" indextargets --format '$(REPO_URI)' \
    'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 'Codename: bookworm' | head -n 1)
  [[ $mirror ]] || cannot "no Debian mirror in this machine's apt sources"
  echo "deb [signed-by=$keyring] $mirror trixie main" >"$work/sources/trixie.list"
  printf 'Package: %s\nPin: release n=trixie\nPin-Priority: %s\n\n' '*' 100 "$*" 990 \
    >"$work/preferences"
  apt_update "${private[@]}"

  local install=("${private[@]}" install -y --no-install-recommends --no-remove "$@")
  if apt-get --simulate "${install[@]}" | grep -E '^Inst libc6[: ]' >&2; then
    cannot "installing $* would replace this machine's libc6"
  fi
  apt_get "${install[@]}"
}

install_missing() {
  local packages
  read -ra packages <<<"$(missing_packages | xargs)"
  ((${#packages[@]})) || return 0
  say "installing ${packages[*]}"
  if [[ $(debian_version) == 12 ]]; then
    install_from_trixie "${packages[@]}"
  else
    apt_update
    apt_get install -y --no-install-recommends "${packages[@]}"
  fi
}

start_dockerd() {
  local pid deadline=$((SECONDS + 60))
  pid=$(pid_in $engine_pid_file)
  if ! is_dockerd "$pid"; then
    rm -f $engine_pid_file
    # where forwarding is on already, dockerd leaves the FORWARD policy alone
    echo 1 >/proc/sys/net/ipv4/ip_forward || say "cannot switch on ip_forward; going on"
    # 9 is the lock of `ensure`, which must not outlive it in the daemon
    setsid dockerd --host unix:///var/run/docker.sock --mtu 1400 >"$log" 2>&1 </dev/null 9>&- &
    pid=$!
    echo $pid >"$pid_file"
  fi
  until server_version >/dev/null; do
    if ((SECONDS >= deadline)) || [[ ! -d /proc/$pid ]]; then
      say "dockerd did not come up; the end of $log:"
      tail -n 20 "$log" >&2
      exit 1
    fi
    sleep 0.2
  done
}

provide_engine() {
  local version
  if version=$(server_version) && ((${version%%.*} < oldest_server)); then
    cannot "the running engine is Docker $version"
  fi
  [[ -z ${DOCKER_HOST:-} ]] || cannot "no usable engine at DOCKER_HOST=$DOCKER_HOST"
  ((EUID == 0)) || cannot "no usable engine, and this user may not install one"
  (($(debian_version) >= 12)) || cannot "no usable engine, and this is not Debian 12 or newer"
  install_missing
  server_version >/dev/null || start_dockerd
  engine_usable || cannot "Docker $(server_version) is too old or has no buildx"
}

ensure() {
  (umask 077 && mkdir -p "$state")
  exec 9>"$state/lock"
  flock 9
  engine_usable || provide_engine
  "$here/base-image.sh"
  status
}

status() {
  if ! engine_usable; then
    echo "docker: no usable engine"
    return 1
  fi
  if ! docker image inspect madengine-test-base:latest >/dev/null 2>&1; then
    echo "docker: no image madengine-test-base:latest"
    return 1
  fi
  echo "docker: engine $(server_version), buildx $(docker buildx version | cut -d ' ' -f 2)"
}

stop() {
  local pid deadline=$((SECONDS + 30))
  pid=$(pid_in "$pid_file")
  ! is_dockerd "$pid" || kill "$pid"
  while is_dockerd "$pid"; do
    if ((SECONDS >= deadline)); then
      say "dockerd $pid is still running after 30 s"
      exit 1
    fi
    sleep 0.2
  done
  rm -f "$pid_file"
}

case ${1:-} in
  ensure | status | stop) "$1" ;;
  *)
    say "usage: docker.sh ensure|status|stop"
    exit 2
    ;;
esac
