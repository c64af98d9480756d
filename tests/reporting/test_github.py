from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pytest_madengine.reporting import github
from pytest_madengine.reporting.github import MOST, Annotations, StepSummary, command, commands
from pytest_madengine.results.comparison import Judgement
from pytest_madengine.results.perf import FAILURE
from pytest_madengine.secrets import Masker
from tests.reporting.told import compared, of_a_run, result


def test_failures_and_regressions_are_annotated_at_the_cards_lines() -> None:
    bad, evil, slow = commands(of_a_run(), "/project")
    assert bad == (
        "::error file=models.json,line=12,title=bad::"
        "exit code 1%0ATraceback (most recent call last):%0A```%0ARuntimeError: @all"
    )
    assert evil == "::error title=<script>|`@all`\\|::100%25, a:b%0Anext line"
    assert slow == "::warning file=models.json,line=12,title=slow::performance regression -6.1 %25 because"


def test_a_card_outside_of_the_workspace_keeps_its_path() -> None:
    (line,) = commands([result("m", FAILURE, reason="x")], "/elsewhere")
    assert line.startswith("::error file=/project/models.json,line=12,")


def test_a_model_that_fails_because_it_regressed_is_told_of_once() -> None:
    failed = replace(result("m", FAILURE, reason="x"), comparisons=(compared("m", Judgement.REGRESSION, -0.1),))
    assert len(list(commands([failed]))) == 1


@given(st.text(max_size=50), st.text(max_size=50))
def test_no_text_begins_another_command_or_property(message: str, title: str) -> None:
    made = command("error", message, title=title)
    head, data = (made.removeprefix("::").split("::", 1)) if title else ("error", made.removeprefix("::error::"))
    assert not set("\r\n") & set(made)
    assert "," not in head
    assert _decoded(data) == message
    assert not title or _decoded(head.removeprefix("error title=")) == title


def _decoded(text: str) -> str:
    for escape, character in (("%2C", ","), ("%3A", ":"), ("%0A", "\n"), ("%0D", "\r"), ("%25", "%")):
        text = text.replace(escape, character)
    return text


def test_what_github_would_not_show_is_counted() -> None:
    lines = list(commands([result(f"m{at}", FAILURE, reason="x") for at in range(25)]))
    assert len(lines) == MOST
    assert lines[-1] == "::error::16 more models: see the log of this step"


def test_secrets_are_hidden_in_annotations() -> None:
    said: list[str] = []
    annotations = Annotations(said.append, "/project", Masker(["hunter2"]))
    annotations.conclude([result("m", FAILURE, reason="with hunter2")], 1)
    assert said == ["::error file=models.json,line=12,title=m::with ***"]


def test_the_page_of_a_step_is_appended_to(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("of another program\n")
    StepSummary(page, "r").conclude([result("m")], 0)
    assert page.read_text().startswith("of another program\n### Models: 1 passed\n")


def test_only_in_actions_is_this_github() -> None:
    assert github.here({"GITHUB_ACTIONS": "true"})
    assert not github.here({})
