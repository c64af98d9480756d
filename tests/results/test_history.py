from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_madengine.results.history import History, Key, Value, of_result, of_row, repository
from pytest_madengine.results.metric import Metric
from pytest_madengine.results.perf import PERF_COLUMNS
from pytest_madengine.results.result import Result, Row


def row(**stated: str) -> dict[str, str]:
    known = {"model": "llama", "gpu_architecture": "gfx942", "n_gpus": "8", "nnodes": "1", "launcher": "torchrun"}
    measured = {"performance": "100", "metric": "x", "status": "SUCCESS"}
    return {**dict.fromkeys(PERF_COLUMNS, ""), **known, **measured, **stated}


def value(number: float, run: str = "", **stated: Any) -> Value:
    return Value(Key.of(row(**stated)), "performance", number, "x", run)


class TestKey:
    @pytest.mark.parametrize(
        "stated",
        [
            {"model": "gpt"},
            {"args": "--batch 2"},
            {"gpu_architecture": "gfx90a"},
            {"n_gpus": "4"},
            {"nnodes": "2"},
            {"launcher": "vllm"},
            {"docker_file": "docker/other.Dockerfile"},
            {"docker_image": "rocm/other:1"},
        ],
    )
    def test_what_must_be_equal(self, stated: dict[str, str]) -> None:
        assert Key.of(row(**stated)) != Key.of(row())

    @pytest.mark.parametrize(
        "stated",
        [{"machine_name": "n2"}, {"git_commit": "abc"}, {"build_number": "7"}, {"performance": "3"}, {"tags": "a"}],
    )
    def test_what_may_differ(self, stated: dict[str, str]) -> None:
        assert Key.of(row(**stated)) == Key.of(row())

    def test_the_tag_of_an_image_is_nothing_to_it(self) -> None:
        assert Key.of(row(docker_image="rocm/vllm:1.0")) == Key.of(row(docker_image="rocm/vllm:1.1"))
        built = [row(docker_file="a.Dockerfile", docker_image=f"ci-a:{content}") for content in ("1", "2")]
        assert Key.of(built[0]) == Key.of(built[1])

    @pytest.mark.parametrize(
        ("image", "name"),
        [
            ("vllm", "vllm"),
            ("localhost:5000/vllm", "localhost:5000/vllm"),
            ("localhost:5000/vllm:1", "localhost:5000/vllm"),
            ("a/b@sha256:12", "a/b"),
        ],
    )
    def test_an_images_name(self, image: str, name: str) -> None:
        assert repository(image) == name


class TestHistory:
    def test_the_last_values_of_each_metric_count(self) -> None:
        history = History("here", most=3)
        history.add(value(number) for number in (1, 2, 3, 4))
        history.add([value(9, model="gpt")])
        assert history.past(Key.of(row()), "performance").values == (2, 3, 4)
        assert history.past(Key.of(row(model="gpt")), "performance").values == (9,)

    def test_a_run_counts_once_with_its_last_try(self) -> None:
        history = History("here", most=3)
        history.add([value(1, "a"), value(2, "b"), value(3, "b")])
        assert history.past(Key.of(row()), "performance").values == (1, 3)

    def test_values_of_another_unit_than_the_last_are_left_out(self) -> None:
        history = History("here", most=9)
        history.add([value(1), replace(value(2), unit="y"), value(3)])
        past = history.past(Key.of(row()), "performance")
        assert (past.values, past.unit) == ((1, 3), "x")

    def test_of_a_model_that_is_unknown(self) -> None:
        assert History("here", most=3).past(Key.of(row()), "performance").problem == "no value of llama in here"

    def test_of_a_model_that_ran_otherwise(self) -> None:
        history = History("here", most=3)
        history.add([value(1, n_gpus="4"), value(1, n_gpus="4", launcher="vllm", nnodes="2")])
        problem = history.past(Key.of(row()), "performance").problem
        assert problem == "no comparable value of llama in here: it has n_gpus 4, not 8"


@pytest.mark.parametrize("stated", [{"status": "FAILURE"}, {"performance": ""}, {"performance": "nan"}])
def test_rows_that_did_not_succeed_are_no_history(stated: dict[str, str]) -> None:
    assert list(of_row(row(**stated))) == []


def test_a_row_of_perf_csv_has_one_value() -> None:
    assert list(of_row(row())) == [value(100)]


def test_a_result_has_all_its_metrics_and_a_failed_row_has_none() -> None:
    rows = (Row(row()), Row(row(model="bad", status="FAILURE")))
    metrics = (
        Metric("llama", "performance", 100.0, "x"),
        Metric("bad", "performance", 1.0),
        Metric("llama", "ttft", 2.0),
    )
    result = Result("id", "n", "llama", "FAILURE", rows, run="r1", metrics=metrics)
    key = Key.of(row())
    assert list(of_result(result)) == [Value(key, "performance", 100.0, "x", "r1"), Value(key, "ttft", 2.0, "", "r1")]


def test_a_result_without_metrics_has_what_its_rows_say() -> None:
    result = Result("id", "n", "llama", "SUCCESS", (Row(row()),), run="r1")
    assert list(of_result(result)) == [value(100, "r1")]
