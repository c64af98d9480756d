"""The table of options; light, since every pytest run reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

MODEL_FILES = ("models.json", "get_models_json.py")
TARGETS = ("docker", "host", "slurm", "k8s")


class Option(NamedTuple):
    """One command line option.

    Attributes:
        flag: as written on the command line.
        help: for `--help` and the README's table.
        metavar: what stands for its value; '' for a switch.
        repeated: whether several values add up.
        choices: the only values, if restricted.
        type: converts the text.
        default: the value without the option.
    """

    flag: str
    help: str
    metavar: str = ""
    repeated: bool = False
    choices: tuple[str, ...] = ()
    type: Callable[[str], Any] = str
    default: Any = None

    @property
    def dest(self) -> str:
        """The attribute of `config.option`."""
        return "madengine_" + self.flag.removeprefix("--").removeprefix("madengine-").replace("-", "_")


OPTIONS = (
    Option(
        "--madengine-tags",
        "run the models with one of these names or tags: a,b; all; scope/tag; scope/all; name:batch=512:fp16",
        metavar="TAGS",
        repeated=True,
        default=[],
    ),
    Option(
        "--target",
        "where to run: docker, host, slurm or k8s (default: what the context configures, else docker)",
        metavar="TARGET",
        choices=TARGETS,
    ),
    Option("--madengine-context", "context as JSON or Python literal; wins over the file", metavar="OBJECT"),
    Option("--madengine-context-file", "context as a JSON or YAML file", metavar="FILE", type=Path),
    Option(
        "--madengine-timeout",
        "seconds for each model, wins over its card; 0: no limit; -1: as if not given (card, else 7200)",
        metavar="SECONDS",
        type=float,
    ),
    Option(
        "--madengine-output",
        "where to append the rows (default: perf.csv)",
        metavar="FILE",
        type=Path,
        default=Path("perf.csv"),
    ),
    Option(
        "--madengine-disable-skip-gpu-arch",
        "run models also on architectures that they ask to skip",
        default=False,
    ),
)

INI_ENABLED = "madengine"


def add(parser: pytest.Parser) -> None:
    """Declare the options and the ini key."""
    group = parser.getgroup("madengine", "AI models as test items")
    for option in OPTIONS:
        group.addoption(option.flag, **_arguments(option))
    parser.addini(INI_ENABLED, "collect every model card, also without --madengine-tags", type="bool", default=False)


def awake(config: pytest.Config) -> bool:
    """Whether this run has to do with models at all."""
    named = any(map(names_model, config.args))
    return bool(config.option.madengine_tags or named or config.getini(INI_ENABLED))


def names_model(argument: str) -> bool:
    """Whether a path or node id is of a model file."""
    return Path(argument.partition("::")[0]).name in MODEL_FILES


def _arguments(option: Option) -> dict[str, Any]:
    shared = {"dest": option.dest, "help": option.help, "default": option.default}
    if not option.metavar:
        return {**shared, "action": "store_true"}
    if option.repeated:
        return {**shared, "action": "append", "metavar": option.metavar}
    restricted = {"choices": option.choices} if option.choices else {}
    return {**shared, "metavar": option.metavar, "type": option.type, **restricted}
