from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pytest_madengine.reporting import html
from pytest_madengine.reporting.base import Concluding
from pytest_madengine.reporting.html import HtmlReport
from pytest_madengine.reporting.htmlstory import Past, Story
from pytest_madengine.results.perf import FAILURE
from pytest_madengine.results.result import Result
from pytest_madengine.secrets import Masker
from tests.reporting.told import EVIL, of_a_run, result, row

RUN = {"run": "20260314", "target": "host"}


class Parts(HTMLParser):
    """The elements of a page and what its scripts and styles hold."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.inline: dict[str, list[str]] = {"script": [], "style": []}
        self.policy = ""
        self.addresses: list[str] = []
        self._within = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self._within = tag if tag in self.inline and given.get("type") != "application/json" else ""
        self.policy = given["content"] if given.get("http-equiv") == "Content-Security-Policy" else self.policy
        self.addresses += [given[name] for name in ("src", "href") if name in given]

    def handle_data(self, data: str) -> None:
        if self._within:
            self.inline[self._within].append(data)

    def handle_endtag(self, _: str, /) -> None:
        self._within = ""


def page(*results: Result, mask: str = "unlikely") -> str:
    return html.page(Story(results, RUN), Masker([mask]))


def test_the_policy_names_every_script_and_style_by_its_hash_and_allows_nothing_else() -> None:
    parts = Parts(page(*of_a_run()))
    rules = dict(rule.strip().split(" ", 1) for rule in parts.policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["script-src"].split() == [_hash(each) for each in parts.inline["script"]]
    assert rules["style-src"].split() == [_hash(each) for each in parts.inline["style"]]


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_nothing_is_fetched() -> None:
    parts = Parts(page(*of_a_run()))
    assert all(address.startswith(("#", "data:")) for address in parts.addresses)
    assert not {"iframe", "object", "img"} & set(parts.tags)


def test_a_name_cannot_become_an_element() -> None:
    harmless, hostile = Parts(page(result("x"))), Parts(page(result("<b></script><script>alert(1)</script>")))
    assert hostile.tags == harmless.tags


def test_links_are_relative_to_the_page_and_only_paths(tmp_path: Path) -> None:
    link = html.linker(tmp_path / "reports")
    assert link(str(tmp_path / "run" / "a b#1?.log")) == "../run/a%20b%231%3F.log"
    assert link(f"{tmp_path}/reports/javascript:alert(1)") == "javascript%3Aalert%281%29"
    assert link("/x\udcff\ud83d").endswith("/x%ED%B3%BF%ED%A0%BD")


def test_secrets_are_hidden_wherever_they_stand() -> None:
    secret = 'pa"ss<word>\n1'  # noqa: S105  # nobody's
    columns = {"args": f"--token {secret}", "launcher": secret}
    given = result(
        f"m[{secret}]",
        FAILURE,
        row(secret, FAILURE, **columns),
        reason=f"bad {secret}",
        tail=(secret,),
        notes=(secret,),
        versions={"tool": secret},
        log=f"/run/{secret}",
    )
    text = page(given, replace(given, id="2"), mask=secret)
    for written in (secret, 'pa\\"ss', "pa&#34;ss", "pa%22ss", "ss\\u003cword"):
        assert written not in text


def test_the_summary_tells_of_times_and_of_the_run() -> None:
    text = page(result("m"), result("n", ended="2026-03-14T16:10:30Z"))
    for told in ("20260314", "2026-03-14 15:09 UTC", "1 h 01 min", "node1, node2", "gfx942"):
        assert told in text


def test_without_times_the_time_that_models_ran_is_told() -> None:
    text = page(result("m", started="", ended=""), result("n", started="", ended="yesterday"))
    assert "25 s" in text
    assert "models ran" in text


def test_a_run_without_models_has_a_page() -> None:
    assert "no models" in page()


def test_the_reporter_writes_once_all_is_known(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    asked: list[list[Result]] = []

    def past(results: object) -> Past:
        assert isinstance(results, tuple)
        asked.append(list(results))
        return Past()

    reporter = HtmlReport(path, RUN, past=past)
    assert isinstance(reporter, Concluding)
    reporter.write(result("m"))
    assert not path.exists()
    reporter.conclude((result("m"),), 0)
    assert "1 passed" in path.read_text(encoding="utf-8")
    assert asked == [[result("m")]]


def test_vendored_code_has_its_licence_beside_it() -> None:
    folder = Path(__file__).parents[2] / "templates" / "report" / "vendor"
    version = re.search(r"uPlot ([\d.]+)", (folder / "README.md").read_text())
    assert version
    assert f"v{version[1]}" in (folder / "uPlot.iife.min.js").read_text(encoding="utf-8")
    assert "Permission is hereby granted" in (folder / "uPlot.LICENSE").read_text()


SCRIPT = "#!/bin/bash\necho performance: 10 MB/s\n"


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project with one model."""
    monkeypatch.delenv("MODEL_DIR", raising=False)
    (pytester.path / "scripts").mkdir()
    (pytester.path / "scripts" / "run.sh").write_text(SCRIPT)
    card = '[{"name": "m", "dockerfile": "d", "scripts": "scripts/run.sh", "n_gpus": "0", "tags": ["t"]}]'
    (pytester.path / "models.json").write_text(card)
    return pytester


def test_a_session_writes_its_page_with_the_trend(project: pytest.Pytester) -> None:
    for _ in range(2):
        done = project.runpytest("--madengine-tags=m", "--target=host", "--madengine-html=report.html")
        done.assert_outcomes(passed=1)
    text = (project.path / "report.html").read_text(encoding="utf-8")
    assert "1 passed" in text
    assert '"trend":{"d":[[0,10.0,1,10.0]]}' in text
    (log,) = (project.path / ".madengine" / "runs" / "latest").glob("jobs/*/run.log")
    assert f'"{log.resolve().relative_to(project.path)}"' in text


def test_a_page_that_cannot_be_written_is_told_before_anything_runs(project: pytest.Pytester) -> None:
    done = project.runpytest("--madengine-tags=m", "--target=host", "--madengine-html=none/report.html")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*--madengine-html*none*"])


def test_names_of_markup_stay_text() -> None:
    assert EVIL not in page(result(EVIL))
