"""What the tests of launchers share."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping

from pytest_madengine.launchers.base import EXPRESSIONS, quoted

NAMES = [expression.strip("${}") for expression in EXPRESSIONS]
HOSTILE = {name: f"{index} $(exit 9) `exit 9` \"'\\ $HOME ${{NODE_RANK}}\n*\t!" for index, name in enumerate(NAMES)}
"""Values for the names of the expressions, to be taken as they are."""


def evaluated(values: Mapping[str, str], node: Mapping[str, str]) -> dict[str, str]:
    """What becomes of `values` in a script on a node that has the variables `node`."""
    exports = "".join(f"printf '%s\\0' {quoted(value)}\n" for value in values.values())
    texts = bash(exports, node).split("\0")
    return dict(zip(values, texts, strict=False))


def bash(script: str, node: Mapping[str, str]) -> str:
    """The output of a script that may use no other variables than those of `node`.

    Raises:
        CalledProcessError: it failed.
    """
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **node}
    command = ["bash", "-eu"]
    ran = subprocess.run(command, input=script.encode(), env=environment, capture_output=True, check=True, timeout=60)
    return ran.stdout.decode()
