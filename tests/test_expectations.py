"""Models beside what was to be expected of them, seen from pytest's side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import scipy.special  # noqa: F401  # pytester forgets what an inner run imports, and numpy can be imported but once

from pytest_madengine.engine.rundir import RECORD
from pytest_madengine.results.comparison import Judgement
from pytest_madengine.results.perf import PERF_COLUMNS
from pytest_madengine.results.result import Result
from tests.cards import card, project, rows

HOST = ("--madengine-tags=all", "--target=host")
SAYS_1150 = 'echo "performance: 1150 samples/s"\n'
HEADER = ",".join(PERF_COLUMNS)


def expecting(value: float, **more: Any) -> dict[str, Any]:
    return {"*": {"performance": {"value": value, **more}}}


def earlier(path: Path, values: list[float], **columns: str) -> Path:
    """A perf.csv of earlier runs of `llama` on this host."""
    known = {"model": "llama", "n_gpus": "0", "nnodes": "1", "launcher": "host", "metric": "samples/s", **columns}
    lines = [
        ",".join({**dict.fromkeys(PERF_COLUMNS, ""), **known, "performance": str(value), "status": "SUCCESS"}.values())
        for value in values
    ]
    path.write_text("\n".join([HEADER, *lines, ""]))
    return path


def recorded(folder: Path) -> Result:
    return Result.from_json((folder / ".madengine/runs/latest" / RECORD).read_text().splitlines()[-1])


class TestReferencesOfCards:
    def test_a_regression_fails_the_model_with_the_place_of_its_reference(self, pytester: pytest.Pytester) -> None:
        project(pytester.path, card("ok"), card("llama", references=expecting(1230, lower=-0.05)), script=SAYS_1150)
        result = pytester.runpytest(*HOST, "--junitxml=junit.xml")
        result.assert_outcomes(passed=1, failed=1)
        words = "performance 1150 samples/s is 6.5 % below 1230 (models.json:9 references.*, allowed 5 %)"
        result.stdout.fnmatch_lines([f"llama: {words.replace('*', '[*]')}", "llama *SUCCESS *1150 *-6.5 % regression*"])
        assert f'message="Failed: llama: {words}' in (pytester.path / "junit.xml").read_text()
        last = rows(pytester.path / "perf.csv")[-1]
        assert (last["status"], last["relative_change"]) == ("SUCCESS", "-0.0650")

    def test_the_comparison_stands_in_the_record(self, pytester: pytest.Pytester) -> None:
        project(pytester.path, card("llama", references=expecting(1230)), script=SAYS_1150)
        pytester.runpytest(*HOST)
        (comparison,) = recorded(pytester.path).comparisons
        assert comparison.judgement is Judgement.REGRESSION
        assert (comparison.reference, comparison.gates) == (1230, True)
        assert comparison.change == pytest.approx(-0.065, abs=1e-4)

    def test_what_is_near_passes(self, pytester: pytest.Pytester) -> None:
        project(pytester.path, card("llama", references=expecting(1160)), script=SAYS_1150)
        result = pytester.runpytest(*HOST)
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines(["llama *-0.9 % *"])
        result.stdout.no_fnmatch_line("note: *")

    def test_without_references_nothing_changes(self, pytester: pytest.Pytester) -> None:
        project(pytester.path, card("llama"), script=SAYS_1150)
        result = pytester.runpytest(*HOST)
        result.stdout.no_fnmatch_line("model *change*")
        assert rows(pytester.path / "perf.csv")[0]["relative_change"] == ""

    def test_a_test_that_asks_for_the_model_fails_too(self, pytester: pytest.Pytester) -> None:
        project(pytester.path, card("llama", references=expecting(1230)), script=SAYS_1150)
        pytester.makepyfile("import pytest\n@pytest.mark.madengine('llama')\ndef test_it(result): pass\n")
        pytester.runpytest("--target=host").assert_outcomes(failed=1)

    def test_what_is_wrong_is_met_before_a_marked_test_runs_its_model(self, pytester: pytest.Pytester) -> None:
        project(pytester.path, card("llama"), script=f"touch $MADENGINE_PROJECT/ran\n{SAYS_1150}")
        pytester.makepyfile("import pytest\n@pytest.mark.madengine('llama')\ndef test_it(result): pass\n")
        result = pytester.runpytest("--target=host", "--madengine-references=nowhere.json")
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(["*nowhere.json: cannot be read*"])
        assert not (pytester.path / "ran").exists()

    def test_rows_have_their_own_and_watched_metrics_are_noted(self, pytester: pytest.Pytester) -> None:
        script = 'printf "model,performance,metric,ttft\\nb1,10,x,5\\nb2,20,x,9\\n" >r.csv\n'
        references = {"*": {"b1/performance": {"value": 10}, "b2/performance": {"value": 30}, "b2/ttft": {"value": 5}}}
        project(pytester.path, card("llama", multiple_results="r.csv", references=references), script=script)
        result = pytester.runpytest(*HOST)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(
            [
                "llama: performance 20 x is 33.3 % below 30 *",
                "llama_b1 *+0.0 %*",
                "llama_b2 *-33.3 % regression*",
                "note: llama: ttft 9 is 80 % above 5 *",
            ]
        )

    def test_a_reference_that_names_nothing_is_no_pass(self, pytester: pytest.Pytester) -> None:
        references = {"*": {"performnce": {"value": 10, "gate": True}}}
        project(pytester.path, card("llama", references=references), script=SAYS_1150)
        result = pytester.runpytest(*HOST)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(
            ["llama: no verdict on performnce: it was not measured; did you mean 'performance'?*"]
        )

    def test_another_unit_has_no_verdict_and_the_user_may_let_it_pass(self, pytester: pytest.Pytester) -> None:
        project(pytester.path, card("llama", references=expecting(1150, unit="tokens/s")), script=SAYS_1150)
        result = pytester.runpytest(*HOST)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(
            ["*other unit: samples/s here, tokens/s in *(--madengine-gate=regressions lets it pass)"]
        )
        again = pytester.runpytest(*HOST, "--madengine-gate=regressions")
        again.assert_outcomes(passed=1)
        again.stdout.fnmatch_lines(["llama *no verdict*", "note: llama: no verdict on performance: other unit*"])

    def test_to_watch_fails_nothing(self, pytester: pytest.Pytester) -> None:
        project(pytester.path, card("llama", references=expecting(1230)), script=SAYS_1150)
        result = pytester.runpytest(*HOST, "--madengine-gate=watch")
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines(["llama *-6.5 % regression*", "note: llama: performance 1150 *"])

    def test_a_model_that_fails_has_its_own_reason(self, pytester: pytest.Pytester) -> None:
        project(pytester.path, card("llama", references=expecting(1230)), script="exit 3\n")
        result = pytester.runpytest(*HOST)
        result.stdout.fnmatch_lines(["llama: exit code 3"])
        result.stdout.no_fnmatch_line("note: *")

    def test_a_regression_on_an_xdist_worker(self, pytester: pytest.Pytester) -> None:
        project(pytester.path, card("llama", references=expecting(1230)), script=SAYS_1150)
        result = pytester.runpytest_subprocess(*HOST, "-n1", "-p", "no:cacheprovider")
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["llama *-6.5 % regression*"])

    def test_what_is_wrong_with_them_is_said_once_with_place_and_valid_values(self, pytester: pytest.Pytester) -> None:
        references = {"gfx942": {"performance": {"value": 0, "lower": 5, "uper": 1}}}
        project(pytester.path, card("llama", references=references))
        result = pytester.runpytest(*HOST)
        assert result.ret != pytest.ExitCode.OK
        result.stdout.fnmatch_lines(
            [
                "*models.json:*: *references.gfx942.performance.value (llama): found 0; valid: a finite number other*",
                "*models.json:*: *references.gfx942.performance.lower (llama): found 5; valid: a part of the value*",
                "*models.json:*: *references.gfx942.performance.uper (llama): unknown key 'uper'; valid: direction, *"
                "did you mean 'upper'?",
            ]
        )


class TestReferencesFile:
    @pytest.mark.parametrize("name", ["references.json", "references.yaml"])
    def test_it_wins_over_the_card(self, pytester: pytest.Pytester, name: str) -> None:
        project(pytester.path, card("llama", references=expecting(1150)), script=SAYS_1150)
        (pytester.path / name).write_text(json.dumps({"llama": expecting(1230)}, indent=1))
        result = pytester.runpytest(*HOST, f"--madengine-references={name}")
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines([f"*6.5 % below 1230 ({name}:2 llama.[*], allowed 5 %)"])

    def test_all_that_is_wrong_in_it_is_a_usage_error(self, pytester: pytest.Pytester) -> None:
        project(pytester.path, card("llama"), script=SAYS_1150)
        text = "llama:\n  gfx942:\n    performance:\n      valu: 3\n      lower: 7\ngpt: 5\n"
        (pytester.path / "r.yaml").write_text(text)
        result = pytester.runpytest(*HOST, "--madengine-references=r.yaml")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines(
            [
                "*r.yaml:5: llama.gfx942.performance.lower: found 7; valid: a part of the value from -1 to 0*",
                "*r.yaml:4: llama.gfx942.performance.valu: unknown key 'valu'; valid: *did you mean 'value'?",
                "*r.yaml:6: gpt: found 5; valid: an object",
            ]
        )
        assert not (pytester.path / "perf.csv").exists()

    def test_a_name_that_is_nearly_a_models_is_warned_of(self, pytester: pytest.Pytester) -> None:
        project(pytester.path, card("llama"), script=SAYS_1150)
        (pytester.path / "r.json").write_text(json.dumps({"lama": expecting(1), "another_projects": expecting(2)}))
        result = pytester.runpytest(*HOST, "--madengine-references=r.json", "-W", "default")
        result.stdout.fnmatch_lines(["*r.json: references of 'lama', which is no model; did you mean 'llama'?*"])
        result.stdout.no_fnmatch_line("*another_projects*")


class TestEarlierRuns:
    STEADY = tuple(1150.0 + step for step in range(-10, 10))

    def test_of_a_perf_csv(self, pytester: pytest.Pytester) -> None:
        project(pytester.path, card("llama"), script=SAYS_1150)
        earlier(pytester.path / "old.csv", [*(value * 1.07 for value in self.STEADY)])
        result = pytester.runpytest(*HOST, "--madengine-baseline=old.csv")
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["*6.5 % below 1229.97 (the last 20 runs in old.csv, changes beyond 2 % count)"])

    def test_of_the_file_that_the_run_writes_those_before_it_count(self, pytester: pytest.Pytester) -> None:
        project(pytester.path, card("llama"), script=SAYS_1150)
        before = earlier(pytester.path / "perf.csv", list(self.STEADY)).read_text()
        pytester.runpytest(*HOST, "--madengine-baseline=perf.csv").assert_outcomes(passed=1)
        after = (pytester.path / "perf.csv").read_text()
        assert after.startswith(before)
        assert rows(pytester.path / "perf.csv")[-1]["relative_change"] == "0.0004"

    @pytest.mark.parametrize("place", ["perf.csv", "store"])
    def test_the_first_run_has_none_and_may_pass(self, pytester: pytest.Pytester, place: str) -> None:
        project(pytester.path, card("llama"), script=SAYS_1150)
        strict = pytester.runpytest(*HOST, f"--madengine-baseline={place}", "--madengine-output=perf.csv")
        strict.assert_outcomes(failed=1)
        strict.stdout.fnmatch_lines([f"*no value of llama in the last 20 runs in {place}*"])
        (pytester.path / "perf.csv").unlink()
        first = pytester.runpytest(*HOST, f"--madengine-baseline={place}", "--madengine-gate=regressions")
        first.assert_outcomes(passed=1)

    def test_one_that_was_chosen_is_compared_by_5_percent(self, pytester: pytest.Pytester) -> None:
        project(pytester.path, card("llama"), script=SAYS_1150)
        earlier(pytester.path / "old.csv", [3, 1160])
        last = ("--madengine-baseline=old.csv", "--madengine-baseline-of=last:1")
        result = pytester.runpytest(*HOST, *last)
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines(["llama *-0.9 % *"])

    def test_another_key_is_no_comparison(self, pytester: pytest.Pytester) -> None:
        project(pytester.path, card("llama"), script=SAYS_1150)
        earlier(pytester.path / "old.csv", list(self.STEADY), gpu_architecture="gfx942")
        result = pytester.runpytest(*HOST, "--madengine-baseline=old.csv")
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["*no comparable value of llama *: it has gpu_architecture gfx942, not none*"])

    def test_noise_that_hides_a_regression_is_no_pass(self, pytester: pytest.Pytester) -> None:
        project(pytester.path, card("llama"), script=SAYS_1150)
        earlier(pytester.path / "old.csv", [1150.0 * (1 + step / 40) for step in range(-5, 5)] * 2)
        result = pytester.runpytest(*HOST, "--madengine-baseline=old.csv")
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["llama: no verdict on performance: too noisy: earlier runs tell changes beyond *"])

    def test_of_a_run_by_its_id_its_tag_and_its_folder(self, pytester: pytest.Pytester) -> None:
        project(pytester.path, card("llama"), script='echo "performance: 1230 samples/s"\n')
        pytester.runpytest(*HOST).assert_outcomes(passed=1)
        run = (pytester.path / ".madengine/runs/latest").resolve()
        (run.parent.parent / "tags").mkdir()
        (run.parent.parent / "tags/good").write_text(f"{run.name}\n")
        (pytester.path / "scripts/llama.sh").write_text(SAYS_1150)
        chosen = [
            ("store", f"run:{run.name}", f"run {run.name} in store"),
            ("store", "tag:good", "the run tagged good in store"),
            (str(run), "last:1", f"the last run in {run}"),
            (f"{(run / RECORD).as_uri()}", "last:1", f"the last run in {(run / RECORD).as_uri()}"),
        ]
        for place, which, words in chosen:
            result = pytester.runpytest(*HOST, f"--madengine-baseline={place}", f"--madengine-baseline-of={which}")
            result.assert_outcomes(failed=1)
            result.stdout.fnmatch_lines([f"*6.5 % below 1230 ({words}, allowed 5 %)"])

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--madengine-baseline=nowhere"], "*--madengine-baseline: */nowhere does not exist; valid: a perf.csv*"),
            (["--madengine-baseline=s3://b/x"], "*--madengine-baseline: found 's3://b/x'; valid: a file, a folder*"),
            (["--madengine-baseline="], "*--madengine-baseline: is empty*"),
            (
                ["--madengine-baseline=old.csv", "--madengine-baseline-of=lats:5"],
                "*found 'lats:5'*did you mean 'last'?",
            ),
            (["--madengine-baseline=old.csv", "--madengine-baseline-of=last:0"], "*found 'last:0'; valid: last:N *"),
            (
                ["--madengine-baseline=old.csv", "--madengine-baseline-of=tag:x"],
                "*does not say of which runs its rows are*",
            ),
            (["--madengine-baseline-of=last:3"], "*says which runs of --madengine-baseline count, which is not given"),
            (["--madengine-baseline=models.json"], "*models.json*"),
        ],
    )
    def test_what_cannot_be_read_is_a_usage_error(
        self, pytester: pytest.Pytester, options: list[str], words: str
    ) -> None:
        project(pytester.path, card("llama"), script=SAYS_1150)
        earlier(pytester.path / "old.csv", [1])
        result = pytester.runpytest(*HOST, *options)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([words])
        assert not (pytester.path / "perf.csv").exists()
