from __future__ import annotations

from pathlib import Path

import pytest

from pytest_madengine.context.load import load
from pytest_madengine.errors import FaultsError


def written(folder: Path, text: str, name: str = "context.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def faults(text: str | None, file: Path | None, project: Path) -> list[str]:
    with pytest.raises(FaultsError) as caught:
        load(text, file, project)
    return str(caught.value).splitlines()


def test_nothing_given_is_the_default_context(tmp_path: Path) -> None:
    assert load(None, None, tmp_path) == load("{}", None, tmp_path)


def test_the_inline_context_wins_over_the_file_key_by_key(tmp_path: Path) -> None:
    file = written(tmp_path, "docker_env_vars: {A: file, B: file}\npre_scripts: [a.sh, b.sh]\ndebug: true\n")
    read = load('{"docker_env_vars": {"A": "inline"}, "pre_scripts": ["c.sh"]}', file, tmp_path)
    assert read.docker_env_vars == {"A": "inline", "B": "file"}
    assert [script.path for script in read.pre_scripts] == ["c.sh"]
    assert read.debug


def test_a_fault_names_the_files_line(tmp_path: Path) -> None:
    file = written(tmp_path, "debug: true\nslurm:\n  nodes: 2\ndistributed:\n  nnodes: 0\ngpu_vendr: AMD\n")
    unknown, wrong = faults(None, file, tmp_path)
    assert unknown.startswith(f"{file}:6: gpu_vendr: unknown key 'gpu_vendr'")
    assert wrong.startswith(f"{file}:5: distributed.nnodes: found 0")


def test_a_fault_names_the_source_that_its_key_came_from(tmp_path: Path) -> None:
    file = written(tmp_path, '{"env_vars": {"A": []},\n "pre_scripts": [{"path": "x"}]}', "context.json")
    inline = '{"env_vars": {"B": []}, "pre_scripts": [{"path": "y"}, {"args": "z"}]}'
    assert [text.partition(": found")[0].partition(": 'path'")[0] for text in faults(inline, file, tmp_path)] == [
        f"{file}:1: env_vars.A",
        "--madengine-context: env_vars.B",
        "--madengine-context: pre_scripts[1]",
    ]


def test_a_fault_without_a_file_is_the_options(tmp_path: Path) -> None:
    (text,) = faults('{"debug": "x"}', None, tmp_path)
    assert text == "--madengine-context: debug: found 'x'; valid: true or false"


def test_a_dockerfiles_own_keys_are_valid_in_its_project_alone(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "docker").mkdir(parents=True)
    written(project / "docker", "# CONTEXT {'flavour': 'small'}\nFROM x\n", "m.ubuntu.amd.Dockerfile")
    assert load('{"flavour": "small"}', None, project).header == {"flavour": "small"}
    assert "unknown key 'flavour'" in faults('{"flavour": "small"}', None, tmp_path / "elsewhere")[0]


def test_both_sources_must_parse(tmp_path: Path) -> None:
    with pytest.raises(FaultsError, match="not JSON"):
        load("{", None, tmp_path)
    with pytest.raises(FaultsError, match="cannot be read"):
        load(None, tmp_path / "missing.yaml", tmp_path)
