from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_madengine.reporting import markdown
from pytest_madengine.reporting.markdown import LONGEST, Markdown, block, code, summary
from pytest_madengine.results.perf import FAILURE
from pytest_madengine.secrets import Masker
from tests.golden import compare
from tests.reporting.told import of_a_run, result

GOLDEN = Path(__file__).parent / "golden"


def test_a_run_as_markdown() -> None:
    compare(summary(of_a_run(), "20260314-a"), GOLDEN / "summary.md")


def test_what_needs_attention_stands_first() -> None:
    lines = summary(of_a_run(), "r").splitlines()
    names = [line.split(" | ")[0].strip("| `") for line in lines if line.startswith("| ")][2:]
    assert [names[0], names[2]] == ["bad", "slow"]


@pytest.mark.parametrize(
    "text", ["a|b", "a`b", "a\\", "a\\|b", "``", "a\nb", "<b>", "[x](y)", "@all", "&amp;", "a_b_c"]
)
def test_code_is_one_cell_whatever_it_holds(text: str) -> None:
    made = code(text)
    assert "|" not in made
    assert "\n" not in made
    assert re.fullmatch(r"`[^`]*`|<code>[^<>`|\\_*\[\]@]*</code>", made)


@given(st.text(max_size=40))
def test_no_text_leaves_its_code(text: str) -> None:
    made = code(text)
    assert re.fullmatch(r"(`[^`|\\\n]*`|<code>[^<>`|\\\n]*</code>)?", made)


@given(st.text(alphabet="`~ab\n", max_size=60))
def test_no_text_ends_its_block(text: str) -> None:
    first, *inside, last, end = block(text).split("\n")
    fence = first.removesuffix("text")
    assert (last, end) == (fence, "")
    assert not any(line.lstrip().startswith(fence) for line in inside)


def test_a_comment_is_never_longer_than_github_takes() -> None:
    tail = ("x" * 10_000,) * 100
    many = [result(f"m{at}{'y' * 300}", FAILURE, reason="z" * 100_000, tail=tail) for at in range(300)]
    text = summary(many, "r")
    assert len(text) <= LONGEST
    assert "more of them are not shown" in text
    assert "rows were left out" in text


def test_few_rows_of_very_many_are_shown() -> None:
    text = summary([result(f"m{at}") for at in range(10_000)], "r")
    assert "10000 passed" in text
    assert f"{10_000 - markdown.MOST_ROWS} more rows" in text


def test_secrets_stand_in_no_comment(tmp_path: Path) -> None:
    path = tmp_path / "comment.md"
    Markdown(path, "r", Masker(["hunter2"])).conclude([result("m", FAILURE, reason="with hunter2")], 1)
    assert "with ***" in path.read_text()
    assert [each.name for each in tmp_path.iterdir()] == ["comment.md"]
