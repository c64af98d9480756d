"""What a job's pods left in its folder, as an Outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pytest_madengine.backends import facts, kubenote
from pytest_madengine.backends.base import Outcome, State, Status
from pytest_madengine.backends.kubeverdict import Ending

STATUS = "status"
"""In the folder of a rank: its exit code, when all of its results are there."""


@dataclass(frozen=True)
class Remains:
    """What the cluster told of a job's end.

    Attributes:
        nodes: how many pods it was to have.
        end: how it ended.
        codes: of each rank's last pod.
        hosts: the node of each.
        notes: what is to be said of it.
        cancelled: whether we ended it.
        refused: whether another try would be in vain.
    """

    nodes: int
    end: Ending
    codes: Mapping[int, int | None] = field(default_factory=dict)
    hosts: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    cancelled: bool = False
    refused: bool = False


def folder(directory: Path, rank: int, nodes: int) -> Path:
    """Where what a rank leaves goes."""
    return directory / "ranks" / str(rank) if nodes > 1 else directory


def folders(directory: Path, nodes: int) -> dict[int, Path]:
    """The same for all ranks."""
    return {rank: folder(directory, rank, nodes) for rank in range(nodes)}


def left(directory: Path, nodes: int) -> State:
    """Where a job stands of which the cluster knows nothing any more."""
    done = all((place / facts.EXIT_CODE).exists() for place in folders(directory, nodes).values())
    return State.EXITED if done else State.LOST


def status(directory: Path) -> Status:
    """The same of one that only its folder tells of."""
    asked = kubenote.read(directory)
    return Status(left(directory, asked.nodes if asked else 1))


def collected(directory: Path) -> Outcome:
    """What a job left that was collected before."""
    asked = kubenote.read(directory)
    nodes = asked.nodes if asked else 1
    codes = {rank: code(place) for rank, place in folders(directory, nodes).items()}
    return outcome(directory, Remains(nodes, Ending(left(directory, nodes), codes[0]), codes))


def outcome(directory: Path, remains: Remains) -> Outcome:
    """What a job left; of several ranks each has a folder, and the first speaks for all."""
    places = folders(directory, remains.nodes)
    note_codes(directory, remains)
    made = facts.outcome(
        places[0],
        remains.end.state,
        exit_code=remains.codes.get(0),
        node=facts.word(places[0] / "host") or remains.hosts.get(0, ""),
        duration=0.0,
        note="; ".join(filter(None, remains.notes)),
    )
    lost = remains.end.state is State.LOST and not remains.cancelled
    suspects = sorted({host for rank, host in remains.hosts.items() if host and remains.codes.get(rank) is None})
    blamed = tuple(suspects) if lost and not remains.refused else ()
    made = replace(made, suspects=blamed, machine=_machine(places[0]), refused=remains.refused)
    return _of_ranks(directory, made, places, remains) if remains.nodes > 1 else made


def _of_ranks(directory: Path, made: Outcome, places: Mapping[int, Path], remains: Remains) -> Outcome:
    if directory.is_dir():
        (directory / facts.ENDED).touch()
    codes = {rank: remains.codes.get(rank, code(place)) for rank, place in places.items()}
    there = {rank: place for rank, place in places.items() if place.is_dir()}
    rest = next((each for each in codes.values() if each), 0 if None not in codes.values() else None)
    return replace(made, exit_code=remains.end.code or rest, ranks=codes, folders=there)


def note_codes(directory: Path, remains: Remains) -> None:
    """Write down the exit codes that only the cluster told, for whoever asks later."""
    if remains.end.state is not State.EXITED:
        return
    for rank, place in folders(directory, remains.nodes).items():
        known = remains.codes.get(rank)
        if known is not None and place.is_dir() and not (place / facts.EXIT_CODE).exists():
            (place / facts.EXIT_CODE).write_text(f"{known}\n", encoding="utf-8")


def code(place: Path) -> int | None:
    """The exit code in the folder of a rank; None where there is none."""
    words = (facts.word(place / name) for name in (facts.EXIT_CODE, STATUS))
    return next((int(text) for text in words if text.isdecimal()), None)


def _machine(place: Path) -> dict[str, str]:
    """The facts of a node that its script took there."""
    pairs = (line.partition("=") for line in facts.word(place / "machine").splitlines())
    return {name: value for name, _, value in pairs if value}
