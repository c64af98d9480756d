from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_madengine.context.context import UNBUILT, Context, Script, parse_gpus, validated
from pytest_madengine.context.slurm import Slurm
from pytest_madengine.errors import FaultsError
from pytest_madengine.models.model import Distributed, Model
from pytest_madengine.validation import dotted


def context(**values: Any) -> Context:
    return validated(values, dotted, set)


def faults(**values: Any) -> list[str]:
    with pytest.raises(FaultsError) as caught:
        context(**values)
    return str(caught.value).splitlines()


def fault(**values: Any) -> str:
    (only,) = faults(**values)
    return only


def test_an_empty_context_is_all_defaults() -> None:
    empty = context()
    assert (empty.gpu_vendor, empty.guest_os, empty.gpus, empty.image) == (None, "UBUNTU", None, None)
    assert empty.target() == "docker"
    assert empty.header == {}


def test_the_wikis_example_file_is_accepted() -> None:
    read = context(
        gpu_vendor="AMD",
        guest_os="UBUNTU",
        slurm={"partition": "gpu", "nodes": 4, "gpus_per_node": 8, "time": "24:00:00", "exclusive": True},
        distributed={"launcher": "torchrun", "nnodes": 4, "nproc_per_node": 8, "backend": "nccl"},
        env_vars={"NCCL_DEBUG": "WARN", "HSA_ENABLE_SDMA": "0"},
    )
    assert read.target() == "slurm"
    assert read.slurm == Slurm(partition="gpu", nodes=4, gpus_per_node=8, time="24:00:00", exclusive=True)
    assert read.distributed.nnodes == 4


@pytest.mark.parametrize("stated", ["amd", "AMD", "Amd"])
def test_vendors_and_systems_are_read_in_any_case(stated: str) -> None:
    assert context(gpu_vendor=stated).gpu_vendor == "AMD"
    assert context(guest_os="centos").guest_os == "CENTOS"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"gpu_vendor": "INTEL"}, "gpu_vendor: found 'INTEL'; valid: 'AMD' or 'NVIDIA'"),
        ({"guest_os": "ARCH"}, "guest_os: found 'ARCH'; valid: 'UBUNTU' or 'CENTOS'"),
        ({"docker_env_vars": "A=1"}, "docker_env_vars: found 'A=1'; valid: an object"),
        ({"docker_env_vars": {"A": None}}, "docker_env_vars.A: found None; valid: a string"),
        (
            {"docker_env_vars": {"A-B": "x"}},
            "docker_env_vars.A-B: found 'A-B'; valid: not a name for an environment variable "
            "(letters, digits and _, no digit first)",
        ),
        (
            {"docker_gpus": "first"},
            "docker_gpus: found 'first'; valid: GPU indices and ranges such as '0,2-4', or 'all'",
        ),
        ({"docker_gpus": "3-1"}, "docker_gpus: found '3-1'; valid: GPU indices and ranges such as '0,2-4', or 'all'"),
        ({"timeout": -5}, "timeout: found -5; valid: seconds, 0 (no limit) or -1 (default)"),
        ({"timeout": float("nan")}, "timeout: found nan; valid: seconds, 0 (no limit) or -1 (default)"),
        ({"timeout": "soon"}, "timeout: found 'soon'; valid: a number"),
        ({"debug": "maybe"}, "debug: found 'maybe'; valid: true or false"),
        ({"n_gpus": 1.5}, "n_gpus: found 1.5; valid: a whole number"),
        ({"n_gpus": -2}, "n_gpus: found -2; valid: greater than or equal to -1"),
        ({"slurm": []}, "slurm: found []; valid: an object"),
        ({"pre_scripts": "x.sh"}, "pre_scripts: found 'x.sh'; valid: a list"),
        ({"pre_scripts": [{"args": "x"}]}, "pre_scripts[0]: 'path' is missing; valid: it must be given"),
        (
            {"post_scripts": [{"path": "x", "arg": "y"}]},
            "post_scripts[0].arg: unknown key 'arg'; valid: args, path; did you mean 'args'?",
        ),
        ({"log_error_patterns": [""]}, "log_error_patterns[0]: found ''; valid: a string that is not empty"),
        (
            {"log_error_benign_patterns": [""]},
            "log_error_benign_patterns[0]: found ''; valid: a string that is not empty",
        ),
        ({"log_error_benign_patterns": "x"}, "log_error_benign_patterns: found 'x'; valid: a list"),
        ({"docker_mounts": [1]}, "docker_mounts: found [1]; valid: an object"),
        ({"docker_mounts": [{"host_path": "/a"}]}, "docker_mounts: found [{'host_path': '/a'}]; valid: an object"),
        ({"docker_env_vars": {"MAD_SYSTEM_NGPUS": "²"}}, "docker_env_vars: found {'MAD_SYSTEM_NGPUS': '²'}; valid: "),
        (
            {"deploy": "cloud"},
            "deploy: found 'cloud'; valid: 'local', 'docker', 'host', 'slurm', 'k8s' or 'kubernetes'",
        ),
        ({"header": {}}, "header: unknown key 'header'; valid: "),
        ({"distributed": {"port": "x"}}, "distributed.port: found 'x'; valid: a whole number"),
    ],
)
def test_a_wrong_value_says_where_what_and_what_would_be_valid(values: dict[str, Any], text: str) -> None:
    assert fault(**values).startswith(text)


def test_every_fault_is_reported_at_once() -> None:
    found = faults(gpu_vendor="X", debgu=True, tools=[{"name": "rocprof"}], partition="gpu", distributed={"nnode": 2})
    assert [text.partition(":")[0] for text in found] == [
        "tools",
        "debgu",
        "partition",
        "gpu_vendor",
        "distributed.nnode",
    ]


@pytest.mark.parametrize(
    ("key", "close"),
    [("gpu_vendr", "gpu_vendor"), ("Docker_Env_Vars", "docker_env_vars"), ("pre_script", "pre_scripts")],
)
def test_an_unknown_key_is_refused_with_the_nearest_spelling(key: str, close: str) -> None:
    assert fault(**{key: 1}).endswith(f"did you mean {close!r}?")


@pytest.mark.parametrize(
    ("key", "owner"),
    [
        ("partition", "slurm"),
        ("nodes", "slurm"),
        ("prologue", "slurm"),
        ("mail_user", "slurm"),
        ("namespace", "k8s"),
        ("nnodes", "distributed"),
    ],
)
def test_a_key_of_another_object_is_told_its_place(key: str, owner: str) -> None:
    assert (
        fault(**{key: "x"}) == f"{key}: {key!r} does not belong here (found 'x'); valid: under {owner}: {owner}.{key}"
    )


def test_a_misspelt_key_of_slurm_is_refused_with_the_nearest_spelling() -> None:
    assert fault(slurm={"nodes": 2, "partiton": "gpu"}).startswith("slurm.partiton: unknown key 'partiton'; valid: ")
    assert fault(slurm={"partiton": "gpu"}).endswith("did you mean 'partition'?")


def test_what_a_context_was_given_makes_it_again() -> None:
    stated = {
        "slurm": {"time": 90, "nodelist": ["a", "b"], "mem": "64G", "modules": "x,y", "prologue": ["a", "b"]},
        "distributed": {"nnodes": 2},
    }
    assert context(**context(**stated).given()) == context(**stated)


def test_a_comment_is_no_key() -> None:
    assert context(_comment="why", _note=1) == context()


@pytest.mark.parametrize("key", UNBUILT)
def test_what_this_version_lacks_is_refused_unless_it_is_empty(key: str) -> None:
    assert fault(**{key: ["x"]}).endswith("valid: leave it out")
    assert context(**{key: []}) == context()


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("all", None),
        ("", None),
        (" all ", None),
        ("0", [0]),
        ("0,2-4", [0, 2, 3, 4]),
        (" 1 , 0 ", [1, 0]),
        ("1,1,0-1", [1, 0]),
        ("3-3", [3]),
    ],
)
def test_gpus_are_indices_and_ranges(text: str, gpus: list[int] | None) -> None:
    assert parse_gpus(text) == gpus


@pytest.mark.parametrize("text", ["x", "1-", "-1", "1--2", "1,,2", "3-1", "²", "0x1", "1.5", "ALL", "0;1"])
def test_gpus_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="GPU indices and ranges"):
        parse_gpus(text)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 99), min_size=1, unique=True))
def test_any_set_of_gpus_can_be_written(gpus: list[int]) -> None:
    assert parse_gpus(",".join(map(str, gpus))) == gpus


def test_a_single_gpu_may_be_a_number_and_nothing_means_all() -> None:
    assert context(docker_gpus=3).docker_gpus == "3"
    assert context(docker_gpus=None).docker_gpus is None


@pytest.mark.parametrize(
    "mounts",
    [
        {"/in": "/out"},
        {"host_path": "/out", "container_path": "/in"},
        [{"host_path": "/out", "container_path": "/in"}],
    ],
)
def test_mounts_have_two_documented_shapes(mounts: object) -> None:
    assert context(docker_mounts=mounts).docker_mounts == {"/in": "/out"}


def test_no_mounts_are_no_mounts() -> None:
    assert context(docker_mounts=[]).docker_mounts == context(docker_mounts={}).docker_mounts == {}


def test_a_mount_with_more_than_two_paths_is_not_half_understood() -> None:
    mounts = [{"host_path": "/out", "container_path": "/in", "read_only": True}]
    assert fault(docker_mounts=mounts).startswith("docker_mounts: found [{")


def test_scripts_are_objects_or_paths() -> None:
    scripts = context(pre_scripts=["a.sh", {"path": "b.sh", "args": "x"}]).pre_scripts
    assert scripts == (Script(path="a.sh"), Script(path="b.sh", args="x"))


def test_the_first_of_five_spellings_gives_the_gpus() -> None:
    assert context(ngpus=1, num_gpus=2).gpus == 2
    assert context(n_gpus="-1", gpu_count=0).gpus == 0
    assert context(gpus_per_node=8, n_gpus=4).gpus == 8


def test_the_image_is_named_by_either_key() -> None:
    assert context(docker_image="a").image == "a"
    assert context(docker_image="a", MAD_CONTAINER_IMAGE="b").image == "b"


@pytest.mark.parametrize(
    ("values", "target"),
    [
        ({}, "docker"),
        ({"k8s": {}}, "k8s"),
        ({"kubernetes": {"namespace": "x"}}, "k8s"),
        ({"slurm": {}}, "slurm"),
        ({"slurm": None}, "docker"),
        ({"deploy": "slurm"}, "slurm"),
        ({"deploy": "local", "slurm": {}}, "docker"),
        ({"deploy": "kubernetes", "slurm": {}, "k8s": {}}, "k8s"),
    ],
)
def test_the_target_follows_from_what_is_configured(values: dict[str, Any], target: str) -> None:
    assert context(**values).target() == target


def test_two_targets_at_once_are_refused() -> None:
    with pytest.raises(FaultsError, match="both 'k8s' and 'slurm' are given"):
        context(kubernetes={}, slurm={}).target()


def test_the_context_overlays_a_cards_distribution_key_by_key() -> None:
    card = Model(name="m", distributed=Distributed(launcher="torchrun", nnodes=2, port=1))
    read = context(distributed={"nnodes": 4, "backend": "nccl"}).distribution(card)
    assert read == Distributed(launcher="torchrun", nnodes=4, port=1, backend="nccl")
    assert context().distribution(card) == card.distributed


def test_keys_that_dockerfiles_compare_are_known_and_kept_for_them() -> None:
    values = {"flavour": "small", "host_os": "HOST_UBUNTU", "docker_gpus": "0,1", "env_vars": {"A": "1"}}
    read = validated(values, dotted, lambda: {"flavour", "unused"})
    assert read.header == {"flavour": "small", "host_os": "HOST_UBUNTU", "docker_gpus": "0,1"}


def test_dockerfiles_are_asked_only_about_strange_keys() -> None:
    asked: list[str] = []

    def header_keys() -> set[str]:
        asked.append("asked")
        return set()

    validated({"debug": True, "_note": 1, "tools": []}, dotted, header_keys)
    assert asked == []
    with pytest.raises(FaultsError, match="unknown key 'flavour'"):
        validated({"flavour": "x"}, dotted, header_keys)
    assert asked == ["asked"]


def test_no_secret_shows_in_a_context_that_a_traceback_prints() -> None:
    read = context(
        secrets={"PLAIN": "alpha-secret"},
        docker_env_vars={"HF_TOKEN": "beta-secret", "SHOWN": "gamma"},
        env_vars={"S3_ACCESS_KEY": "delta-secret"},
        docker_build_arg={"MAD_SECRETS_X": "epsilon-secret"},
    )
    assert "-secret" not in repr(read)
    assert "gamma" in repr(read)
    assert read.secrets == {"PLAIN": "alpha-secret"}
    assert read.docker_env_vars["HF_TOKEN"] == "beta-secret"  # noqa: S105  # nobody's


@pytest.mark.parametrize(
    "values", [{"secrets": "hf_abcdef"}, {"secrets": {"X": ["hf_abcdef"]}}, {"env_vars": {"HF_TOKEN": ["hf_abcdef"]}}]
)
def test_no_secret_shows_in_a_fault(values: dict[str, Any]) -> None:
    assert "hf_abcdef" not in fault(**values)


@pytest.mark.parametrize(("stated", "read"), [("", False), ("no", False), (0, False), (True, True), (None, None)])
def test_the_error_scan_is_switched_by_what_people_write(stated: object, read: object) -> None:
    assert context(log_error_pattern_scan=stated).log_error_pattern_scan is read
