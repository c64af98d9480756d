from __future__ import annotations

from dataclasses import replace

from pytest_madengine.reporting.terminal import FEW, notes, table
from pytest_madengine.results.comparison import Comparison, Judgement
from pytest_madengine.results.metric import Metric
from pytest_madengine.results.perf import FAILURE, PERF_COLUMNS, SKIPPED, SUCCESS
from pytest_madengine.results.result import Result, Row


def result(status: str, *rows: tuple[str, str, str], duration: float = 0, notes: tuple[str, ...] = ()) -> Result:
    made = tuple(
        Row(
            {**dict.fromkeys(PERF_COLUMNS, ""), "model": name, "status": status, "performance": value, "metric": metric}
        )
        for name, value, metric in rows
    )
    return Result("id", "nodeid", rows[0][0], status, made, duration=duration, notes=notes)


def test_numbers_stand_right_and_words_left_aligned() -> None:
    results = [
        result(SUCCESS, ("llama", "12.50", "tok/s"), duration=3661.04),
        result(FAILURE, ("a-long-name", "", ""), duration=1.25),
    ]
    assert [line for line, _ in table(results)] == [
        "model        status   performance  metric  duration",
        "llama        SUCCESS        12.50  tok/s   3661.0 s",
        "a-long-name  FAILURE            -  -          1.2 s",
    ]


def changed(name: str, change: str, judgement: Judgement, image: str = "") -> Result:
    columns = {"model": name, "status": SUCCESS, "performance": "1", "metric": "x", "relative_change": change}
    row = Row({**dict.fromkeys(PERF_COLUMNS, ""), **columns, "docker_image": image})
    known = float(change) if change else None
    comparison = Comparison(Metric(name, "performance", 1.0, "x"), judgement, gates=True, change=known)
    return Result("id", "nodeid", name, SUCCESS, (row,), comparisons=(comparison,))


def test_where_something_was_compared_the_change_stands_beside_the_value() -> None:
    results = [
        changed("llama", "-0.0650", Judgement.REGRESSION),
        changed("gpt", "0.0012", Judgement.PASS),
        changed("bert", "", Judgement.NONE),
        result(SUCCESS, ("other", "1", "x")),
    ]
    assert [line for line, _ in table(results)] == [
        "model  status   performance  metric  change             duration",
        "llama  SUCCESS            1  x       -6.5 % regression     0.0 s",
        "gpt    SUCCESS            1  x       +0.1 %                0.0 s",
        "bert   SUCCESS            1  x       no verdict            0.0 s",
        "other  SUCCESS            1  x                             0.0 s",
    ]


def test_rows_of_two_images_are_told_apart() -> None:
    first, second = changed("m", "", Judgement.PASS, "a:1"), changed("m", "0.0100", Judgement.PASS, "a:2")
    both = replace(second, rows=(*first.rows, *second.rows))
    assert [line.split("  ")[0] for line, _ in table([both])] == ["model", "m in a:1", "m in a:2"]
    assert [line.count("%") for line, _ in table([both])] == [0, 0, 1]


def test_only_successes_are_good() -> None:
    results = [result(status, ("m", "", "")) for status in (SUCCESS, FAILURE, SKIPPED)]
    assert [good for _, good in table(results)] == [True, True, False, False]


def test_every_row_of_a_result_has_a_line() -> None:
    lines = table([result(SUCCESS, ("m_a", "1", "x"), ("m_b", "2", "y"))])
    assert [line.split()[0] for line, _ in lines] == ["model", "m_a", "m_b"]


def test_without_results_there_is_only_the_heading() -> None:
    assert table([]) == [("model  status  performance  metric  duration", True)]


def test_a_note_has_one_line_however_many_models_it_is_of() -> None:
    many = [result(SUCCESS, (f"m{number}", "1", "x"), notes=("summed",)) for number in range(FEW + 2)]
    assert notes([*many, result(SUCCESS, ("other", "1", "x"), notes=("averaged", "summed"))]) == [
        "m0, m1, m2, m3, m4 and 3 more: summed",
        "other: averaged",
    ]
    assert notes(many[:1]) == ["m0: summed"]
    assert notes([result(SUCCESS, ("m", "1", "x"))]) == []
