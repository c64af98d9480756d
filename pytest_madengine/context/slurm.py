"""The `slurm` section of contexts and cards, typed, and the options of sbatch that follow from it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    field_validator,
    model_validator,
)

from pytest_madengine.validation import CommaList

TRANSLATED = {"mail_type": "mail-type", "mail_user": "mail-user", "mem": "mem"}
"""Documented keys that sbatch alone understands, with its names for them; they become `options`."""

_LOG = "what a job prints is looked for in its own folder"
_NUMBER = "sbatch is to print the job's number and nothing else"
_FOUND = "jobs are found again by it"
_ENVIRONMENT = "card and context say which variables reach a job"
_TASKS = "each node runs one task, from which the launcher starts the processes"
_RETRY = "pytest decides what is tried again"
_RUNTIME = "slurm.container_runtime says what runs containers"
REFUSED = {
    "job-name": _FOUND,
    "comment": _FOUND,
    "output": _LOG,
    "error": _LOG,
    "input": "jobs have no input",
    "open-mode": _LOG,
    "parsable": _NUMBER,
    "quiet": _NUMBER,
    "verbose": _NUMBER,
    "help": _NUMBER,
    "usage": _NUMBER,
    "version": _NUMBER,
    "wait": "pytest waits for all jobs together",
    "test-only": "nothing would run",
    "wrap": "the script of a job is made here",
    "array": "each model is a job of its own",
    "clusters": "the state of jobs is asked of this cluster alone",
    "export": _ENVIRONMENT,
    "export-file": _ENVIRONMENT,
    "get-user-env": _ENVIRONMENT,
    "ntasks": _TASKS,
    "ntasks-per-node": _TASKS,
    "tasks-per-node": _TASKS,
    "requeue": _RETRY,
    "no-requeue": _RETRY,
    "container": _RUNTIME,
    "container-image": _RUNTIME,
    "uid": "jobs belong to who submits them",
    "gid": "jobs belong to who submits them",
    "nodefile": "slurm.nodelist says it",
    **{
        key.replace("_", "-"): f"slurm.{key} says it"
        for key in (
            *("partition", "nodes", "gpus_per_node", "time", "exclusive", "nodelist", "exclude"),
            *("constraint", "reservation", "qos", "account"),
        )
    },
}
"""Options that are set here or that would take a job out of our hands, each with the reason for a user."""
GPUS = "gpus-per-node"
ALLOWED = frozenset(["gpus", GPUS])
"""An option that another one begins like, and one that takes `false`, for clusters that do not count GPUs."""

UNCLEAR_MINUTES = 3600
"""From here on a number is more likely YAML 1.1's reading of HH:MM:SS without quotes, which are seconds."""
VALID_TIME = (
    f"'HH:MM:SS', 'D-HH:MM:SS' (in quotes) or minutes as a whole number from 0 (no limit) below {UNCLEAR_MINUTES}"
)
_CLOCK = re.compile(r"(\d{1,5}):([0-5]\d):([0-5]\d)", re.ASCII)
_DAYS = re.compile(r"(\d{1,4})-([01]?\d|2[0-3])(?::([0-5]\d)(?::([0-5]\d))?)?", re.ASCII)
_MINUTES = re.compile(r"\d{1,7}", re.ASCII)
_COMMA = re.compile(r"\s*,\s*")
_HOST = r"(?:[\w.-]|\[\d[\d,-]*\])+"
_HOSTS = re.compile(rf"(?:{_HOST}(?:,{_HOST})*)?", re.ASCII)
VALID_HOSTS = "node names as a list or separated by commas, such as 'node[01-04],node07'"
VALID_OPTION = "one line of text, a whole number, a list of them, true (no value) or false (left out)"
VALID_SHELL = "shell commands as a text or a list of lines, without control characters but tabs"
_OPTION = re.compile(r"[a-z][a-z0-9]+(?:-[a-z0-9]+)*", re.ASCII)
_PLAIN = re.compile(r"[\w./:@%+,=^&|*!\[\]-]+", re.ASCII)
_SPECIAL = re.compile(r'["\\]')


def seconds_of(time: str) -> int:
    """How long a time limit of SLURM is; 0 stands for no limit.

    Raises:
        ValueError: it is written in no accepted form. `MM:SS` is none: many who write it mean hours and minutes.
    """
    if form := _DAYS.fullmatch(time):
        days, hours, minutes, seconds = (int(part or 0) for part in form.groups())
    elif form := _CLOCK.fullmatch(time):
        days, (hours, minutes, seconds) = 0, map(int, form.groups())
    elif _MINUTES.fullmatch(time):
        days, hours, minutes, seconds = 0, 0, int(time), 0
    else:
        raise ValueError(VALID_TIME)
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def directive(name: str, value: str | None = None) -> str:
    """The line of a batch script that gives sbatch one option.

    sbatch reads these lines by rules of its own: no shell expands anything, blanks and `#` end a value outside of
    quotes, and a backslash escapes inside of quotes of either kind.

    Args:
        name: without dashes.
        value: None for options that take none.

    Raises:
        ValueError: no such line can hold the value.
    """
    if value is None:
        return f"#SBATCH --{name}"
    _one_line(value)
    shown = value if _PLAIN.fullmatch(value) else '"' + _SPECIAL.sub(r"\\\g<0>", value) + '"'
    return f"#SBATCH --{name}={shown}"


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("one line of text without control characters")
    return text


def _stripped(text: str) -> str:
    return _one_line(text.strip(" "))


def _time(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < UNCLEAR_MINUTES:
        return str(value)
    if not isinstance(value, str):
        raise ValueError(VALID_TIME)  # noqa: TRY004  # pydantic collects ValueErrors
    text = value.strip()
    seconds_of(text)
    return text


def _texts(value: object, valid: str) -> list[str]:
    """The strings that a string or a list of them holds.

    Raises:
        ValueError: it holds anything else; `valid` is the text.
    """
    pieces = value if isinstance(value, list | tuple) else [value]
    texts = [piece for piece in pieces if isinstance(piece, str)]
    if len(texts) != len(pieces):
        raise ValueError(valid)
    return texts


def _hosts(value: object) -> str:
    """One of SLURM's host lists, from one or a list of them; blanks beside commas are dropped."""
    bare = [_COMMA.sub(",", text.strip()) for text in _texts(value, VALID_HOSTS)]
    hosts = ",".join(filter(None, bare))
    if not _HOSTS.fullmatch(hosts):
        raise ValueError(VALID_HOSTS)
    return hosts


def _option_name(name: str) -> str:
    """A name that sbatch does not take, by itself or as a beginning, for one of those refused."""
    if not _OPTION.fullmatch(name):
        raise ValueError("the long name of an option of sbatch, without dashes before it")
    refused = name if name in REFUSED else next((full for full in REFUSED if full.startswith(name)), None)
    if refused and name not in ALLOWED:
        taken = "" if refused == name else f"sbatch takes it for {refused}: "
        raise ValueError(f"any other option: {taken}{REFUSED[refused]}")
    return name


def _option_value(value: object) -> str | bool:
    if isinstance(value, bool):
        return value
    pieces = value if isinstance(value, list | tuple) else [value]
    text = ",".join(_texts([_number_as_text(piece) for piece in pieces], VALID_OPTION))
    if not text or not text.isprintable():
        raise ValueError(VALID_OPTION)
    return text


def _number_as_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _shell_text(value: object) -> str:
    """Lines for a script; sbatch refuses a script with line ends of DOS."""
    text = "\n".join(_texts(value, VALID_SHELL)).replace("\r\n", "\n")
    if any(not (character.isprintable() or character in "\n\t") for character in text):
        raise ValueError(VALID_SHELL)
    return text


Line = Annotated[str, AfterValidator(_stripped)]
Time = Annotated[str, BeforeValidator(_time)]
Hosts = Annotated[str, PlainValidator(_hosts)]
Lines = Annotated[CommaList, AfterValidator(lambda names: tuple(dict.fromkeys(filter(None, map(_stripped, names)))))]
Shell = Annotated[str, PlainValidator(_shell_text)]
OptionName = Annotated[str, AfterValidator(_option_name)]
OptionValue = Annotated[str | bool, PlainValidator(_option_value)]


class Slurm(BaseModel):
    """What SLURM is asked for, and how a job of ours runs there.

    Where None or an empty value is the default, the cluster's own default holds.

    Attributes:
        partitions: each model runs once in each of them; see `variants`.
        nodes: at least 1.
        gpus_per_node: 0 asks for none.
        time: SLURM's limit, as sbatch takes it; `seconds` has it as a number.
        nodelist: nodes that the job must have, in SLURM's notation.
        exclude: nodes that it must not have, in SLURM's notation.
        modules: environment modules, loaded in this order.
        output_dir: a folder that gets a link to each job's folder, in which its logs lie.
        network_interface: for NCCL and Gloo, such as `ib0`.
        shared_workspace: a folder that all nodes see, in which models run; else each runs on its node's own disk.
        results_dir: where a self-managed script leaves its perf.csv.
        options: further options of sbatch by their long names; True is one without a value, False leaves it out.
        prologue: shell commands before the model runs, once for a job.
        epilogue: shell commands after it, once for a job.
        in_allocation: what pytest does inside an allocation: run jobs as its steps, or submit them beside it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    partition: Line | None = None
    partitions: Lines = ()
    nodes: int = Field(1, ge=1)
    gpus_per_node: int = Field(0, ge=0)
    time: Time | None = None
    exclusive: bool = False
    nodelist: Hosts | None = None
    exclude: Hosts | None = None
    constraint: Line | None = None
    reservation: Line | None = None
    qos: Line | None = None
    account: Line | None = None
    modules: Lines = ()
    output_dir: Line | None = None
    network_interface: Line | None = None
    shared_workspace: Line | None = None
    results_dir: Line | None = None
    enable_node_check: bool = True
    auto_cleanup_nodes: bool = False
    verbose_node_check: bool = False
    allow_submit_without_clean_nodes: bool = False
    options: dict[OptionName, OptionValue] = Field(default_factory=dict)
    prologue: Shell = ""
    epilogue: Shell = ""
    container_runtime: Literal["docker", "podman", "apptainer", "enroot", "none"] = "docker"
    in_allocation: Literal["steps", "submit"] = "steps"

    @model_validator(mode="before")
    @classmethod
    def _in_our_words(cls, values: Any) -> Any:
        """Drop comments, and move what sbatch alone understands to the options."""
        if not isinstance(values, Mapping):
            return values
        given = {key: value for key, value in values.items() if not str(key).startswith("_")}
        moved = {option: given.pop(key) for key, option in TRANSLATED.items() if key in given}
        options = given.get("options", {})
        if moved and isinstance(options, Mapping):
            given["options"] = {name: value for name, value in moved.items() if value is not None} | dict(options)
        return given

    @field_validator("options")
    @classmethod
    def _gpus_are_stated_once(cls, options: dict[str, str | bool]) -> dict[str, str | bool]:
        if options.get(GPUS, False) is not False:
            raise ValueError(f"{GPUS} as false alone, to leave it out; {REFUSED[GPUS]} else")
        return options

    @model_validator(mode="after")
    def _one_partition_or_several(self) -> Slurm:
        if self.partition and self.partitions:
            raise ValueError("either 'partition', or 'partitions' to run each model in each of them")
        return self

    @property
    def seconds(self) -> int | None:
        """SLURM's time limit; None where none is stated or 0 asks for no limit."""
        return (seconds_of(self.time) or None) if self.time else None

    def variants(self) -> tuple[Slurm, ...]:
        """One section for each partition that a model is to run in."""
        if not self.partitions:
            return (self,)
        return tuple(self.model_copy(update={"partition": each, "partitions": ()}) for each in self.partitions)

    def sbatch_options(self, avoid: Sequence[str] = ()) -> list[tuple[str, str | None]]:
        """Names and values for `directive`, in a fixed order: the keys first, then `options` by name.

        Args:
            avoid: nodes to exclude beside those stated; none where the job is pinned to nodes.

        Raises:
            ValueError: several partitions are stated; each of the `variants` has one.
        """
        if self.partitions:
            raise ValueError("sbatch_options of one of the variants")
        own: dict[str, str | bool | None] = {
            "partition": self.partition,
            "nodes": str(self.nodes),
            GPUS: "" if self._gpus_otherwise() else str(self.gpus_per_node or ""),
            "time": self.time,
            "exclusive": self.exclusive,
            "nodelist": self.nodelist,
            "exclude": ",".join(filter(None, (self.exclude, *(() if self.nodelist else avoid)))),
            "constraint": self.constraint,
            "reservation": self.reservation,
            "qos": self.qos,
            "account": self.account,
        }
        stated = own | dict(sorted(self.options.items()))
        return [(name, None if value is True else value) for name, value in stated.items() if value]

    def _gpus_otherwise(self) -> bool:
        """Whether an option asks for GPUs in the words that this cluster understands."""
        gres = self.options.get("gres")
        by_gres = isinstance(gres, str) and "gpu" in gres
        return by_gres or any(value and name.startswith("gpus") for name, value in self.options.items())
