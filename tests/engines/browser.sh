#!/usr/bin/env bash
# A real browser without a window for the tests of reports: the Chromium that is there, else Debian's.
#   browser.sh ensure   reuse the browser that is there, else install chromium-headless-shell
#   browser.sh status   one line; exit 0 if it is usable
#   browser.sh path     where the program is
# Exit status 3: this machine or user cannot have one; the message names what is needed.
set -euo pipefail

state=${MADENGINE_ENGINES_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/pytest-madengine/engines}
programs=(chromium-headless-shell chromium google-chrome-stable google-chrome)

say() { echo "browser.sh: $*" >&2; }

cannot() {
  say "$*"
  say "needed: one of ${programs[*]} on PATH (on Debian, run this as root to install the first)"
  exit 3
}

path() { { type -P "${programs[@]}" || true; } | head -n 1 | grep .; }

usable() { path >/dev/null && "$(path)" --version >/dev/null 2>&1; }

provide() {
  [[ $(type -P apt-get) ]] || cannot 'no browser here, and this is not Debian'
  ((EUID == 0)) || cannot 'no browser here, and this user is not root'
  say 'installing chromium-headless-shell'
  export DEBIAN_FRONTEND=noninteractive
  local apt=(apt-get -qq -o DPkg::Lock::Timeout=300) wanted=(chromium-headless-shell fonts-liberation)
  "${apt[@]}" install -y --no-install-recommends "${wanted[@]}" >"$state/browser.log" 2>&1 ||
    { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "${wanted[@]}"; } >"$state/browser.log" 2>&1 ||
    cannot "a browser cannot be installed: see $state/browser.log"
  usable || cannot 'the browser that was installed does not start'
}

ensure() {
  (umask 077 && mkdir -p "$state")
  exec 9>"$state/browser.lock"
  flock 9
  usable || provide
  status
}

status() {
  if ! usable; then
    echo 'browser: none that is usable'
    return 1
  fi
  echo "browser: $("$(path)" --version 2>/dev/null | head -n 1)"
}

case ${1:-} in
  ensure | status | path) "$1" ;;
  *)
    say "usage: browser.sh ensure|status|path"
    exit 2
    ;;
esac
