#!/usr/bin/env bash
# Run the tests in a virtual environment of their own, on every engine that this machine can have.
#   tests/run.sh [--nothing-left-out] [pytest arguments]
# With --nothing-left-out an engine that cannot be had is a failure.
# Environment: PYTHON (python3) makes the virtual environment VENV (.venv-test).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3}
venv=${VENV:-.venv-test}

say() { echo "tests/run.sh: $*" >&2; }

at_least_3_10() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; }

nothing_left_out=
if [[ ${1:-} == --nothing-left-out ]]; then
  nothing_left_out=yes
  export MADENGINE_REQUIRE_ENGINES=1 # tests/conftest.py: a missing engine is an error, not a skip
  shift
fi

if ! at_least_3_10 "$venv/bin/python"; then
  at_least_3_10 "$python" || {
    say "$python is not Python 3.10 or newer; name one in PYTHON"
    exit 1
  }
  "$python" -m venv --clear "$venv"
fi
"$venv/bin/python" -m pip install -q --disable-pip-version-check -e '.[test]'

for engine in docker registry browser podman mongo slurm kubernetes; do
  if ! "tests/engines/$engine.sh" ensure; then
    if [[ $nothing_left_out ]]; then
      say "no $engine, and --nothing-left-out was asked for"
      exit 1
    fi
    say "going on without the tests marked requires_$engine; what they need is said above"
  fi
done

# the plugin is loaded before pytest-cov could start, so coverage starts pytest
"$venv/bin/python" -m coverage erase
status=0
"$venv/bin/python" -m coverage run -m pytest -n auto --maxprocesses=4 "$@" || status=$?
"$venv/bin/python" -m coverage combine -q
"$venv/bin/python" -m coverage report --skip-covered
exit "$status"
