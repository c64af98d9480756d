"""What the checks of a node say, and whether jobs should keep off it; pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

MARK = "preflight"
"""What each line of the nodes' script begins with."""
LEAST_MEMORY = 0.9
"""The share of a GPU's memory that must be free: drivers and displays keep a few percent, what still runs has more."""
LEAST_DISK = 1024
"""MiB: with less, not even the logs of a run are safe."""
TIMED_OUT = ("124", "137")
"""Exit codes of `timeout`, and of what it had to kill."""
HEADINGS = ("node", "GPUs", "GPU memory free", "disk free", "runtime", "processes", "verdict")
BUSY = ("allocated", "completing", "mixed")
BROKEN = ("down", "drain", "error", "fail", "inval", "maint", "no_respond", "unknown")
"""How SLURM's words begin for nodes that run no jobs until somebody sees to them."""


class Table(NamedTuple):
    """How a tool writes the memory of GPUs as CSV.

    Attributes:
        begins: the first cell of its headings.
        total: a column's name, as are `free` and `used`, of which it has one.
        unit: how many of its units make a MiB.
    """

    begins: str
    total: str
    free: str = ""
    used: str = ""
    unit: int = 1


TABLES = {
    "nvidia-smi": Table("memory.free [MiB]", "memory.total [MiB]", free="memory.free [MiB]"),
    "amd-smi": Table("gpu", "total_vram", free="free_vram"),
    "rocm-smi": Table("device", "VRAM Total Memory (B)", used="VRAM Total Used Memory (B)", unit=1 << 20),
    "sysfs": Table("total", "total", used="used", unit=1 << 20),
}


class Gpu(NamedTuple):
    """MiB of its memory, None where the tool does not say."""

    free: int | None
    total: int | None


@dataclass(frozen=True)
class Process:
    """One that computes on a GPU, or a server known by its name.

    Attributes:
        started: ticks since the node booted, which with `pid` names the process for good.
        user: '?' where the node does not show it.
        own: whether it belongs to who runs pytest.
        job: the number of the job it was started in; '' for none.
    """

    pid: int
    started: int
    user: str
    own: bool
    job: str
    command: str

    def __str__(self) -> str:
        name = f"process {self.pid}" + (f" ({self.command})" if self.command else "")
        return f"your {name}" if self.own else f"{name} of {self.user}"


@dataclass(frozen=True)
class Facts:
    """What a node says of itself.

    Attributes:
        over: whether it said everything.
        nodes: how many nodes were asked; with it comes `nodelist`, in SLURM's notation.
        given: GPUs that SLURM gave to the check; None where it counts none.
        tool: what was asked for GPUs; '' where there is nothing to ask.
        trouble: why the tool lists no GPU, in its words.
        disks: MiB free, by folder.
        runtime: '' where the container runtime answers, else why not; None where it was not asked.
        ended: processes that were made to end.
    """

    over: bool = False
    nodes: int = 1
    nodelist: str = ""
    given: int | None = None
    tool: str = ""
    gpus: tuple[Gpu, ...] = ()
    trouble: str = ""
    processes: tuple[Process, ...] = ()
    disks: Mapping[str, int] = field(default_factory=dict)
    runtime: str | None = None
    ended: tuple[int, ...] = ()


@dataclass(frozen=True)
class Node:
    """A node as SLURM sees it; `state` and `reason` in its words."""

    name: str
    state: str
    partition: str = ""
    features: frozenset[str] = frozenset()
    reason: str = ""

    @property
    def broken(self) -> bool:
        """Whether it runs no jobs until somebody sees to it; a star says that it does not respond."""
        return "*" in self.state or self.state.startswith(BROKEN)


class Said(NamedTuple):
    """A line of the nodes' script."""

    topic: str
    values: tuple[str, ...]

    def number(self, at: int) -> int | None:
        """A value as a whole number, if it is one."""
        text = self.values[at] if at < len(self.values) else ""
        return int(text) if text.isascii() and text.isdecimal() and len(text) <= len(str(1 << 64)) else None

    def text(self, at: int) -> str:
        """A value, '' where there is none."""
        return self.values[at] if at < len(self.values) else ""


def read(output: str) -> dict[str, Facts]:
    """What each node says, by its name; other lines, such as srun's own, are passed over."""
    said: dict[str, list[Said]] = {}
    for line in output.split("\n"):
        mark, *rest = line.split("\t")
        if mark == MARK and len(rest) > 1 and rest[0]:
            said.setdefault(rest[0], []).append(Said(rest[1], tuple(rest[2:])))
    return {host: _facts(lines) for host, lines in said.items()}


def _facts(lines: Sequence[Said]) -> Facts:
    begun = _first(lines, "begun") or Said("begun", ())
    runtime = _first(lines, "runtime")
    tool, gpus, trouble = _gpus(lines)
    return Facts(
        over=_first(lines, "over") is not None,
        nodes=begun.number(0) or 1,
        nodelist=begun.text(1),
        given=begun.number(2),
        tool=tool,
        gpus=gpus,
        trouble=trouble,
        processes=tuple(_process(each) for each in _about(lines, "process")),
        disks={each.text(0): (each.number(1) or 0) >> 10 for each in _about(lines, "disk")},
        runtime=None if runtime is None else _runtime(runtime),
        ended=tuple(each.number(0) or 0 for each in _about(lines, "ended")),
    )


def _about(lines: Sequence[Said], topic: str) -> Iterator[Said]:
    return (line for line in lines if line.topic == topic)


def _first(lines: Sequence[Said], topic: str) -> Said | None:
    return next(_about(lines, topic), None)


def _process(said: Said) -> Process:
    return Process(
        pid=said.number(0) or 0,
        started=said.number(1) or 0,
        user=said.text(2) or "?",
        own=said.text(3) == "own",
        job=said.text(4),
        command=said.text(5),
    )


def _runtime(said: Said) -> str:
    return "" if said.text(0) == "0" else _why(said.text(0), said.text(1))


def _why(code: str, text: str) -> str:
    return "no answer in time" if code in TIMED_OUT else text.strip() or f"exit code {code}"


def _gpus(lines: Sequence[Said]) -> tuple[str, tuple[Gpu, ...], str]:
    """The tool that lists the most GPUs, these, and what the first one says where none lists any."""
    codes = {each.text(0): each.text(1) for each in _about(lines, "tool")}
    rows: dict[str, list[str]] = {tool: [] for tool in codes}
    for each in _about(lines, "gpu"):
        rows.setdefault(each.text(0), []).append(each.text(1))
    found = {tool: tuple(gpus_of(tool, text)) for tool, text in rows.items()}
    if not found:
        return "", (), ""
    tool = max(found, key=lambda each: len(found[each]))
    last = next(filter(str.strip, reversed(rows[tool])), "")
    return tool, found[tool], "" if found[tool] else _why(codes.get(tool, ""), last)


def gpus_of(tool: str, lines: Sequence[str]) -> Iterator[Gpu]:
    """The GPUs in what a tool prints as CSV; lines before the headings, and of another length, are something else."""
    table = TABLES.get(tool)
    headings: list[str] = []
    for line in lines:
        cells = [cell.strip() for cell in line.split(",")]
        if not table or (not headings and cells[0] != table.begins):
            continue
        if not headings:
            headings = cells
        elif len(cells) == len(headings):
            yield _gpu(table, Said("gpu", tuple(cells)), {name: at for at, name in enumerate(headings)})


def _gpu(table: Table, row: Said, columns: Mapping[str, int]) -> Gpu:
    def mib(column: str) -> int | None:
        found = row.number(columns[column]) if column in columns else None
        return None if found is None else found // table.unit

    total, free, used = mib(table.total), mib(table.free), mib(table.used)
    if free is None and total is not None and used is not None:
        free = max(0, total - used)
    return Gpu(free, total)


def faults(facts: Facts, gpus: int, live: Collection[str], tool: str = "") -> Iterator[str]:
    """Why jobs should keep off a node.

    Args:
        facts: what it says.
        gpus: how many a job wants of it; what SLURM itself gave to the check counts more.
        live: numbers of jobs that are not over: their processes are where they should be.
        tool: what looks at GPUs on other nodes; '' where none has such a thing.
    """
    if not facts.over:
        yield "it did not finish its checks in time"
    if tool and facts.over and not facts.tool and (facts.given or gpus):
        yield f"no GPU tool, other nodes have one ({tool})"
    yield from _faults_of_gpus(facts, facts.given or gpus)
    yield from (f"{process} is there" for process in strangers(facts, live))
    yield from (f"{free} MiB free in {folder}" for folder, free in facts.disks.items() if free < LEAST_DISK)
    if facts.runtime:
        yield f"the container runtime does not answer: {facts.runtime}"


def _faults_of_gpus(facts: Facts, expected: int) -> Iterator[str]:
    if facts.tool and len(facts.gpus) < expected:
        why = f" ({facts.tool}: {facts.trouble})" if facts.trouble else ""
        yield f"{len(facts.gpus)} of {expected} GPUs answer{why}"
    if taken := [number for number, gpu in enumerate(facts.gpus) if _is_taken(gpu)]:
        yield f"memory is in use on GPU {', '.join(map(str, taken))}: {_memory(facts)} free"


def strangers(facts: Facts, live: Collection[str]) -> list[Process]:
    """Processes that belong to no job that is there."""
    return [process for process in facts.processes if process.job not in live]


def leftovers(facts: Facts, live: Collection[str], *, root: bool) -> list[Process]:
    """Those of them that who runs pytest may end; of root's, which may be the system's own, only what a job left."""
    mine = [process for process in strangers(facts, live) if process.own and process.started]
    return [process for process in mine if process.job or not root]


def _is_taken(gpu: Gpu) -> bool:
    return gpu.free is not None and bool(gpu.total) and gpu.free < LEAST_MEMORY * (gpu.total or 0)


def _memory(facts: Facts) -> str:
    """Of the GPU with the least."""
    known = [(gpu.free, gpu.total) for gpu in facts.gpus if gpu.free is not None and gpu.total is not None]
    return "{} of {} MiB".format(*min(known)) if known else ""


@dataclass(frozen=True)
class Survey:
    """The nodes of a partition.

    Attributes:
        nodes: all of them.
        facts: what those say that were asked, by name.
        bad: why jobs should keep off some of those.
        ended: what was tidied up, in words.
        warning: why nothing, or not everything, could be checked; '' where it was.
        verbose: whether the user wants to see everything.
    """

    nodes: tuple[Node, ...] = ()
    facts: Mapping[str, Facts] = field(default_factory=dict)
    bad: Mapping[str, str] = field(default_factory=dict)
    ended: tuple[str, ...] = ()
    warning: str = ""
    verbose: bool = False

    @property
    def good(self) -> bool:
        """Whether something was checked, and nothing is wrong."""
        broken = any(node.broken for node in self.nodes)
        return bool(self.facts) and not (self.bad or broken or self.warning)

    def left(self, features: Collection[str] = ()) -> list[str]:
        """Nodes on which a job that needs these features will run some day."""
        return [
            node.name
            for node in self.nodes
            if not node.broken and node.name not in self.bad and node.features.issuperset(features)
        ]

    def notes(self) -> list[str]:
        """What people should know, in sentences."""
        bad = [f"node check: {name} is not clean: {reason}" for name, reason in self.bad.items()]
        ended = [f"node check: ended on {each}" for each in self.ended]
        return bad + ended + ([f"node check: {self.warning}"] if self.warning else [])

    def rows(self) -> list[tuple[tuple[str, ...], bool]]:
        """A line of a table for each node, as in `HEADINGS`, with whether it is one to be content with."""
        return [(self._row(node), node.name not in self.bad and not node.broken) for node in self.nodes]

    def _row(self, node: Node) -> tuple[str, ...]:
        facts = self.facts.get(node.name)
        if facts is None:
            return (node.name, *["-"] * (len(HEADINGS) - 2), self.bad.get(node.name) or _unchecked(node))
        disks = [f"{free / 1024:.1f} GiB in {folder}" for folder, free in facts.disks.items()]
        return (
            node.name,
            f"{len(facts.gpus)} ({facts.tool})" if facts.tool else "no tool",
            _memory(facts) or "-",
            min(disks, key=lambda each: float(each.split()[0]), default="-"),
            {None: "-", "": "answers"}.get(facts.runtime, "silent"),
            str(len(facts.processes)),
            self.bad.get(node.name) or ("good" if facts.tool else "GPUs not checked"),
        )


def _unchecked(node: Node) -> str:
    if node.broken:
        return f"{node.state}: {node.reason}"
    return f"{'busy' if node.state in BUSY else node.state}, not checked"
