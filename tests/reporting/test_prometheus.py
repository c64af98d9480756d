from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from pytest_madengine.reporting.prometheus import Textfile
from pytest_madengine.results.perf import FAILURE
from pytest_madengine.results.result import Result
from tests.reporting.told import EVIL, of_a_run, result

Series = dict[frozenset[tuple[str, str]], float]
RUN = {"run": "20260314-a", "target": "slurm"}


def written(folder: Path, results: list[Result], exit_status: int = 0) -> dict[str, Series]:
    """The values by metric and labels, as Prometheus' own parser reads them."""
    path = folder / "madengine.prom"
    Textfile(path, RUN, clock=lambda: 1234.5).conclude(results, exit_status)
    assert [each.name for each in folder.iterdir()] == ["madengine.prom"]
    families = text_string_to_metric_families(path.read_text(encoding="utf-8"))
    found: dict[str, Series] = {}
    for sample in (sample for family in families for sample in family.samples):
        found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return found


def having(series: Series, **labels: str) -> list[float]:
    return [value for known, value in series.items() if labels.items() <= dict(known).items()]


def test_each_model_has_its_status_duration_and_tries(tmp_path: Path) -> None:
    found = written(tmp_path, of_a_run())
    assert having(found["madengine_model_status"], model="bad", status="FAILURE", failure="model", arch="gfx942") == [1]
    assert having(found["madengine_model_status"], model="flaky") == [1]
    assert having(found["madengine_model_duration_seconds"], model="quick", gpus="8") == [12.5]
    assert having(found["madengine_model_attempts"], model="flaky") == [2]
    assert len(found["madengine_model_status"]) == 7


def test_values_have_row_metric_and_unit(tmp_path: Path) -> None:
    measured = written(tmp_path, of_a_run())["madengine_measured_value"]
    assert having(measured, model="quick", row="quick", metric="performance", unit="tokens/s") == [12.5]
    assert having(measured, model="multi", row="multi_b", unit="y") == [2]
    assert having(measured, model="slow", metric="ttft", unit="ms") == [3.25]
    assert having(measured, model="bad") == []


def test_changes_and_verdicts(tmp_path: Path) -> None:
    found = written(tmp_path, of_a_run())
    assert having(found["madengine_change_ratio"], model="slow", metric="performance") == [-0.061]
    assert having(found["madengine_verdict"], model="slow", verdict="regression") == [1]
    assert having(found["madengine_verdict"], model="quick", verdict="pass") == [1]


def test_the_run_itself(tmp_path: Path) -> None:
    found = written(tmp_path, [], 1)
    assert found["madengine_run_info"] == {frozenset(RUN.items()): 1}
    assert found["madengine_run_exit_status"] == {frozenset(): 1}
    assert found["madengine_run_ended_timestamp_seconds"] == {frozenset(): 1234.5}


def test_no_series_is_the_runs_own_besides_its_description(tmp_path: Path) -> None:
    for name, series in written(tmp_path, of_a_run()).items():
        runs = [labels for labels in series if "run" in dict(labels)]
        assert not runs or name == "madengine_run_info"


def test_any_name_is_a_label(tmp_path: Path) -> None:
    name = EVIL + '"\n\\n'
    status = written(tmp_path, [result(name, FAILURE)])["madengine_model_status"]
    assert having(status, model=name) == [1]


def test_the_file_of_an_earlier_run_is_replaced(tmp_path: Path) -> None:
    written(tmp_path, of_a_run())
    assert len(written(tmp_path, [result("other")])["madengine_model_status"]) == 1
