"""The table of options; light, since every pytest run reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

MODEL_FILES = ("models.json", "get_models_json.py")
LATEST = "latest"
ENVIRONMENT = "environment"


class Option(NamedTuple):
    """One command line option.

    Attributes:
        flag: as written on the command line.
        help: for `--help` and the README's table.
        metavar: what stands for its value; '' for a switch.
        repeated: whether several values add up.
        choices: the only values, if restricted.
        bare: the value of the option without one; an option that has none takes none from the next word.
        type: converts the text.
        default: the value without the option.
    """

    flag: str
    help: str
    metavar: str = ""
    repeated: bool = False
    choices: tuple[str, ...] = ()
    bare: str = ""
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
        "--madengine-max-in-flight",
        "how many jobs at the same time (default: 1 on this host, many on clusters)",
        metavar="N",
        type=int,
    ),
    Option("--madengine-ordered", "report models in the order of collection, not as they finish", default=False),
    Option(
        "--madengine-retries",
        "run a model again, up to N times, when its machine or engine failed; never when the model itself did",
        metavar="N",
        type=int,
        default=0,
    ),
    Option(
        "--madengine-max-infra-failures",
        "stop when so many models failed for their machine or engine",
        metavar="N",
        type=int,
    ),
    Option(
        "--madengine-resume",
        "go on with a run that ended early (default: the latest): repeat nothing that is done",
        metavar="RUN",
        bare=LATEST,
    ),
    Option(
        "--madengine-detach",
        "submit, say how to come back, and leave without waiting",
        default=False,
    ),
    Option(
        "--madengine-on-interrupt",
        "what Ctrl-C does with jobs in flight: cancel (default) or detach",
        metavar="WHAT",
        choices=("cancel", "detach"),
        default="cancel",
    ),
    Option("--madengine-status", "show where a run stands (default: the latest) and leave", metavar="RUN", bare=LATEST),
    Option(
        "--madengine-pack",
        "on SLURM, run models that ask for the same one after another in N allocations (default: 1) at a time",
        metavar="N",
        bare="1",
    ),
    Option(
        "--madengine-preflight",
        "check the idle nodes of --target=slurm, show a table and leave: with 0 if all is well, else 1",
        default=False,
    ),
    Option(
        "--madengine-build-only",
        "make the images of the models and write the manifest; run nothing",
        default=False,
    ),
    Option(
        "--madengine-manifest",
        "run the models of this manifest, in the images that it names; build nothing",
        metavar="FILE",
        type=Path,
    ),
    Option(
        "--madengine-manifest-output",
        "where --madengine-build-only writes (default: build_manifest.json)",
        metavar="FILE",
        type=Path,
    ),
    Option("--madengine-summary-output", "where to write the summary of the builds as JSON", metavar="FILE", type=Path),
    Option(
        "--madengine-batch-manifest",
        "the models of this JSON list, each with its own wish: build_new, registry, registry_image",
        metavar="FILE",
        type=Path,
    ),
    Option(
        "--madengine-build-jobs",
        "how many images to build at the same time (default: half the number of CPUs)",
        metavar="N",
        type=int,
    ),
    Option("--madengine-no-cache", "build images anew that are there already, without Docker's cache", default=False),
    Option(
        "--madengine-target-archs",
        "an image and an item for each GPU architecture: gfx90a,mi300x; native: the one of this machine",
        metavar="ARCHS",
        repeated=True,
        default=[],
    ),
    Option(
        "--madengine-registry",
        "push images there: docker.io, localhost:5000, registry.example.com/team",
        metavar="REGISTRY",
    ),
    Option(
        "--madengine-build-on-compute",
        "build images on nodes of the SLURM cluster, which push them to --madengine-registry",
        default=False,
    ),
    Option(
        "--madengine-use-image",
        "run this image and build none; auto: the one that each card names",
        metavar="IMAGE",
    ),
    Option(
        "--madengine-reservation",
        "run in this reservation of SLURM, whatever card and context say",
        metavar="NAME",
    ),
    Option(
        "--madengine-dry-run",
        "show what would be handed over for each model, and contact nothing; -v: with the origin of each value",
        default=False,
    ),
    Option(
        "--madengine-keep-alive",
        "leave on --target=k8s what was made for each model, for you to look at and to delete",
        default=False,
    ),
    Option("--madengine-live-output", "show what builds and models print, line by line", default=False),
    Option(
        "--madengine-references",
        "expected values as JSON or YAML: model, GPU architecture, metric; wins over the cards' own",
        metavar="FILE",
        type=Path,
    ),
    Option(
        "--madengine-baseline",
        "compare with earlier runs: a perf.csv, a record or a folder of records, their URI, or store",
        metavar="WHERE",
    ),
    Option(
        "--madengine-baseline-of",
        "which earlier runs: last:N (default: last:20), tag:NAME or run:ID",
        metavar="RUNS",
    ),
    Option(
        "--madengine-gate",
        "what fails a model: a regression or no verdict (fail, default), regressions alone, or nothing (watch)",
        metavar="WHAT",
        choices=("fail", "regressions", "watch"),
        default="fail",
    ),
    Option(
        "--madengine-repeat",
        "run each model N times and report the median",
        metavar="N",
        type=int,
    ),
    Option("--madengine-warmup", "run each model N times more, before what counts", metavar="N", type=int),
    Option(
        "--madengine-ab",
        "run each model in two images in turn, N times each (--madengine-repeat, default: 5), and compare B with A",
        metavar="A,B",
    ),
    Option(
        "--madengine-exit-codes",
        "exit with 0 success, 1 other failure, 2 a build failed, 3 a model failed to run, 4 wrong usage",
        default=False,
    ),
    Option(
        "--madengine-html",
        "write the run as one HTML page, with trends and charts, that opens offline",
        metavar="FILE",
        type=Path,
    ),
    Option(
        "--madengine-markdown",
        "write what the run came to as Markdown, for a comment on a pull request",
        metavar="FILE",
        type=Path,
    ),
    Option(
        "--madengine-summary",
        "write counts, results and verdicts of the run as JSON (those of builds: --madengine-summary-output)",
        metavar="FILE",
        type=Path,
    ),
    Option(
        "--madengine-prometheus",
        "write the results for Prometheus' textfile collector; needs the extra `prometheus`",
        metavar="FILE",
        type=Path,
    ),
    Option(
        "--madengine-otel",
        "send the run as an OpenTelemetry trace, to where OTEL_* variables say; needs the extra `otel`",
        default=False,
    ),
    Option(
        "--madengine-mongo",
        "send each result to MongoDB, to where MONGO_* variables say, or to this URI",
        metavar="URI",
        bare=ENVIRONMENT,
    ),
    Option(
        "--madengine-reporting-timeout",
        "seconds that reporters over the network get at the end (default: 10); what is not sent then waits on disk",
        metavar="SECONDS",
        type=float,
        default=10.0,
    ),
    Option(
        "--madengine-disable-skip-gpu-arch",
        "run models also on architectures that they ask to skip",
        default=False,
    ),
)

WAKING = tuple(
    f"madengine_{name}" for name in ("tags", "resume", "build_only", "manifest", "batch_manifest", "dry_run")
)
"""Options that are about models whatever else is given."""
INI_ENABLED = "madengine"
INI_EXIT_CODES = "madengine_exit_codes"


def add(parser: pytest.Parser) -> None:
    """Declare the options and the ini key."""
    group = parser.getgroup("madengine", "AI models as test items")
    for option in OPTIONS:
        group.addoption(option.flag, **_arguments(option))
    parser.addini(INI_ENABLED, "collect every model card, also without --madengine-tags", type="bool", default=False)
    parser.addini(INI_EXIT_CODES, "as --madengine-exit-codes", type="bool", default=False)


def awake(config: pytest.Config) -> bool:
    """Whether this run has to do with models at all."""
    given = config.option
    asked = any(getattr(given, name) for name in WAKING)
    return bool(asked or any(map(names_model, config.args)) or config.getini(INI_ENABLED))


def given(config: pytest.Config, name: str) -> bool:
    """Whether a switch of pytest's own is given; its plugin may be switched off."""
    return bool(getattr(config.option, name, False))


def names_model(argument: str) -> bool:
    """Whether a path or node id is of a model file."""
    return Path(argument.partition("::")[0]).name in MODEL_FILES


def _arguments(option: Option) -> dict[str, Any]:
    shared = {"dest": option.dest, "help": option.help, "default": option.default}
    if not option.metavar:
        return {**shared, "action": "store_true"}
    if option.repeated:
        return {**shared, "action": "append", "metavar": option.metavar}
    if option.bare:
        return {**shared, "nargs": "?", "const": option.bare, "metavar": option.metavar}
    restricted = {"choices": option.choices} if option.choices else {}
    return {**shared, "metavar": option.metavar, "type": option.type, **restricted}
