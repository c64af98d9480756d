"""Two runs side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pytest_madengine.results.metric import Direction
from pytest_madengine.results.perf import SKIPPED, SUCCESS
from pytest_madengine.store.entry import Entry

NEW, VANISHED, BROKEN, MENDED = "new", "vanished", "broken", "mended"


class Key(NamedTuple):
    """By which a metric of one side is found on the other."""

    model: str
    gpu_architecture: str
    n_gpus: str
    launcher: str
    metric: str


class Variant(NamedTuple):
    """One of several that have a key in common, as of a model that runs with several arguments.

    Attributes:
        number: which of several that have the arguments in common too, from 0.
    """

    key: Key
    args: str
    number: int


class Pair(NamedTuple):
    """A metric on both sides, or on one; numbers and texts of the other are None and ''.

    Attributes:
        state: `new` of what only the second side has, `vanished` of what only the first has, `broken` of what fails on
            the second alone, `mended` of what fails on the first alone, else ''.
        change: of the second against the first, relative: 0.05 for 5 % more; None where it cannot be told.
        worse: whether the change is for the worse; None where there is none.
    """

    model: str
    gpu_architecture: str
    n_gpus: str
    launcher: str
    metric: str
    unit: str
    first: float | None
    second: float | None
    change: float | None
    worse: bool | None
    first_status: str
    second_status: str
    state: str


def pairs(first: Iterable[Entry], second: Iterable[Entry], *, newest: tuple[bool, bool] = (False, False)) -> list[Pair]:
    """What both sides have, in the order of the first, then what only the second has.

    Args:
        first: the entries of a run.
        second: those of another.
        newest: for each side, whether several entries of one key are a history, of which the last one counts.
    """
    one, other = (_variants(side, last) for side, last in zip((first, second), newest, strict=True))
    partners = {variant: variant for variant in one if variant in other}
    free = [variant for variant in other if variant not in partners]
    for variant in (variant for variant in one if variant not in partners):
        partner = next((each for each in free if each.key == variant.key), None)
        if partner:
            partners[variant] = partner
            free.remove(partner)
    common = [_pair(variant.key, one[variant], _get(other, partners.get(variant))) for variant in one]
    return common + [_pair(variant.key, None, other[variant]) for variant in free]


def _get(side: Mapping[Variant, Entry], variant: Variant | None) -> Entry | None:
    return side[variant] if variant else None


def _variants(entries: Iterable[Entry], newest: bool) -> dict[Variant, Entry]:  # noqa: FBT001  # one of a pair
    seen = Counter[tuple[Key, str]]()
    found = {}
    for entry in entries:
        key = Key(entry.model, entry.gpu_architecture, entry.n_gpus, entry.launcher, entry.name)
        found[Variant(key, entry.args, 0 if newest else seen[key, entry.args])] = entry
        seen[key, entry.args] += 1
    return found


def _pair(key: Key, first: Entry | None, second: Entry | None) -> Pair:
    some = second or first
    assert some  # noqa: S101  # each key is of one side at least
    change = _change(first, second) if first and second else None
    return Pair(
        *key,
        unit=_unit(first, second),
        first=first.value if first else None,
        second=second.value if second else None,
        change=change,
        worse=None if not change else (change > 0) == (some.direction == Direction.LOWER.value),
        first_status=first.status if first else "",
        second_status=second.status if second else "",
        state=_state(first, second),
    )


def _state(first: Entry | None, second: Entry | None) -> str:
    if not (first and second):
        return NEW if second else VANISHED
    if first.status == second.status or SKIPPED in (first.status, second.status):
        return ""
    return MENDED if second.status == SUCCESS else BROKEN


def _unit(first: Entry | None, second: Entry | None) -> str:
    """The unit of both; where they differ, both."""
    return " / ".join(dict.fromkeys(side.unit for side in (first, second) if side and side.unit))


def _change(first: Entry, second: Entry) -> float | None:
    """The relative change; None without two values of one unit, or against 0."""
    if not first.value or second.value is None or first.unit != second.unit:
        return None
    return (second.value - first.value) / abs(first.value)
