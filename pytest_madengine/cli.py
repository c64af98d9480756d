"""The program `pytest-madengine`: questions and reports about runs that are over."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from pytest_madengine import __version__
from pytest_madengine.commands import compare, database, rebuild, report, results, tag, trend
from pytest_madengine.errors import MadengineError

COMMANDS = (results, compare, trend, rebuild, report, database, tag)
"""Modules with `add(subparsers)`, in the order that `-h` shows them."""
FAILED, USAGE, INTERRUPTED, PIPE_CLOSED = 1, 2, 130, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Args:
        arguments: those behind the program's name; of this process where None.

    Returns:
        the exit status: 0, 1 after an error, which is told on standard error, 2 for wrong usage.
    """
    try:
        chosen = parser().parse_args(arguments)
        return int(chosen.run(chosen))
    except MadengineError as error:
        return _failed(str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except OSError as error:
        return _failed(str(error))
    except KeyboardInterrupt:
        return INTERRUPTED


def parser() -> argparse.ArgumentParser:
    """All subcommands with their arguments; each sets `run`, which takes the arguments and gives the exit status."""
    top = argparse.ArgumentParser("pytest-madengine", description=__doc__)
    top.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add(subparsers)
    return top


def _failed(text: str) -> int:
    sys.stderr.write(f"pytest-madengine: {text}\n")
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
