from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_madengine import assets


@pytest.mark.parametrize("kind", ["presets", "templates"])
def test_both_folders_are_found_from_any_place(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert list(assets.folder(kind).iterdir())


def test_a_wheels_folder_inside_the_package_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "pytest_madengine"
    monkeypatch.setattr(assets, "PACKAGE", package)
    beside = package.parent / "presets"
    beside.mkdir(parents=True)
    assert assets.folder("presets") == beside
    inside = package / "presets"
    inside.mkdir(parents=True)
    assert assets.folder("presets") == inside


def test_an_incomplete_installation_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "PACKAGE", tmp_path)
    with pytest.raises(FileNotFoundError, match="reinstall pytest-madengine"):
        assets.folder("presets")


@pytest.mark.parametrize("vendor", ["amd", "nvidia"])
def test_a_preset_is_plain_data(vendor: str) -> None:
    preset = assets.preset(f"docker/{vendor}")
    assert all(option.startswith("--") for option in preset["options"])
    assert preset["devices"] == ["/dev/fuse"]


def test_a_value_that_a_template_misses_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError):
        assets.render("job/run.sh.j2")


@settings(deadline=None, max_examples=20)
@given(st.text(st.characters(exclude_characters="\0", codec="utf-8")))
def test_the_sh_filter_makes_one_word_of_any_text(text: str) -> None:
    word = assets._environment().from_string("{{ text | sh }}").render(text=text)
    assert shlex.split(word) == [text]
    assert subprocess.run(["sh", "-c", f"printf %s {word}"], capture_output=True, check=True).stdout == text.encode()


@pytest.mark.parametrize(("name", "shown"), [("page.html.j2", "&lt;b&gt;"), ("run.sh.j2", "<b>")])
def test_html_templates_escape_what_they_are_given_and_others_do_not(name: str, shown: str) -> None:
    environment = assets._environment().overlay(loader=jinja2.DictLoader({name: "{{ text }}"}))
    assert environment.get_template(name).render(text="<b>") == shown


def test_a_file_comes_as_it_is() -> None:
    assert assets.text("report/vendor/uPlot.LICENSE").startswith("The MIT License")
