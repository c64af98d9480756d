from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_madengine.models.model import Aggregate
from pytest_madengine.results.aggregate import WAYS, Rank, by_name, combine, declared, value
from pytest_madengine.results.judge import Measured
from pytest_madengine.results.multiple import Table
from pytest_madengine.results.performance import Finder, Performance, finite

TOKENS = "tokens_per_second"


def said(text: str, metric: str = TOKENS, **more: Any) -> Rank:
    return Rank(performance=Performance(text, metric), **more)


def job(*ranks: Rank, card: Aggregate | None = None, results: str = "") -> Measured:
    return combine(dict(enumerate(ranks)), card, results)


def table(*rows: tuple[str, str, str], **more: str) -> Rank:
    return Rank(table=Table(tuple({"model": name, "performance": text, "metric": m, **more} for name, text, m in rows)))


def cells(measured: Measured) -> list[tuple[str, str, str]]:
    assert measured.table
    return [(row["model"], row["performance"], row["metric"]) for row in measured.table.rows]


@pytest.mark.parametrize(
    ("metric", "way"),
    [
        ("tokens_per_second", "sum"),
        ("samples_per_seconds", "sum"),
        ("images_per_second", "sum"),
        ("requests_per_second", "sum"),
        ("ops_per_second", "sum"),
        ("samples/sec", "sum"),
        ("tokens/s", "sum"),
        ("GB/s", "sum"),
        ("MiB/s", "sum"),
        ("bytes_per_second", "sum"),
        ("programs/hour", "sum"),
        ("tokensPerSec", "sum"),
        ("memory_bandwidth", "sum"),
        ("throughput", "sum"),
        ("QPS", "sum"),
        ("TFLOPS", "sum"),
        ("tflops_fp16", "sum"),
        ("TFLOPs/s", "sum"),
        ("latency", "mean"),
        ("p99_latency_ms", "mean"),
        ("step time (s)", "mean"),
        ("ms", "mean"),
        ("µs", "mean"),
        ("milliseconds", "mean"),
        ("ttft", "mean"),
        ("TPOT", "mean"),
        ("f1", "mean"),
        ("train_loss", "mean"),
        ("perplexity", "mean"),
        ("%", "mean"),
        ("tokens_per_second_per_gpu", "mean"),
        ("tokens/s/GPU", "mean"),
        ("TFLOP/s/GPU", "mean"),
        ("GB/s/gpu", "mean"),
        ("ms_per_token", "mean"),
        ("msPerToken", "mean"),
        ("s/it", "mean"),
        ("peak_memory", "max"),
        ("peak-memory-GB", "max"),
        ("GiB", "max"),
        ("vram_mb", "max"),
        ("GB/gpu", "max"),
        ("programs", None),
        ("diagrams", None),
        ("timeouts", None),
        ("closs", None),
        ("megabits", None),
        ("tokens", None),
        ("per", None),
        ("/", None),
        ("", None),
    ],
)
def test_a_metrics_name_tells_by_its_whole_words(metric: str, way: Aggregate | None) -> None:
    assert by_name(metric) == way


@settings(deadline=None, max_examples=60)
@given(st.text())
def test_any_name_has_a_rule_or_none(metric: str) -> None:
    assert by_name(metric) in (*WAYS, None)


@pytest.mark.parametrize(
    ("way", "texts", "result"),
    [
        ("sum", ["0.1", "0.2"], "0.3"),
        ("sum", ["10", "20.0"], "30"),
        ("sum", ["-1", "1"], "0"),
        ("sum", ["1e20", "1", "-1e20"], "1"),
        ("sum", ["1e15", "1"], "1000000000000001.0"),
        ("sum", ["1e308", "1e308"], ""),
        ("sum", ["12.50"], "12.50"),
        ("mean", ["1", "2"], "1.5"),
        ("mean", ["1e308", "1e308"], "1e+308"),
        ("max", ["9", "10.50"], "10.50"),
        ("min", ["9.0", "10"], "9.0"),
        ("rank0", ["9.0", "10"], "9.0"),
    ],
)
def test_several_numbers_become_one(way: Aggregate, texts: list[str], result: str) -> None:
    assert value(way, dict(enumerate(texts))) == result


numbers = st.one_of(
    st.integers(-(10**6), 10**6).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(str),
    st.sampled_from(["1.", ".5", "+7", "1e-999999999999", "0e99999999999999999999", f"0.{'1' * 5000}", "007", "-0"]),
)


@settings(deadline=None, max_examples=100)
@given(st.lists(numbers, min_size=1, max_size=6), st.sampled_from(["sum", "mean", "max", "min"]), st.randoms())
def test_the_order_of_ranks_is_nothing_to_a_value(texts: list[str], way: Aggregate, random: Any) -> None:
    shuffled = random.sample(texts, len(texts))
    result = value(way, dict(enumerate(texts)))
    assert result == value(way, dict(enumerate(shuffled)))
    assert finite(result) or (way, result) == ("sum", "")


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(-1e9, 1e9).map(str), min_size=2, max_size=6))
def test_every_value_lies_where_it_must(texts: list[str]) -> None:
    given_texts = dict(enumerate(texts))
    least, mean, most = (float(value(way, given_texts)) for way in ("min", "mean", "max"))
    assert least <= mean <= most
    assert math.isclose(float(value("sum", given_texts)), math.fsum(map(float, texts)), rel_tol=1e-9, abs_tol=1e-5)


@settings(deadline=None, max_examples=50)
@given(st.integers(-(10**9), 10**9), st.integers(2, 64))
def test_equal_parts_sum_to_their_multiple_and_are_their_own_mean(part: int, count: int) -> None:
    texts = dict.fromkeys(range(count), str(part))
    assert value("sum", texts) == str(part * count)
    assert {value(way, texts) for way in ("mean", "max", "min", "rank0")} == {str(part)}


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.builds(
            Rank,
            performance=st.none() | st.builds(Performance, numbers, st.sampled_from(["tok/s", "ms", "x", "x[mean]"])),
            unreadable=st.sampled_from(["", "performance: nan"]),
            declared=st.sampled_from(["", "sum", "mean", "odd"]),
        ),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([None, "sum", "mean", "max", "min"]),
    st.randoms(),
)
def test_the_order_of_ranks_is_nothing_to_the_measurement(
    ranks: list[Rank], card: Aggregate | None, random: Any
) -> None:
    one, other = job(*ranks, card=card), job(*random.sample(ranks, len(ranks)), card=card)
    assert (one.performance, one.others, one.notes) == (other.performance, other.others, other.notes)
    assert bool(one.problem) == bool(other.problem)
    stated = {rank.performance.metric.removesuffix("[mean]") for rank in ranks if rank.performance}
    assert {found.metric for found in (one.performance, *one.others) if found} == stated


@pytest.mark.parametrize(
    ("card", "result"), [("sum", "60"), ("mean", "20"), ("max", "30.0"), ("min", "10"), ("rank0", "20")]
)
def test_the_card_says_how_values_become_one(card: Aggregate, result: str) -> None:
    measured = job(said("20"), said("10"), said("30.0"), card=card)
    assert (measured.performance, measured.problem, measured.notes) == (Performance(result, TOKENS), "", ())


@pytest.mark.parametrize(
    "ranks",
    [
        [said("20", declared="mean"), said("10", declared="mean")],
        [said("20", declared="mean"), said("10")],
        [said("20", f"{TOKENS}[mean]"), said("10", f"{TOKENS}[mean]")],
        [said("20", f"{TOKENS}[mean]"), said("10", declared="mean")],
    ],
)
def test_a_performance_line_says_it_too(ranks: list[Rank]) -> None:
    measured = job(*ranks)
    assert (measured.performance, measured.problem, measured.notes) == (Performance("15", TOKENS), "", ())


def test_the_card_wins_over_the_line_and_that_is_told() -> None:
    measured = job(said("20", declared="mean"), said("10", declared="max"), card="sum")
    assert (measured.performance, measured.problem) == (Performance("30", TOKENS), "")
    assert measured.notes == (
        "the card's aggregate sum counts, not [max] on a performance line",
        "the card's aggregate sum counts, not [mean] on a performance line",
    )


def test_lines_that_say_different_ways_are_a_problem() -> None:
    measured = job(said("20", declared="mean"), said("10", declared="sum"))
    assert measured.problem == "the performance lines disagree: [sum], [mean]"
    assert measured.performance


def test_a_word_that_is_no_way_is_told_and_the_rule_counts() -> None:
    measured = job(said("20", declared="avg"), said("10"))
    assert (measured.performance, measured.problem) == (Performance("30", TOKENS), "")
    assert measured.notes[0] == "[avg] on a performance line is none of sum, mean, max, min, rank0"


@pytest.mark.parametrize(
    ("metric", "result", "note"),
    [
        (TOKENS, "30", f"2 ranks summed by the rule for {TOKENS}; state `aggregate` in the card"),
        ("ms", "15", "2 ranks averaged by the rule for ms; state `aggregate` in the card"),
        ("GB", "20", "the largest of 2 ranks taken by the rule for GB; state `aggregate` in the card"),
        ("foo", "30", "2 ranks summed as no rule knows 'foo'; state `aggregate` in the card"),
        ("", "30", "2 ranks summed as no rule knows a value without metric; state `aggregate` in the card"),
    ],
)
def test_what_only_the_rule_decided_is_told(metric: str, result: str, note: str) -> None:
    measured = job(said("20", metric), said("10", metric))
    assert (measured.performance, measured.notes) == (Performance(result, metric), (note,))


def test_one_value_that_every_rank_prints_is_summed_with_a_doubt() -> None:
    measured = job(said("1234.5"), said("1234.5"))
    assert measured.performance == Performance("2469", TOKENS)
    assert "(each says 1234.5: is that of the whole job?)" in measured.notes[0]


@pytest.mark.parametrize("ranks", [[said("12.50"), Rank(), Rank()], [Rank(), Rank(), said("12.50")]])
@pytest.mark.parametrize("card", [None, "max", "min"])
def test_the_only_rank_that_states_a_value_speaks_for_the_job(ranks: list[Rank], card: Aggregate | None) -> None:
    measured = job(*ranks, card=card)
    assert (measured.performance, measured.problem, measured.notes) == (Performance("12.50", TOKENS), "", ())


@pytest.mark.parametrize(
    ("ranks", "card", "value_so_far", "problem"),
    [
        ([said("1"), Rank(host="n2")], "sum", "1", "rank 1 on n2 states no performance, rank 0 does (aggregate: sum)"),
        ([Rank(), said("1")], "mean", "1", "rank 0 states no performance, rank 1 does (aggregate: mean)"),
        ([said("1", declared="sum"), Rank()], None, "1", "rank 1 states no performance, rank 0 does (aggregate: sum)"),
        (
            [said("1"), Rank(host="n2"), said("3"), Rank()],
            None,
            "4",
            "rank 1 on n2, 3 states no performance, rank 0, 2 does (aggregate: sum)",
        ),
        ([Rank(), said("5")], "rank0", "5", "rank 0 states no performance (aggregate: rank0); rank 1 does"),
    ],
)
def test_a_silent_rank_whose_value_is_wanted_is_a_problem(
    ranks: list[Rank], card: Aggregate | None, value_so_far: str, problem: str
) -> None:
    measured = job(*ranks, card=card)
    assert measured.problem == problem
    assert measured.performance == Performance(value_so_far, TOKENS)


def test_a_silent_rank_is_nothing_to_a_maximum() -> None:
    measured = job(said("1", "GB"), Rank(), said("3", "GB"))
    assert (measured.performance, measured.problem) == (Performance("3", "GB"), "")


@pytest.mark.parametrize("card", [None, "sum", "max"])
def test_a_rank_whose_value_is_no_number_is_a_problem(card: Aggregate | None) -> None:
    measured = job(said("1"), Rank("n2", unreadable="performance: nan"), card=card)
    assert measured.problem == "not readable on rank 1 on n2: 'performance: nan'"
    assert measured.performance == Performance("1", TOKENS)
    assert job(said("1"), Rank(unreadable="performance: nan"), card="rank0").problem == ""


def test_ranks_that_name_different_metrics_are_a_problem_and_every_value_is_kept() -> None:
    measured = job(said("1"), said("7", "ms"), said("3"), said("5", "", host="n4"))
    sides = f"a value without metric (rank 3 on n4), 'ms' (rank 1), '{TOKENS}' (rank 0, 2)"
    assert measured.problem == f"the ranks disagree on the metric: {sides}"
    found = [measured.performance, *measured.others]
    assert found == [Performance("5", ""), Performance("7", "ms"), Performance("4", TOKENS)]


def test_where_rank_0_alone_counts_nobody_can_disagree() -> None:
    measured = job(said("1"), said("7", "ms"), card="rank0")
    assert (measured.performance, measured.others, measured.problem) == (Performance("1", TOKENS), (), "")


def test_ranks_that_state_nothing_state_nothing_together() -> None:
    measured = job(Rank(), Rank(unreadable="performance: bad"))
    assert (measured.performance, measured.unreadable, measured.problem) == (None, "performance: bad", "")


def test_a_sum_beyond_all_bounds_is_a_problem() -> None:
    measured = job(said("1e308"), said("1e308"))
    assert measured.problem == f"the sum of '{TOKENS}' is no finite number"
    assert measured.performance == Performance("", TOKENS)


def test_an_error_names_its_rank_and_the_others_that_have_one() -> None:
    ranks = [said("1"), said("1", error="'FAILED'", host="n2"), said("1", error="'x'"), said("1", error="'y'")]
    assert job(*ranks).error == "rank 1 on n2: 'FAILED' (also: rank 2, 3)"
    assert job(*ranks[:2]).error == "rank 1 on n2: 'FAILED'"
    assert job(*ranks).hosts == {1: "n2"}


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("performance: 12.5 tokens_per_second [sum]", "sum"),
        ("performance: 12.5 tokens_per_second, [rank0] done", "rank0"),
        ("x performance: bad performance: 6 x\t[mean]", "mean"),
        ("\x1b[1mperformance:\x1b[0m 6 x \x1b[2m[max]\x1b[0m", "max"),
        ("performance: 12.5/s, tokens [per gpu]", "per gpu"),
        ("performance: 6 x", ""),
        ("performance: 6", ""),
        ("performance: 6 x of [sum]", ""),
        ("performance: 6 x []", ""),
        ("performance: nan x [sum]", None),
        ("performance: 1e999 x [sum]", None),
        ("my_performance: 6 x [sum]", None),
        ("", None),
    ],
)
def test_the_word_behind_a_stated_performance(line: str, word: str | None) -> None:
    assert declared(line) == word


@settings(deadline=None, max_examples=60)
@given(st.text(), st.sampled_from(["", " [sum]", " x [sum]"]))
def test_a_line_has_a_word_or_none_where_it_states_a_performance(text: str, end: str) -> None:
    finder = Finder()
    finder.feed(line := f"performance: {text}{end}")
    assert (declared(line) is not None) == bool(finder.found and finder.found.metric != "samples_per_second")


RESULTS = "r.csv"


def test_no_ranks_results_file_is_the_models_fault() -> None:
    measured = job(Rank(), Rank(), results=RESULTS)
    assert measured.table == Table(problem="the model wrote no r.csv (multiple_results)")


@pytest.mark.parametrize("card", [None, "max"])
def test_the_only_results_file_is_the_jobs(card: Aggregate | None) -> None:
    one = table(("a", "1.50", "ms"), batch="8")
    for ranks in ([one, Rank()], [Rank(), one]):
        measured = job(*ranks, card=card, results=RESULTS)
        assert (measured.table, measured.problem, measured.notes) == (one.table, "", ())


def test_a_results_file_that_every_rank_has_counts_once_unless_the_card_says_more() -> None:
    ranks = [table(("a", "1.50", TOKENS))] * 3
    measured = job(*ranks, results=RESULTS)
    assert (cells(measured), measured.problem) == ([("a", "1.50", TOKENS)], "")
    assert measured.notes == ("3 ranks wrote the same r.csv, which counts once; state `aggregate` in the card",)
    assert cells(job(*ranks, card="sum", results=RESULTS)) == [("a", "4.5", TOKENS)]


def test_different_results_files_become_one_row_by_row() -> None:
    ranks = [
        table(("a", "1", TOKENS), ("a", "10", "ms"), ("b", "4", TOKENS), node="n1"),
        table(("b", "6", TOKENS), ("a", "20", "ms"), ("a", "2", TOKENS), node="n2"),
    ]
    measured = job(*ranks, results=RESULTS)
    assert cells(measured) == [("a", "3", TOKENS), ("a", "15", "ms"), ("b", "10", TOKENS)]
    assert measured.table
    assert {row["node"] for row in measured.table.rows} == {"n1"}
    assert measured.problem == ""
    assert measured.notes == (
        f"2 ranks summed by the rule for {TOKENS}; state `aggregate` in the card",
        "2 ranks averaged by the rule for ms; state `aggregate` in the card",
    )
    assert cells(job(*ranks, card="min", results=RESULTS))[1] == ("a", "10", "ms")
    assert job(*ranks, card="rank0", results=RESULTS).table == ranks[0].table


def test_rows_of_one_name_are_told_apart_by_their_place() -> None:
    ranks = [table(("a", "1", "x"), ("a", "5", "x")), table(("a", "2", "x"), ("a", "6", "x"))]
    assert cells(job(*ranks, card="sum", results=RESULTS)) == [("a", "3", "x"), ("a", "11", "x")]


@pytest.mark.parametrize(
    "other",
    [
        table(("a", "2", "x")),
        table(("a", "2", "x"), ("c", "2", "x")),
        table(("a", "2", "x"), ("b", "2", "y")),
        table(("a", "2", "x"), ("b", "2", "x"), batch="8"),
        table(("a", "2", "x"), ("b", "2", "x"), ("b", "2", "x")),
    ],
)
def test_results_files_of_different_shape_are_a_problem_and_every_row_is_kept(other: Rank) -> None:
    first = table(("a", "1", "x"), ("b", "1", "x"))
    measured = job(first, replace(other, host="n2"), results=RESULTS)
    assert measured.problem == "r.csv of rank 1 on n2 has other rows or columns than that of rank 0"
    assert measured.table
    assert other.table
    assert first.table
    assert measured.table.rows == (*first.table.rows, *({**row, "machine_name": "n2"} for row in other.table.rows))


def test_a_rank_without_results_file_is_missed_where_all_are_wanted() -> None:
    one, two = table(("a", "1", TOKENS)), table(("a", "2", TOKENS))
    measured = job(one, Rank(host="n2"), two, results=RESULTS)
    assert measured.problem == "rank 1 on n2 wrote no r.csv, rank 0, 2 did (aggregate: sum)"
    assert cells(measured) == [("a", "3", TOKENS)]
    assert job(one, Rank(), card="mean", results=RESULTS).problem
    assert job(one, Rank(), two, card="max", results=RESULTS).problem == ""


def test_rank_0_owes_the_results_file_that_alone_counts() -> None:
    measured = job(Rank(), table(("a", "1", "x")), card="rank0", results=RESULTS)
    assert measured.problem == "rank 0 wrote no r.csv (aggregate: rank0); rank 1 did"
    assert cells(measured) == [("a", "1", "x")]


def test_a_results_file_that_cannot_be_used_is_a_problem_beside_good_ones() -> None:
    ranks = [table(("a", "1", "x")), Rank(table=Table(problem="r.csv is empty"))]
    measured = job(*ranks, results=RESULTS)
    assert (measured.problem, cells(measured)) == ("rank 1: r.csv is empty", [("a", "1", "x")])
    assert job(*ranks, card="rank0", results=RESULTS).problem == ""
    broken = job(ranks[1], results=RESULTS)
    assert (broken.problem, cells(broken)) == ("rank 0: r.csv is empty", [])


def test_a_row_in_which_one_rank_has_no_number_names_it_and_keeps_the_others() -> None:
    ranks = [table(("a", "1", "x"), ("b", "1", "x")), table(("a", "nan", "x"), ("b", "2", "x")), Rank()]
    measured = job(*ranks[:2], card="sum", results=RESULTS)
    assert measured.problem == "no performance in the row a of rank 1"
    assert cells(measured) == [("a", "1", "x"), ("b", "3", "x")]


rows = st.lists(st.tuples(st.sampled_from("ab"), numbers, st.sampled_from(["tok/s", "ms"])), min_size=1, max_size=3)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.just(Rank()) | rows.map(lambda rows: table(*rows)), min_size=1, max_size=4), st.randoms())
def test_the_order_of_ranks_is_nothing_to_results_files(ranks: list[Rank], random: Any) -> None:
    one, other = job(*ranks, results=RESULTS), job(*random.sample(ranks, len(ranks)), results=RESULTS)
    assert one.table
    assert other.table
    assert sorted(map(repr, cells(one))) == sorted(map(repr, cells(other)))
    assert (bool(one.problem), sorted(one.notes)) == (bool(other.problem), sorted(other.notes))
