"""Looks at the idle nodes of a partition before jobs go there: one step on all of them, and nothing of ours on them."""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from pytest_madengine import assets, command
from pytest_madengine.backends import health
from pytest_madengine.backends.health import Facts, Node, Process, Survey
from pytest_madengine.context.slurm import Slurm
from pytest_madengine.errors import InfrastructureError

PROBES = {
    "docker": ("docker", "info", "--format", "{{.DockerRootDir}}"),
    "podman": ("podman", "info", "--format", "{{.Store.GraphRoot}}"),
    "apptainer": ("apptainer", "--version"),
    "enroot": ("enroot", "version"),
}
"""Commands that succeed where a container runtime answers; the first line that is a path is where it keeps images."""
PASSED_ON = ("partition", "account", "qos", "constraint", "reservation", "exclude", "gpus-per-node", "gres", "wckey")
"""Options by which a check is let in where jobs are, and sees the devices that they see."""
MATTERS = frozenset(
    [
        *("partition", "account", "qos", "constraint", "reservation", "exclude", "gpus_per_node", "options", "modules"),
        *("container_runtime", "prologue", "in_allocation", "auto_cleanup_nodes", "verbose_node_check"),
    ]
)
"""Keys on which it depends what a check finds."""
PROBE_SECONDS, START_SECONDS, SECONDS = 10, 10, 30
"""How long a probe may take, how long nodes that are idle may be busy after all, and the check as a whole."""
KEPT = ("HOME", "LANG", "LOGNAME", "PATH", "USER")
"""What the check sees of the environment here; PATH, since programs of a site may lie in folders of its own."""
FIELDS = "%N|%T|%P|%f|%E"


class Preflight:
    """The checks of one session, each made once; threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._surveys: dict[str, Survey] = {}

    def bad(self, stated: Slurm) -> Mapping[str, str]:
        """Nodes that jobs should keep off, each with the reason.

        There are none where nodes are named or no check is wanted, where no node is idle, and where too few would be
        left for a job that is to be submitted all the same.
        """
        if not stated.enable_node_check or stated.nodelist:
            return {}
        bad = self.survey(stated).bad
        return {} if stated.allow_submit_without_clean_nodes and self._lacking(stated) else bad

    def too_few(self, stated: Slurm) -> str:
        """Why a job would wait for ever if it kept off the bad nodes; '' where it would not."""
        lacking = self._lacking(stated) if self.bad(stated) else ""
        if not lacking:
            return ""
        return f"not enough clean nodes: {lacking}; slurm.allow_submit_without_clean_nodes submits all the same"

    def _lacking(self, stated: Slurm) -> str:
        survey = self.survey(stated)
        excluded = _hosts(stated.exclude) if stated.exclude and survey.bad else ()
        left = [name for name in survey.left(_features(stated.constraint)) if name not in excluded]
        if len(left) >= stated.nodes or not survey.bad:
            return ""
        reasons = "; ".join(f"{name}: {reason}" for name, reason in survey.bad.items())
        return f"{stated.nodes} wanted, {len(left)} left ({reasons})"

    def survey(self, stated: Slurm) -> Survey:
        """What is to be known of the nodes that a job with this section may get; whatever fails is its warning."""
        key = stated.model_dump_json(include=set(MATTERS))
        with self._lock:
            if key not in self._surveys:
                try:
                    self._surveys[key] = _survey(stated)
                except InfrastructureError as error:
                    self._surveys[key] = Survey(warning=str(error))
            return self._surveys[key]

    def told(self) -> list[Survey]:
        """What was found so far."""
        with self._lock:
            return list(self._surveys.values())


@dataclass(frozen=True)
class Asked:
    """A step on some nodes, and what came of it.

    Attributes:
        facts: what the nodes say, by name; one that gave no answer says nothing.
        warning: why there is nothing at all.
    """

    facts: Mapping[str, Facts]
    warning: str = ""


def _survey(stated: Slurm) -> Survey:
    nodes = _nodes(stated)
    inside = _allocation(stated) is not None
    usable = [node.name for node in nodes if inside or _is_idle(node, stated)]
    if not usable:
        return Survey(tuple(nodes), verbose=stated.verbose_node_check)
    asked = _ask(stated, [f"--nodes={len(usable)}"] if inside else _any_of(usable, nodes, stated))
    facts = dict(asked.facts)
    live = _live(facts)
    ended: tuple[str, ...] = ()
    if stated.auto_cleanup_nodes and (victims := _victims(facts, live)):
        again = _ask(stated, [f"--nodes={len(victims)}", f"--nodelist={','.join(victims)}"], victims)
        ended = tuple(_ended(victims, again.facts))
        facts |= again.facts
    tool = next((each.tool for each in facts.values() if each.tool), "")
    reasons = {name: "; ".join(health.faults(each, stated.gpus_per_node, live, tool)) for name, each in facts.items()}
    bad = {name: reason for name, reason in sorted(reasons.items()) if reason}
    return Survey(tuple(nodes), facts, bad, ended, asked.warning, stated.verbose_node_check)


def _is_idle(node: Node, stated: Slurm) -> bool:
    return node.state == "idle" or (node.state == "reserved" and stated.reservation is not None)


def _allocation(stated: Slurm) -> str | None:
    """The number of the allocation that jobs are steps of; None where they are submitted."""
    return os.environ.get("SLURM_JOB_ID") if stated.in_allocation == "steps" else None


def _environment() -> dict[str, str]:
    """What srun sees: nothing of an allocation around it, and defaults for sbatch as if they were its own."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_") or name == "SLURM_CONF"}
    defaults = {name: value for name, value in os.environ.items() if name.startswith("SBATCH_")}
    return {**{name.replace("SBATCH_", "SLURM_", 1): value for name, value in defaults.items()}, **plain}


def _nodes(stated: Slurm) -> list[Node]:
    """The nodes of the partition, else of the default one, else all; inside an allocation, its own."""
    partition = stated.partition or os.environ.get("SBATCH_PARTITION", "")
    where = [f"--partition={partition}"] if partition else []
    if _allocation(stated) is not None:
        where = [f"--nodes={os.environ.get('SLURM_JOB_NODELIST', '')}"]
    done = command.run(["sinfo", "--noheader", "--Node", f"--format={FIELDS}", *where], env=_environment())
    rows = [line.split("|", 4) for line in done.require("sinfo").splitlines()]
    found = [_node(row) for row in rows if len(row) == FIELDS.count("|") + 1]
    default = [] if where else [node for node in found if node.partition.endswith("*")]
    return list({node.name: node for node in default or found}.values())


def _node(row: Sequence[str]) -> Node:
    name, state, partition, features, reason = (cell.strip() for cell in row)
    return Node(name, state, partition, frozenset(features.split(",")), reason)


def _any_of(usable: Sequence[str], nodes: Sequence[Node], stated: Slurm) -> list[str]:
    """Options for as many of these nodes as can be had at once, so that one which is taken meanwhile spoils nothing."""
    others = [node.name for node in nodes if node.name not in usable]
    options = dict(stated.sbatch_options(others))
    passed = [f"--{name}={options[name]}" for name in PASSED_ON if options.get(name)]
    return [f"--nodes=1-{len(usable)}", f"--immediate={START_SECONDS}", *passed]


def _ask(stated: Slurm, where: Sequence[str], victims: Mapping[str, Sequence[Process]] | None = None) -> Asked:
    inside = _allocation(stated)
    limits = ["timeout", "--kill-after=5", str(SECONDS)]
    frame = ["srun", "--quiet", "--job-name=madengine-preflight", "--time=1", "--chdir=/", "--kill-on-bad-exit=0"]
    step = [f"--jobid={inside}", "--overlap"] if inside is not None else []
    kept = ["--wait=0", "--mpi=none", f"--export={','.join(KEPT)}"]
    shell = ["bash", "-c", script(stated, victims or {})]
    done = command.run([*limits, *frame, *step, *kept, *where, *shell], seconds=SECONDS + 15, env=_environment())
    facts = health.read(done.output)
    if not facts:
        return Asked({}, f"nothing was checked: {_last(done.output) or f'srun: exit code {done.code}'}")
    return Asked({**{name: Facts() for name in _silent(facts)}, **facts})


def script(stated: Slurm, victims: Mapping[str, Sequence[Process]]) -> str:
    """The shell text that each node runs.

    Args:
        stated: says which modules and which container runtime jobs use.
        victims: processes to end, by the names of their nodes.
    """
    return assets.render(
        "slurm/preflight.sh.j2",
        modules=stated.modules,
        seconds=PROBE_SECONDS,
        probe=shlex.join(() if stated.prologue else PROBES.get(stated.container_runtime, ())),  # it may bring one
        victims=list(victims.items()),
    )


def _silent(facts: Mapping[str, Facts]) -> list[str]:
    """Nodes that were asked as well and gave no answer."""
    one = next(iter(facts.values()))
    return [] if len(facts) >= one.nodes else [name for name in _hosts(one.nodelist) if name not in facts]


def _hosts(names: str) -> list[str]:
    """The names in one of SLURM's host lists."""
    return command.run(["scontrol", "show", "hostnames", names]).require("scontrol").split()


def _last(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _live(facts: Mapping[str, Facts]) -> frozenset[str]:
    """Jobs that are not over, of those that processes were started in; all of them where SLURM does not say."""
    seen = frozenset(process.job for each in facts.values() for process in each.processes) - {""}
    if not seen:
        return seen
    done = command.run(["squeue", "--noheader", "--format=%A"], env=_environment())
    return seen & frozenset(done.output.split()) if done else seen


def _victims(facts: Mapping[str, Facts], live: Collection[str]) -> dict[str, list[Process]]:
    root = os.geteuid() == 0
    found = {name: health.leftovers(each, live, root=root) for name, each in facts.items()}
    return {name: processes for name, processes in sorted(found.items()) if processes}


def _ended(victims: Mapping[str, Sequence[Process]], facts: Mapping[str, Facts]) -> list[str]:
    return [
        f"{name}: {process}"
        for name, processes in victims.items()
        for process in processes
        if name in facts and process.pid in facts[name].ended
    ]


def _features(constraint: str | None) -> list[str]:
    """Features that a node must have; none of a constraint that is more than a list of them."""
    names = (constraint or "").split("&") if constraint else []
    return [] if any(not name.replace("_", "").replace("-", "").isalnum() for name in names) else names
