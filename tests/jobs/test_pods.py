from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_madengine.backends import kubefiles
from pytest_madengine.context.context import Context
from pytest_madengine.context.kubernetes import Kubernetes
from pytest_madengine.errors import UserError
from pytest_madengine.images.image import Image
from pytest_madengine.jobs import pods
from pytest_madengine.launchers import primus
from pytest_madengine.models.model import Model, Source
from tests.backends.kubejobs import JOB

(PRIMUS,) = primus.LAUNCHERS


def write(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path, encoding="utf-8")


def found(folder: Path, scripts: str = "scripts/m", **context: Any) -> tuple[str, ...]:
    model = Model.model_validate({"name": "m", "scripts": scripts})
    return pods.files(model, Source(folder / "models.json", 1, folder), Context.model_validate(context))


class TestFiles:
    """Those of the project that a pod gets."""

    def test_are_all_below_the_folder_of_the_scripts(self, tmp_path: Path) -> None:
        write(tmp_path, "scripts/m/run.sh", "scripts/m/a/größe 1.json", "scripts/m/.hidden", "scripts/other/run.sh")
        assert found(tmp_path) == ("scripts/m/.hidden", "scripts/m/a/größe 1.json", "scripts/m/run.sh")

    def test_are_none_of_what_runs_and_git_leave(self, tmp_path: Path) -> None:
        left = (".madengine/runs/x", ".git/HEAD", "credential.json", "perf.csv", "perf_super.json", "__pycache__/x.pyc")
        write(tmp_path, "run.sh", *left, *(f"a/{path}" for path in left))
        assert found(tmp_path, "run.sh") == ("a/credential.json", "a/perf.csv", "a/perf_super.json", "run.sh")

    def test_are_the_scripts_before_and_after_too_with_what_these_share(self, tmp_path: Path) -> None:
        write(tmp_path, "scripts/m/run.sh", "hooks/after.sh", "hooks/other.sh", "scripts/common/before.sh")
        write(tmp_path, "scripts/common/tools/lib.sh")
        own, after = "scripts/m/run.sh", "hooks/after.sh"
        assert found(tmp_path, post_scripts=[f"./{after}"]) == (after, own)
        shared = ("scripts/common/before.sh", "scripts/common/tools/lib.sh", own)
        assert found(tmp_path, pre_scripts=["scripts/common/before.sh"]) == shared

    def test_are_what_primus_brings_where_that_starts_the_model(self, tmp_path: Path) -> None:
        write(tmp_path, "scripts/m/run.sh", "scripts/Primus/examples/run_pretrain.sh")
        model, source = Model(name="m", scripts="scripts/m"), Source(tmp_path / "models.json", 1, tmp_path)
        named = pods.files(model, source, Context(), PRIMUS)
        assert named == ("scripts/Primus/examples/run_pretrain.sh", "scripts/m/run.sh")
        assert pods.files(model, source, Context()) == ("scripts/m/run.sh",)

    def test_follow_links_but_not_in_circles(self, tmp_path: Path) -> None:
        write(tmp_path, "scripts/m/run.sh", "shared/data.json")
        (tmp_path / "scripts/m/shared").symlink_to("../../shared")
        (tmp_path / "scripts/m/file.json").symlink_to("../../shared/data.json")
        (tmp_path / "scripts/m/broken").symlink_to("nowhere")
        for place in ("scripts/m/again", "shared/up"):
            (tmp_path / place).symlink_to(tmp_path / "scripts")
        os.mkfifo(tmp_path / "scripts/m/pipe")
        assert found(tmp_path) == ("scripts/m/file.json", "scripts/m/run.sh", "scripts/m/shared/data.json")

    def test_need_not_be_there_where_a_repository_has_them(self, tmp_path: Path) -> None:
        assert found(tmp_path) == ()


ALWAYS, IF_ABSENT = Kubernetes(), Kubernetes(image_pull_policy="IfNotPresent")
HERE = Image("ci-m:0123", content="0123")


class TestWhatNoPodCanDo:
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            (
                {"image": HERE},
                "its image ci-m:0123 is on this machine alone; valid: an image in a registry, as",
            ),
            ({"image": None}, "llama3-8b has no image"),
            ({"options": ("--hostname", "x")}, "additional_docker_run_options: a pod has no --hostname"),
        ],
    )
    def test_is_refused(self, changes: dict[str, Any], words: str) -> None:
        with pytest.raises(UserError, match=re.escape(words)):
            pods.check(replace(JOB, **changes), ALWAYS)

    def test_is_not_refused_where_nodes_may_have_the_image(self) -> None:
        pods.check(replace(JOB, image=HERE), IF_ABSENT)

    def test_is_to_take_too_much_along(self, tmp_path: Path) -> None:
        with (tmp_path / "weights").open("wb") as file:
            file.truncate(kubefiles.MOST_BYTES + 1)
        job = replace(JOB, project=tmp_path, files=("weights",))
        with pytest.raises(UserError, match=r"llama3-8b.scripts: 8\.0 MiB of files, 'weights' the largest; valid: at"):
            pods.check(job, ALWAYS)
