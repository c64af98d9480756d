#!/usr/bin/env bash
# A server for the tests that speaks MongoDB's protocol: SecantusDB from PyPI, in a virtual environment of its own.
# No service is started; tests/engines/mongo.py runs it, in processes of the tests.
#   mongo.sh ensure   reuse the program that is there, else install it
#   mongo.sh status   one line; exit 0 if it is there
#   mongo.sh env      the variable by which the tests find it, to be evaluated by a shell
#   mongo.sh stop     remove it
# MONGO_TEST_URI names another server, such as a real mongod, for the tests that need no server of their own.
# Exit status 3: this machine or user cannot have one; the message names what is needed.
set -euo pipefail

state=${MADENGINE_ENGINES_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/pytest-madengine/engines}
own=$state/mongo
program=$own/bin/secantusd-py
package='SecantusDB>=0.7.0b3'
python=${PYTHON:-python3}

say() { echo "mongo.sh: $*" >&2; }

cannot() {
  say "$*"
  say "needed: Python 3.10 or later with venv, and a package index that has $package for this platform"
  exit 3
}

env() { printf 'export MADENGINE_MONGO_SERVER=%q\n' "$program"; }

usable() { [[ -x $program ]] && "$program" --help >/dev/null 2>&1; }

provide() {
  say "installing $package"
  rm -rf "$own"
  "$python" -m venv "$own" >"$state/mongo.log" 2>&1 || cannot "no virtual environment can be made: see $state/mongo.log"
  "$own/bin/pip" install -q --disable-pip-version-check --only-binary :all: "$package" >>"$state/mongo.log" 2>&1 || {
    tail -n 5 "$state/mongo.log" >&2
    cannot "$package cannot be installed"
  }
  usable || cannot "$program does not run here"
}

ensure() {
  (umask 077 && mkdir -p "$state")
  exec 9>"$state/mongo.lock"
  flock 9
  usable || provide
  status
}

status() {
  if ! usable; then
    echo 'mongo: not usable'
    return 1
  fi
  echo "mongo: SecantusDB $("$own/bin/python" -c 'import importlib.metadata as m; print(m.version("SecantusDB"))')"
}

stop() { rm -rf "$own"; }

case ${1:-} in
  ensure | status | env | stop) "$1" ;;
  *)
    say "usage: mongo.sh ensure|status|env|stop"
    exit 2
    ;;
esac
