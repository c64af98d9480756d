"""Makes one measurement of what the ranks of a job measured."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple, get_args

from pytest_madengine.models.model import Aggregate
from pytest_madengine.results.judge import Measured, rank_names
from pytest_madengine.results.multiple import Table
from pytest_madengine.results.performance import ANSI, LINE, Performance, finite

WAYS: tuple[Aggregate, ...] = get_args(Aggregate)
OF_ALL = ("sum", "mean")
"""Ways that are wrong as soon as one rank's value is missing."""

RATES = frozenset(
    [
        *("throughput", "bandwidth", "qps", "tps", "rps", "ips", "fps", "iops"),
        *("bps", "kbps", "mbps", "gbps", "tbps", "flops", "mflops", "gflops", "tflops", "pflops"),
    ]
)
AVERAGED = frozenset(
    [
        *("latency", "time", "duration", "ttft", "tpot", "itl", "s", "sec", "secs", "second", "seconds"),
        *("ms", "msec", "millisecond", "milliseconds", "us", "µs", "μs", "microsecond", "microseconds"),
        *("ns", "nanosecond", "nanoseconds", "minute", "minutes", "h", "hour", "hours"),
        *("accuracy", "acc", "precision", "recall", "f1", "loss", "perplexity", "ppl", "bleu", "rouge", "wer", "auc"),
        *("mfu", "hfu", "utilization", "utilisation", "efficiency", "ratio", "speedup", "score", "percent", "%"),
    ]
)
MEMORY = frozenset(
    [
        *("memory", "mem", "ram", "vram", "hbm", "byte", "bytes", "kb", "mb", "gb", "tb", "kib", "mib", "gib", "tib"),
        *("kilobytes", "megabytes", "gigabytes"),
    ]
)
PERIODS = frozenset(
    [
        *("s", "sec", "secs", "second", "seconds", "ms", "millisecond", "milliseconds", "us", "µs", "μs", "ns"),
        *("min", "mins", "minute", "minutes", "h", "hr", "hrs", "hour", "hours", "day", "days"),
    ]
)
"""What a rate is per."""

DONE = {"sum": "{} ranks summed", "mean": "{} ranks averaged", "max": "the largest of {} ranks taken"}
CAMEL = re.compile(r"(?<=[a-z]{2})(?=[A-Z])")
WORD = re.compile(r"[^\W_]+|%")
BRACKET = re.compile(r"[\s,]*\[([\w ]+)\]")
GLUED = re.compile(rf"(.*)\[({'|'.join(WAYS)})\]")
EXACT_BELOW = 1e15


@dataclass(frozen=True)
class Rank:
    """What one rank measured.

    Attributes:
        host: its node, if known.
        performance: the stated value, if it states one.
        unreadable: a `performance:` line whose value is no number.
        declared: the word in brackets behind the stated value.
        error: the first line of its log that matches an error pattern.
        table: its results CSV, if it wrote one.
    """

    host: str = ""
    performance: Performance | None = None
    unreadable: str = ""
    declared: str = ""
    error: str = ""
    table: Table | None = None


@dataclass(frozen=True)
class _Choice:
    """How values become one, and whether somebody said so; where nobody did, `known` is whether a rule did."""

    way: Aggregate
    stated: bool
    known: bool = True

    @property
    def of_all(self) -> bool:
        """Whether each rank's value is needed."""
        return self.way in OF_ALL


@dataclass(frozen=True)
class _Ranks:
    """All ranks of a job and what its card says of them."""

    ranks: Mapping[int, Rank]
    card: Aggregate | None

    @property
    def hosts(self) -> dict[int, str]:
        """The nodes that are known."""
        return {number: rank.host for number, rank in self.ranks.items() if rank.host}

    def names(self, ranks: Iterable[int]) -> str:
        """These ranks, for people."""
        return rank_names(sorted(ranks), self.hosts)

    def others(self, ranks: Iterable[int]) -> str:
        """The ranks beside these, for people; '' where there are none."""
        rest = self.ranks.keys() - set(ranks)
        return self.names(rest) if rest else ""


def combine(ranks: Mapping[int, Rank], card: Aggregate | None, results: str = "") -> Measured:
    """What the job measured.

    Args:
        ranks: what each of them measured, by number; one that left nothing is there too.
        card: how the card says that values become one; None where it does not.
        results: name of the results CSV that the model writes; '' where it states one value.

    Returns:
        the job's measurement, with a `problem` where the ranks have no common one, and notes on what was decided by
        default. Values that stand in a problem's rows are those of the ranks that have one.
    """
    job = _Ranks(dict(sorted(ranks.items())), card)
    measured = _tables(job, results) if results else _performances(job)
    return replace(measured, error=_error(job), hosts=job.hosts)


def declared(line: str) -> str | None:
    """The word in brackets behind the performance that a line states; '' without one, None where none is stated."""
    line = ANSI.sub("", line)
    match = LINE.search(line)
    if not match or not finite(match[1]):
        return None
    bracket = BRACKET.match(line, match.end())
    return bracket[1].strip() if bracket else ""


def by_name(metric: str) -> Aggregate | None:
    """The rule for a metric's name, by whole words: rates are summed, memory has its maximum, the rest its mean.

    A rate per something else than time (`tokens_per_second_per_gpu`, `ms/token`) says the same of one rank and of many.
    """
    words = WORD.findall(CAMEL.sub(" ", metric).lower().replace("/", " per "))
    per = {after for before, after in pairwise(words) if before == "per"}
    held = set(words) - per
    if per - PERIODS:
        return "max" if held & MEMORY and not per & PERIODS else "mean"
    if per or held & RATES:
        return "sum"
    if held & AVERAGED:
        return "mean"
    return "max" if held & MEMORY else None


def value(way: Aggregate, texts: Mapping[int, str]) -> str:
    """One number of several ranks' numbers, as printed where it is one of them; '' beyond all bounds."""
    if way == "rank0" or len(texts) == 1:
        return texts[min(texts)]
    if way in OF_ALL:
        return _computed(way, texts.values())
    pick = max if way == "max" else min
    return pick(texts.values(), key=lambda text: (float(text), text))


def _computed(way: Aggregate, texts: Iterable[str]) -> str:
    """Sum or mean without the rounding of each step, so that the order of ranks is nothing to it."""
    parts = [Fraction(repr(float(text))) for text in texts]
    total = sum(parts, start=Fraction(0))
    try:
        number = float(total / len(parts) if way == "mean" else total)
    except OverflowError:
        return ""
    return str(int(number)) if number.is_integer() and abs(number) < EXACT_BELOW else repr(number)


def _error(job: _Ranks) -> str:
    """The first rank's error line, and who else has one."""
    failed = [number for number, rank in job.ranks.items() if rank.error]
    if not failed:
        return ""
    also = f" (also: {job.names(failed[1:])})" if failed[1:] else ""
    return f"{job.names(failed[:1])}: {job.ranks[failed[0]].error}{also}"


def _performances(job: _Ranks) -> Measured:
    """The one value of ranks that each state one or none."""
    said = {number: found for number, rank in job.ranks.items() if (found := _stated(rank))}
    if not said:
        return Measured(unreadable=next((rank.unreadable for rank in job.ranks.values() if rank.unreadable), ""))
    words = {word for number in said if (word := _declared(job.ranks[number]))}
    if 0 in said and _chosen(job, "", words).way == "rank0":
        said = {0: said[0]}
    groups = _by_metric(said)
    choices = {metric: _chosen(job, metric, words) for metric in groups}
    first, *others = [Performance(value(choices[metric].way, groups[metric]), metric) for metric in groups]
    problems = [
        *_disagreement(job, groups),
        *_contradiction(job, words),
        *_silence(job, said, choices[first.metric]),
        *([] if first.value else [f"the {choices[first.metric].way} of {_named(first.metric)} is no finite number"]),
    ]
    notes = [*_word_notes(job, words), *(_note(choices[metric], metric, groups[metric].values()) for metric in groups)]
    return Measured(first, others=tuple(others), problem="; ".join(problems), notes=tuple(filter(None, notes)))


def _stated(rank: Rank) -> Performance | None:
    """The rank's value, whose metric does not hold the word in brackets even where no blank parts them."""
    if rank.performance and (glued := GLUED.fullmatch(rank.performance.metric)):
        return replace(rank.performance, metric=glued[1])
    return rank.performance


def _declared(rank: Rank) -> str:
    glued = GLUED.fullmatch(rank.performance.metric) if rank.performance else None
    return glued[2] if glued else rank.declared


def _by_metric(said: Mapping[int, Performance]) -> dict[str, dict[int, str]]:
    """The values by rank of each metric, in the order of their names."""
    metrics = sorted({found.metric for found in said.values()})
    return {
        metric: {number: found.value for number, found in said.items() if found.metric == metric} for metric in metrics
    }


def _chosen(job: _Ranks, metric: str, words: Iterable[str]) -> _Choice:
    """The card decides, else the lines, else the rule for the metric's name."""
    stated = [way for way in WAYS if way in words]
    if way := job.card or next(iter(stated), None):
        return _Choice(way, stated=True)
    rule = by_name(metric)
    return _Choice(rule or "sum", stated=False, known=rule is not None)


def _disagreement(job: _Ranks, groups: Mapping[str, Mapping[int, str]]) -> list[str]:
    if len(groups) == 1:
        return []
    sides = [f"{_named(metric)} ({job.names(texts)})" for metric, texts in groups.items()]
    return [f"the ranks disagree on the metric: {', '.join(sides)}"]


def _contradiction(job: _Ranks, words: Iterable[str]) -> list[str]:
    ways = [f"[{way}]" for way in WAYS if way in words]
    return [f"the performance lines disagree: {', '.join(ways)}"] if len(ways) > 1 and not job.card else []


def _silence(job: _Ranks, said: Mapping[int, Performance], choice: _Choice) -> list[str]:
    """Ranks whose value is missing although it is wanted, or could not be read."""
    if choice.way == "rank0":
        return (
            [] if 0 in said else [f"{job.names([0])} states no performance (aggregate: rank0); {job.names(said)} does"]
        )
    garbled = {number: rank.unreadable for number, rank in job.ranks.items() if number not in said and rank.unreadable}
    problems = [f"not readable on {job.names([number])}: {text!r}" for number, text in garbled.items()]
    silent = job.others({*said, *garbled})
    if silent and choice.of_all and (choice.stated or len(said) > 1):
        problems.append(f"{silent} states no performance, {job.names(said)} does (aggregate: {choice.way})")
    return problems


def _word_notes(job: _Ranks, words: Iterable[str]) -> Iterator[str]:
    for word in sorted(words):
        if word not in WAYS:
            yield f"[{word}] on a performance line is none of {', '.join(WAYS)}"
        elif job.card and word != job.card:
            yield f"the card's aggregate {job.card} counts, not [{word}] on a performance line"


def _note(choice: _Choice, metric: str, texts: Collection[str]) -> str:
    """What was decided without being asked for; '' where nothing was."""
    if choice.stated or len(texts) == 1:
        return ""
    why = f"by the rule for {metric}" if choice.known else f"as no rule knows {_named(metric)}"
    same = choice.way == "sum" and len({float(text) for text in texts}) == 1
    doubt = f" (each says {min(texts)}: is that of the whole job?)" if same else ""
    return f"{DONE[choice.way].format(len(texts))} {why}{doubt}; state `aggregate` in the card"


def _named(metric: str) -> str:
    return repr(metric) if metric else "a value without metric"


def _tables(job: _Ranks, results: str) -> Measured:
    """The results CSV of the ranks that each wrote one or none."""
    written = {number: rank.table for number, rank in job.ranks.items() if rank.table is not None}
    if job.card == "rank0" and 0 in written:
        return Measured(table=written[0])
    if not written:
        return Measured(table=Table(problem=f"the model wrote no {results} (multiple_results)"))
    if job.card == "rank0":
        problem = f"{job.names([0])} wrote no {results} (aggregate: rank0); {job.names(written)} did"
        return Measured(table=_side_by_side(job, written), problem=problem)
    broken = [f"{job.names([number])}: {table.problem}" for number, table in written.items() if table.problem]
    if broken:
        return Measured(table=_side_by_side(job, written), problem="; ".join(broken))
    return _sound_tables(job, written, results)


def _sound_tables(job: _Ranks, written: Mapping[int, Table], results: str) -> Measured:
    first = next(iter(written.values()))
    if not job.card and all(table == first for table in written.values()):
        once = f"{len(written)} ranks wrote the same {results}, which counts once; state `aggregate` in the card"
        return Measured(table=first, notes=(once,) if len(written) > 1 else ())
    if problem := _other_shapes(job, written, results):
        return Measured(table=_side_by_side(job, written), problem=problem)
    return _merged(job, written, results)


class _Key(NamedTuple):
    """What a row has in common with those of other ranks; rows of one model and metric are counted."""

    model: str
    metric: str
    number: int


def _keyed(table: Table) -> dict[_Key, dict[str, str]]:
    seen = Counter[tuple[str, str]]()
    keyed = {}
    for row in table.rows:
        name = (row["model"], row["metric"])
        keyed[_Key(*name, seen[name])] = row
        seen[name] += 1
    return keyed


def _other_shapes(job: _Ranks, written: Mapping[int, Table], results: str) -> str:
    """Which ranks' files do not have the rows and columns of the first one; '' where all have."""
    shapes = {number: (_keyed(table).keys(), table.rows[0].keys()) for number, table in written.items()}
    first = next(iter(shapes))
    odd = [number for number in shapes if shapes[number] != shapes[first]]
    if not odd:
        return ""
    return f"{results} of {job.names(odd)} has other rows or columns than that of {job.names([first])}"


def _side_by_side(job: _Ranks, written: Mapping[int, Table]) -> Table:
    """All rows of all ranks, each with its node."""
    hosts = job.hosts
    return Table(
        tuple(
            {**row, "machine_name": hosts[number]} if number in hosts else row
            for number, table in written.items()
            for row in table.rows
        )
    )


def _merged(job: _Ranks, written: Mapping[int, Table], results: str) -> Measured:
    """Row by row one value of all ranks'; what else a row says is that of the first rank."""
    keyed = {number: _keyed(table) for number, table in written.items()}
    first = next(iter(keyed.values()))
    texts = {key: {number: rows[key]["performance"] for number, rows in keyed.items()} for key in first}
    choices = {key: _chosen(job, key.metric, ()) for key in first}
    rows = [{**row, "performance": _finite_value(choices[key].way, texts[key])} for key, row in first.items()]
    problems = [*_unwritten(job, written, choices.values(), results), *_holes(job, texts)]
    notes = dict.fromkeys(_note(choices[key], key.metric, _finite(texts[key]).values()) for key in first)
    return Measured(table=Table(tuple(rows)), problem="; ".join(problems), notes=tuple(filter(None, notes)))


def _finite(texts: Mapping[int, str]) -> dict[int, str]:
    return {number: text for number, text in texts.items() if finite(text)}


def _finite_value(way: Aggregate, texts: Mapping[int, str]) -> str:
    good = _finite(texts)
    return value(way, good) if good else ""


def _unwritten(job: _Ranks, written: Mapping[int, Table], choices: Iterable[_Choice], results: str) -> list[str]:
    silent = job.others(written)
    way = next((choice.way for choice in choices if choice.of_all), None)
    return [f"{silent} wrote no {results}, {job.names(written)} did (aggregate: {way})"] if silent and way else []


def _holes(job: _Ranks, texts: Mapping[_Key, Mapping[int, str]]) -> list[str]:
    """The rows in which ranks have no number."""
    holes = {key.model: texts[key].keys() - _finite(texts[key]).keys() for key in texts}
    return [f"no performance in the row {model} of {job.names(ranks)}" for model, ranks in holes.items() if ranks]
