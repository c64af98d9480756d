"""The table of options, and the settings that they give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

MODEL_FILES = ("models.json", "get_models_json.py")
TARGETS = ("docker", "host", "slurm", "k8s")


@dataclass(frozen=True)
class Option:
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


@dataclass(frozen=True)
class Settings:
    """What the user asked for.

    Attributes:
        start: the folder where pytest was started: perf.csv and `.madengine/` go there.
        project: the folder of the model cards: MODEL_DIR, else `start`.
        target: None where the context is to decide.
    """

    start: Path
    project: Path
    tags: tuple[str, ...]
    target: str | None
    context: str | None
    context_file: Path | None
    timeout: float | None
    output: Path
    disable_skip_gpu_arch: bool


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


def settings(config: pytest.Config, model_dir: str | None) -> Settings:
    """The settings of this run.

    Raises:
        pytest.UsageError: MODEL_DIR names no folder, or the timeout is no time.
    """
    start = config.invocation_params.dir
    project = (start / model_dir).resolve() if model_dir else start
    if not project.is_dir():
        raise pytest.UsageError(f"MODEL_DIR: {project} is no folder; name the folder that holds models.json")
    given = config.option
    timeout = given.madengine_timeout
    if timeout is not None and not (timeout >= 0 or timeout == -1):
        raise pytest.UsageError(f"--madengine-timeout: found {timeout:g}; valid: seconds, 0 (no limit) or -1 (default)")
    return Settings(
        start=start,
        project=project,
        tags=tuple(given.madengine_tags),
        target=given.madengine_target,
        context=given.madengine_context,
        context_file=start / given.madengine_context_file if given.madengine_context_file else None,
        timeout=None if timeout == -1 else timeout,
        output=start / given.madengine_output,
        disable_skip_gpu_arch=given.madengine_disable_skip_gpu_arch,
    )


def _arguments(option: Option) -> dict[str, Any]:
    shared = {"dest": option.dest, "help": option.help, "default": option.default}
    if not option.metavar:
        return {**shared, "action": "store_true"}
    if option.repeated:
        return {**shared, "action": "append", "metavar": option.metavar}
    restricted = {"choices": option.choices} if option.choices else {}
    return {**shared, "metavar": option.metavar, "type": option.type, **restricted}
