from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pytest_madengine.models.model import Distributed, Model, in_scripts_folder

WIKI = {
    "name": "llama3-8b-train",
    "dockerfile": "docker/Dockerfile.ubuntu.amd",
    "dockercontext": ".",
    "scripts": "scripts/llama3/train.sh",
    "url": "https://github.com/org/repo",
    "cred": "hf_token",
    "owner": "ml-team",
    "data": "llama3-dataset",
    "n_gpus": "8",
    "timeout": 14400,
    "training_precision": "bf16",
    "tags": ["llama3", "training", "amd"],
    "args": "--batch-size 4 --seq-len 4096",
    "multiple_results": "results.csv",
    "skip_gpu_arch": "gfx908,gfx1100",
    "additional_docker_run_options": "--shm-size 64g",
    "distributed": {"launcher": "torchrun", "nnodes": 2, "nproc_per_node": 8},
    "env_vars": {"HF_TOKEN": "auto", "DOCKER_IMAGE_NAME": "reg/img"},
}


def card(**more: Any) -> Model:
    return Model.model_validate({"name": "m", **more})


def test_the_wikis_card_is_read_as_it_stands() -> None:
    model = Model.model_validate(WIKI)
    assert (model.n_gpus, model.timeout) == (8, 14400)
    assert model.tags == ("llama3", "training", "amd")
    assert model.skip_gpu_arch == ("gfx908", "gfx1100")
    assert model.distributed == Distributed(launcher="torchrun", nnodes=2, nproc_per_node=8)
    assert model.env_vars == {"HF_TOKEN": "auto", "DOCKER_IMAGE_NAME": "reg/img"}
    assert not model.model_extra


def test_a_name_is_enough_for_a_card() -> None:
    model = card()
    assert (model.n_gpus, model.timeout, model.tags, model.args) == (-1, None, (), "")
    assert not model.deprecated


@pytest.mark.parametrize("key", ["args", "url", "cred", "data", "multiple_results", "training_precision", "dockerfile"])
def test_null_counts_as_no_text(key: str) -> None:
    assert getattr(card(**{key: None}), key) == ""


@pytest.mark.parametrize(
    ("tags", "read"),
    [
        (["a", "b"], ("a", "b")),
        ("a, b ,,c", ("a", "b", "c")),
        ("", ()),
        ([], ()),
    ],
)
def test_tags_are_a_list_or_a_comma_separated_string(tags: object, read: tuple[str, ...]) -> None:
    assert card(tags=tags).tags == read


@pytest.mark.parametrize("name", ["", "a::b", "two\nlines", "nul\0", "tab\t", "\x1b[31mred"])
def test_a_name_that_no_node_id_can_hold_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        card(name=name)


@pytest.mark.parametrize("name", ["MAD/llama 3", "größe", "a[b]", "$HOME", "it's"])
def test_a_name_may_hold_whatever_prints(name: str) -> None:
    assert card(name=name).name == name


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_gpus": -2},
        {"n_gpus": "many"},
        {"n_gpus": 1.5},
        {"timeout": -2},
        {"timeout": "soon"},
        {"tags": [1]},
        {"args": 3},
        {"distributed": {"nnodes": 0}},
        {"distributed": {"port": 65536}},
        {"distributed": {"launchr": "torchrun"}},
        {"cred": "my-cred"},
        {"cred": "x$(touch pwned)"},
        {"cred": "it's"},
        {"env_vars": {"1A": "x"}},
        {"env_vars": {"A-B": "x"}},
        {"env_vars": {"A": []}},
        {"log_error_patterns": [""]},
        {"log_error_benign_patterns": [""]},
        {"log_error_pattern_scan": "perhaps"},
    ],
)
def test_a_wrong_value_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        card(**wrong)


@pytest.mark.parametrize(
    ("stated", "read"),
    [(False, False), (0, False), ("no", False), ("off", False), ("", False), (1, True), (None, None)],
)
def test_the_error_scan_is_switched_by_what_people_write(stated: object, read: object) -> None:
    assert card(log_error_pattern_scan=stated).log_error_pattern_scan is read


@pytest.mark.parametrize("empty", [None, {}])
def test_an_empty_distributed_section_says_nothing(empty: object) -> None:
    assert card(distributed=empty).distributed == Distributed()


def test_unknown_keys_are_kept_and_shadow_nothing() -> None:
    model = card(gpu_architecture="gfx942", entry="evil.sh", scripts_folder="/", scripts="scripts/m", model_config={})
    assert model.model_extra == {
        "gpu_architecture": "gfx942",
        "entry": "evil.sh",
        "scripts_folder": "/",
        "model_config": {},
    }
    assert (model.entry, model.scripts_folder) == ("run.sh", "scripts/m")


@pytest.mark.parametrize(
    ("scripts", "folder", "entry"),
    [
        ("scripts/m/train.sh", "scripts/m", "train.sh"),
        ("scripts/m/train.py", "scripts/m", "train.py"),
        ("scripts/m/job.slurm", "scripts/m", "job.slurm"),
        ("scripts/m", "scripts/m", "run.sh"),
        ("scripts/m.v2", "scripts/m.v2", "run.sh"),
        ("train.sh", "", "train.sh"),
    ],
)
def test_scripts_names_a_file_or_a_folder_with_run_sh(scripts: str, folder: str, entry: str) -> None:
    model = card(scripts=scripts)
    assert (model.scripts_folder, model.entry) == (folder, entry)
    assert model.runs_file == (entry != "run.sh")


def test_environment_values_are_text_as_a_shell_writes_it() -> None:
    assert card(env_vars={"A": True, "B": False, "C": 7, "D": 0.5, "E": "x y"}).env_vars == {
        "A": "true",
        "B": "false",
        "C": "7",
        "D": "0.5",
        "E": "x y",
    }


def test_a_secret_variable_hides_itself_and_keeps_its_value() -> None:
    variables = {"HF_TOKEN": "hf_abcdef", "PLAIN": "shown"}
    model = card(env_vars=variables)
    assert "hf_abcdef" not in repr(model)
    assert "shown" in repr(model)
    assert model.env_vars == model.model_dump(mode="json")["env_vars"] == variables


def test_further_arguments_follow_the_cards_own() -> None:
    model = card(args="--a 1")
    assert model.with_args("--b 2").args == "--a 1 --b 2"
    assert card().with_args("--b 2").args == "--b 2"
    assert model.with_args("") is model
    assert model.args == "--a 1"


def test_a_card_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        card().name = "other"  # type: ignore[misc]


def test_a_card_of_a_scripts_folder_gets_its_prefix() -> None:
    model = card(dockerfile="../../docker/x", scripts="run/go.sh", tags=["t"], dockercontext="docker", data="d")
    placed = in_scripts_folder(model, "MAD")
    assert (placed.name, placed.dockerfile, placed.scripts) == ("MAD/m", "docker/x", "scripts/MAD/run/go.sh")
    assert (placed.tags, placed.dockercontext, placed.data) == (("t",), "docker", "d")


def test_a_path_that_a_card_leaves_out_stays_out() -> None:
    placed = in_scripts_folder(card(), "MAD")
    assert (placed.dockerfile, placed.scripts) == ("", "")


def test_a_card_at_the_top_stays_as_it_is() -> None:
    model = card(scripts="scripts/m")
    assert in_scripts_folder(model, "") is model
