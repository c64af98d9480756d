from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from pytest_madengine.context.context import validated
from pytest_madengine.context.slurm import Slurm
from pytest_madengine.errors import FaultsError, UserError
from pytest_madengine.images import manifest, manifestcontent
from pytest_madengine.images.image import Image
from pytest_madengine.images.manifest import Entry, LostPush, Manifest
from pytest_madengine.models.model import Model
from pytest_madengine.secrets import NO_SECRETS, Masker
from pytest_madengine.validation import dotted
from tests import golden

SCHEMA = Path(__file__).parents[2] / "docs" / "build_manifest.schema.json"
DISTRIBUTED = (
    "valid: backend, enabled, launcher, master_port, nnodes, nproc_per_node, port, primus, sglang_disagg, vllm_disagg"
)
DIGEST = f"sha256:{'1f' * 32}"

WIKI = {
    "built_images": {
        "ci-llama3_Dockerfile.ubuntu.amd": {
            "docker_image": "registry.io/ml/ci-llama3:sha256-abc",
            "docker_sha": "sha256:abc123",
            "build_duration": 183.4,
        }
    },
    "built_models": {
        "ci-llama3_Dockerfile.ubuntu.amd": {
            "name": "llama3-8b-train",
            "dockerfile": "docker/Dockerfile.ubuntu.amd",
            "docker_image": "ci-llama3_Dockerfile.ubuntu.amd",
            "docker_sha": "sha256:abc123",
            "build_duration": 183.4,
            "scripts": "scripts/llama3/train.sh",
            "args": "--batch-size 4",
            "tags": ["llama3", "training"],
            "n_gpus": "8",
            "timeout": 14400,
            "skip_gpu_arch": "",
            "multiple_results": "",
            "distributed": {"launcher": "torchrun", "nnodes": 2, "nproc_per_node": 8},
            "env_vars": {"DOCKER_IMAGE_NAME": "registry.io/ml/ci-llama3:sha256-abc"},
            "built_on_compute": False,
        }
    },
    "context": {
        "gpu_vendor": "AMD",
        "guest_os": "UBUNTU",
        "docker_env_vars": {"MAD_GPU_VENDOR": "AMD", "MAD_SYSTEM_NGPUS": "8"},
        "docker_build_arg": {},
    },
    "deployment_config": {
        "target": "slurm",
        "slurm": {"partition": "gpu", "nodes": 4, "gpus_per_node": 8, "time": "24:00:00"},
        "distributed": {"launcher": "torchrun", "nnodes": 4, "nproc_per_node": 8},
        "env_vars": {"NCCL_DEBUG": "WARN"},
        "debug": False,
    },
    "summary": {"total": 1, "success": 1, "failed": 0},
}
TOOL_IMAGE = {
    "model": "team/resnet",
    "docker_image": "ci-team_resnet_resnet.ubuntu.amd",
    "dockerfile": "docker/resnet.ubuntu.amd.Dockerfile",
    "base_docker": "rocm/pytorch:6.2",
    "docker_sha": DIGEST,
    "build_duration": 61.25,
    "build_command": "docker build -t ci-team_resnet_resnet.ubuntu.amd docker",
    "log_file": "team_resnet_resnet.ubuntu.amd.build.live.log",
    "gpu_vendor": "AMD",
    "gpu_architecture": "gfx942",
    "registry": "localhost:5000",
    "registry_image": "localhost:5000/ci-team_resnet_resnet.ubuntu.amd",
    "push_error": "timed out",
}
TOOL = {
    "built_images": {"ci-team_resnet_resnet.ubuntu.amd": TOOL_IMAGE},
    "built_models": {
        "ci-team_resnet_resnet.ubuntu.amd": {
            "name": "team/resnet",
            "dockerfile": "docker/resnet",
            "scripts": "scripts/resnet",
            "data": None,
            "tags": ["vision"],
            "timeout": -1,
            "args": "",
            "cred": "hub",
            "slurm": None,
            "reviewer": None,
            "env_vars": {"DOCKER_IMAGE_NAME": "localhost:5000/ci-team_resnet_resnet.ubuntu.amd"},
        }
    },
    "context": {
        "docker_env_vars": {
            "MAD_GPU_VENDOR": "AMD",
            "MAD_SYSTEM_NGPUS": "8",
            "MAD_SYSTEM_GPU_ARCHITECTURE": "gfx942",
            "MAD_SYSTEM_HIP_VERSION": "6.2",
            "MAD_SYSTEM_GPU_PRODUCT_NAME": "Instinct",
            "OMP_NUM_THREADS": "8",
            "HF_TOKEN": "planted-token",
        },
        "docker_mounts": {},
        "docker_build_arg": {"MAD_SECRETS_X": "planted-token"},
        "gpu_vendor": "AMD",
        "guest_os": "UBUNTU",
        "docker_gpus": None,
        "pre_scripts": [{"path": "scripts/common/pre.sh", "args": ""}],
    },
    "credentials_required": ["hub"],
    "summary": {
        "successful_builds": [TOOL_IMAGE],
        "failed_builds": [
            {"model": "team/resnet", "error": "Build failed"},
            {"model": "team/resnet", "error": "Build failed again"},
            {"model": "bert", "architecture": "gfx90a", "error": ""},
        ],
        "total_build_time": 61.25,
        "successful_pushes": [],
        "failed_pushes": [],
    },
    "deployment_config": {"target": "local", "env_vars": {}, "debug": True, "k8s": None},
    "push_failures": [],
}


def read(data: object) -> Manifest:
    return manifest.parsed(data, dotted)


def faults_of(data: object) -> list[str]:
    with pytest.raises(FaultsError) as caught:
        read(data)
    return str(caught.value).splitlines()


def small(image: object = None, model: object = None, **more: object) -> dict[str, object]:
    """A manifest of one model `m` under the key `k`."""
    images = {"k": {"docker_image": "ci-m"} if image is None else image}
    return {"built_images": images, "built_models": {"k": {"name": "m"} if model is None else model}, **more}


def written(*entries: Entry, context: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return manifestcontent.content(entries, context=context or {}, **{"masker": NO_SECRETS, **more})


def entry(name: str, key: str = "", architecture: str = "") -> Entry:
    return Entry(key or name, Model(name=name), Image("ci-x", architecture=architecture))


def failed(name: str, key: str = "", error: str = "no space left") -> Entry:
    return Entry(key or name, Model(name=name), None, error)


def test_the_wikis_sample_gives_its_model_and_image() -> None:
    (found,) = read(WIKI).entries
    assert found.key == "ci-llama3_Dockerfile.ubuntu.amd"
    assert found.image == Image(
        "registry.io/ml/ci-llama3:sha256-abc",
        dockerfile="docker/Dockerfile.ubuntu.amd",
        base_digest="sha256:abc123",
        build_duration=183.4,
    )
    card = found.card
    assert (card.name, card.n_gpus, card.timeout, card.args) == ("llama3-8b-train", 8, 14400, "--batch-size 4")
    assert (card.distributed.nnodes, card.docker_image, card.model_extra) == (2, "", {})
    assert card.env_vars == {"DOCKER_IMAGE_NAME": "registry.io/ml/ci-llama3:sha256-abc"}


def test_the_wikis_deployment_stands_over_its_context() -> None:
    context = validated(read(WIKI).context, dotted, set)
    assert (context.target(), context.gpu_vendor, context.docker_env_vars) == ("slurm", "AMD", {})
    assert context.distributed.nnodes == 4
    assert context.env_vars == {"NCCL_DEBUG": "WARN"}
    assert context.slurm == Slurm(partition="gpu", nodes=4, gpus_per_node=8, time="24:00:00")


def test_what_an_image_does_not_say_its_card_may_say() -> None:
    model = {"name": "m", "docker_sha": "sha256:1", "build_duration": 2.5, "dockerfile": "docker/m.Dockerfile"}
    (found,) = read(small(model=model)).entries
    assert found.image == Image("ci-m", dockerfile="docker/m.Dockerfile", base_digest="sha256:1", build_duration=2.5)


def test_the_replaced_tools_manifest_gives_its_model_and_image() -> None:
    found = read(TOOL).entries[0]
    remote = "localhost:5000/ci-team_resnet_resnet.ubuntu.amd"
    assert found.image == Image(
        reference=remote,
        registry_image=remote,
        dockerfile="docker/resnet.ubuntu.amd.Dockerfile",
        base="rocm/pytorch:6.2",
        base_digest=DIGEST,
        build_duration=61.25,
        command="docker build -t ci-team_resnet_resnet.ubuntu.amd docker",
        log="team_resnet_resnet.ubuntu.amd.build.live.log",
        vendor="AMD",
        architecture="gfx942",
    )
    assert (found.card.dockerfile, found.card.data, found.card.slurm, found.card.timeout) == (
        "docker/resnet",
        "",
        {},
        -1,
    )
    assert found.card.model_extra == {"reviewer": None}


def test_what_failed_to_build_is_an_entry_with_the_reason() -> None:
    entries = read(TOOL).entries
    assert [(each.key, each.card.name, each.error) for each in entries[1:]] == [
        ("team/resnet", "team/resnet", "Build failed"),
        ("team/resnet#2", "team/resnet", "Build failed again"),
        ("bert[gfx90a]", "bert", "its build failed, without a word of why"),
    ]
    assert not any(each.image for each in entries[1:])
    assert manifest.names(entries) == [
        "team/resnet[gfx942]",
        "team/resnet",
        "team/resnet[team/resnet#2]",
        "bert[gfx90a]",
    ]


def test_what_another_machine_found_out_about_itself_is_left_behind() -> None:
    found = read(TOOL)
    assert found.context["docker_env_vars"] == {"OMP_NUM_THREADS": "8", "HF_TOKEN": "planted-token"}
    assert "docker_gpus" not in found.context
    assert found.credentials_required == ("hub",)


def test_secrets_that_the_replaced_tool_wrote_down_hide_themselves() -> None:
    assert "planted-token" not in repr(read(TOOL))


@pytest.mark.parametrize(
    ("deployment", "context", "target", "deploy"),
    [
        ({"target": "local"}, {}, "docker", None),
        ({"target": "docker"}, {}, "docker", None),
        ({"target": "host"}, {}, "host", "host"),
        ({"target": "slurm", "slurm": {}}, {}, "slurm", None),
        ({"target": "slurm"}, {}, "slurm", "slurm"),
        ({"target": "k8s", "kubernetes": {}}, {}, "k8s", None),
        ({"target": "local", "slurm": {}}, {}, "docker", "local"),
        ({"target": "slurm", "slurm": {}, "k8s": {}}, {}, "slurm", "slurm"),
        ({"target": "local", "deploy": "host"}, {}, "host", "host"),
        ({"target": "local"}, {"deploy": "slurm"}, "slurm", "slurm"),
        ({}, {"slurm": {}}, "slurm", None),
        (None, None, "docker", None),
    ],
)
def test_a_target_becomes_deploy_where_nothing_else_implies_it(
    deployment: object, context: object, target: str, deploy: str | None
) -> None:
    layer = read(small(deployment_config=deployment, context=context)).context
    assert layer.get("deploy") == deploy
    assert validated(layer, dotted, set).target() == target


def test_an_image_that_was_named_instead_of_built_is_taken_as_it_is() -> None:
    image = {
        "image_name": "rocm/vllm:1",
        "docker_image": "rocm/vllm:1",
        "local_image": True,
        "dockerfile": "",
        "build_time": 0,
        "prebuilt": True,
    }
    model = {
        "name": "m",
        "image": "rocm/vllm:1",
        "docker_image": "rocm/vllm:1",
        "n_gpus": "8",
        "tags": ["a"],
        "slurm": {"nodes": 2},
        "env_vars": {"DOCKER_IMAGE_NAME": "rocm/vllm:1"},
        "prebuilt": True,
    }
    (found,) = read({"built_images": {"m": image}, "built_models": {"m": model}}).entries
    assert found.image == Image("rocm/vllm:1")
    assert (found.card.scripts, found.card.n_gpus, found.card.slurm) == ("", 8, {"nodes": 2})


def test_an_image_of_the_machine_has_no_dockerfile() -> None:
    image = {
        "docker_image": "mine:1",
        "dockerfile": "N/A (local image mode)",
        "build_status": "SKIPPED",
        "build_time": 0,
        "local_image": True,
        "registry_image": None,
    }
    context = {"MAD_CONTAINER_IMAGE": "mine:1", "guest_os": "UBUNTU"}
    found = read(small(image, local_image_mode=True, local_image_name="mine:1", context=context))
    assert found.entries[0].image == Image("mine:1")
    assert found.context == {"guest_os": "UBUNTU"}


def test_an_image_that_a_compute_node_built_is_the_one_in_the_registry() -> None:
    image = {
        "image_name": "reg.example/ml:m",
        "docker_image": "reg.example/ml:m",
        "local_image": "ci-m_m.ubuntu.amd",
        "dockerfile": "docker/m.ubuntu.amd.Dockerfile",
        "build_time": 0,
        "built_on_compute": True,
        "registry": "reg.example/ml",
    }
    (found,) = read(small(image, {"name": "m", "built_on_compute": True})).entries
    assert found.image == Image("reg.example/ml:m", dockerfile="docker/m.ubuntu.amd.Dockerfile")


@pytest.mark.parametrize(
    ("remote", "reference"),
    [
        ("reg.example:5000/a/b:1.2", f"reg.example:5000/a/b@{DIGEST}"),
        ("reg.example:5000/a/b", f"reg.example:5000/a/b@{DIGEST}"),
        ("team/b:x", f"team/b@{DIGEST}"),
        (f"team/b:x@{DIGEST}", f"team/b@{DIGEST}"),
        ("b", f"b@{DIGEST}"),
    ],
)
def test_a_registrys_digest_beats_every_name(remote: str, reference: str) -> None:
    image = {"docker_image": "ci-m:1", "registry_image": remote, "digest": DIGEST}
    (found,) = read(small(image)).entries
    assert found.image == Image(reference, registry_image=remote, registry_digest=DIGEST)


def test_a_digest_without_a_registry_image_pins_nothing() -> None:
    (found,) = read(small({"docker_image": "ci-m:1", "digest": DIGEST})).entries
    assert found.image == Image("ci-m:1", registry_digest=DIGEST)


@pytest.mark.parametrize(
    ("data", "faults"),
    [
        ([], [": found []; valid: an object"]),
        (
            {},
            [
                ": 'built_images' is missing; valid: it must be given",
                ": 'built_models' is missing; valid: it must be given",
            ],
        ),
        (
            {"built_images": [], "built_models": None},
            ["built_images: found []; valid: an object", "built_models: found None; valid: an object"],
        ),
        (small("x"), ["built_images.k: found 'x'; valid: an object"]),
        (small({}), ["built_images.k: no image is named; valid: 'docker_image' or 'registry_image' with a name"]),
        (
            small({"docker_image": "a", "build_duration": -1}),
            ["built_images.k.build_duration: found -1; valid: greater than or equal to 0"],
        ),
        (small({"docker_image": 7}), ["built_images.k.docker_image: found 7; valid: a string"]),
        (small(model=3), ["built_models.k: found 3; valid: an object"]),
        (small(model={"scripts": "x"}), ["built_models.k: 'name' is missing; valid: it must be given"]),
        (
            small(model={"name": "m", "n_gpus": "many", "env_vars": {"HF_TOKEN": ["planted"]}}),
            [
                "built_models.k.n_gpus: found 'many'; valid: a whole number",
                "built_models.k.env_vars.HF_TOKEN: found ***; valid: a string",
            ],
        ),
        (
            small(model={"name": "m", "distributed": {"launchr": "x"}}),
            [f"built_models.k.distributed.launchr: unknown key 'launchr'; {DISTRIBUTED}; did you mean 'launcher'?"],
        ),
        (
            {"built_images": {"ci-bert": {"docker_image": "a"}}, "built_models": {"ci-brt": {"name": "m"}}},
            [
                "built_images.ci-bert: the image 'ci-bert' has no model; valid: the same key in built_models; "
                "did you mean 'ci-brt'?",
                "built_models.ci-brt: the model 'ci-brt' has no image; valid: the same key in built_images; "
                "did you mean 'ci-bert'?",
            ],
        ),
        (
            {"built_images": {"a::b": {"docker_image": "a"}}, "built_models": {"a::b": {"name": "m"}}},
            [
                "built_models.a::b: found the key 'a::b'; "
                "valid: a key that is not empty, without '::' and control characters"
            ],
        ),
        (small(context=[]), ["context: found []; valid: an object"]),
        (small(deployment_config={"target": 3}), ["deployment_config.target: found 3; valid: a string"]),
        (small(secrets_required="HF_TOKEN"), ["secrets_required: found ***; valid: a list"]),
        (small(summary={"failed_builds": {"m": 1}}), ["summary.failed_builds: found {'m': 1}; valid: a list"]),
        (
            small(summary={"failed_builds": [{"error": "x"}, {"model": "a::b"}, {"model": "a", "key": "\n"}]}),
            [
                "summary.failed_builds[0]: 'model' is missing; valid: it must be given",
                "summary.failed_builds[1].model.name: found 'a::b'; valid: a name without '::' and control characters",
                "summary.failed_builds[2].key: found the key '\\n'; "
                "valid: a key that is not empty, without '::' and control characters",
            ],
        ),
        (
            small(summary={"failed_builds": [{"model": "a", "card": {"name": "a", "distributed": {"nodes": 1}}}]}),
            [
                "summary.failed_builds[0].card.distributed.nodes: unknown key 'nodes'; "
                f"{DISTRIBUTED}; did you mean 'nnodes'?"
            ],
        ),
        (
            small(deployment_confg={}),
            [
                "deployment_confg: unknown key 'deployment_confg'; valid: built_images, built_models, context, "
                "credentials_required, deployment_config, secrets_required, summary; did you mean 'deployment_config'?"
            ],
        ),
    ],
)
def test_what_is_wrong_is_told_with_place_finding_and_what_is_valid(data: object, faults: list[str]) -> None:
    assert faults_of(data) == faults


def test_a_misspelt_key_of_an_image_is_a_fault() -> None:
    (fault,) = faults_of(small({"docker_image": "a", "registry_imge": "b"}))
    assert fault.startswith("built_images.k.registry_imge: unknown key 'registry_imge'; valid: base_docker, ")
    assert fault.endswith("; did you mean 'registry_image'?")


def test_a_key_that_resembles_none_is_another_programs() -> None:
    image = {"docker_image": "a", "scanned_at": "noon"}
    assert len(read(small(image, version=3, summary={"warnings": []})).entries) == 1


def test_faults_of_all_parts_are_told_at_once() -> None:
    data = small({"build_duration": "long"}, {"n_gpus": "x"}, summary={"failed_builds": [1]})
    assert len(faults_of(data)) == 4


@pytest.mark.parametrize(
    ("entries", "names"),
    [
        ([], []),
        ([entry("a", "ci-a"), entry("b", "ci-b")], ["a", "b"]),
        ([entry("ar", "ar[gfx90a]", "gfx90a")], ["ar[gfx90a]"]),
        ([failed("ar", "ar[gfx90a]")], ["ar[gfx90a]"]),
        ([entry("ar", "ci-ar", "gfx90a")], ["ar"]),
        ([entry("a", "a"), failed("a", "a[2]")], ["a", "a[2]"]),
        ([entry("a", "ci-1", "gfx942"), entry("a", "ci-2", "gfx90a")], ["a[gfx942]", "a[gfx90a]"]),
        ([entry("a", "ci-1", "gfx942"), entry("a", "ci-2", "gfx942")], ["a[ci-1]", "a[ci-2]"]),
        ([entry("a", "ci-1", "gfx942"), entry("a", "ci-2")], ["a[gfx942]", "a[ci-2]"]),
        ([entry("a", "ci-1", "gfx942"), failed("a", "a[gfx942]")], ["a[ci-1]", "a[gfx942]"]),
        ([entry("a", "1"), entry("a", "2"), entry("a[1]", "3")], ["a[1]", "a[2]", "a[1][3]"]),
        ([entry("a[1]", "3"), entry("a", "1"), entry("a", "2")], ["a[1]", "a[1]#2", "a[2]"]),
    ],
)
def test_entries_are_called_by_what_tells_them_apart(entries: list[Entry], names: list[str]) -> None:
    assert manifest.names(entries) == names


words = st.text("ab[]1", min_size=1, max_size=3)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(words, words, st.sampled_from(["", "1", "a"]), st.booleans()), unique_by=lambda each: each[1])
)
def test_no_two_entries_have_one_name(parts: list[tuple[str, str, str, bool]]) -> None:
    entries = [entry(name, key, arch) if built else failed(name, key) for name, key, arch, built in parts]
    assert len(set(manifest.names(entries))) == len(entries)


def test_what_is_written_holds_both_kinds_of_keys() -> None:
    image = Image(
        "ci-bert:12",
        digest="sha256:id",
        dockerfile="docker/bert.Dockerfile",
        base="rocm:6",
        base_digest="sha256:base",
        build_duration=2.5,
        log="build.log",
        rocm_root="/opt/rocm",
        content="c0ffee",
        command="docker buildx build",
        vendor="AMD",
        architecture="gfx942",
        registry_image="localhost:5000/ci-bert:12",
        registry_digest=DIGEST,
    )
    card = Model.model_validate(
        {"name": "bert", "scripts": "scripts/bert", "cred": "hub", "env_vars": {"A": "1"}, "owner_team": "x"}
    )
    found = written(
        Entry("bert", card, image),
        failed("gpt", error="exit 1"),
        context={"deploy": "docker", "docker_gpus": "0", "slurm": {"partition": "p"}, "debug": True},
    )
    expected_image = {
        "model": "bert",
        "docker_image": "ci-bert:12",
        "dockerfile": "docker/bert.Dockerfile",
        "base_docker": "rocm:6",
        "docker_sha": "sha256:base",
        "build_duration": 2.5,
        "build_command": "docker buildx build",
        "log_file": "build.log",
        "gpu_vendor": "AMD",
        "gpu_architecture": "gfx942",
        "image_id": "sha256:id",
        "digest": DIGEST,
        "content_hash": "c0ffee",
        "rocm_root": "/opt/rocm",
        "registry": "localhost:5000",
        "registry_image": "localhost:5000/ci-bert:12",
    }
    assert found["built_images"] == {"bert": expected_image}
    written_card = found["built_models"]["bert"]
    assert (
        written_card.items()
        >= {
            "name": "bert",
            "scripts": "scripts/bert",
            "owner_team": "x",
            "docker_image": "ci-bert:12",
            "docker_sha": "sha256:base",
            "build_duration": 2.5,
            "built_on_compute": False,
            "env_vars": {"A": "1", "DOCKER_IMAGE_NAME": "localhost:5000/ci-bert:12"},
        }.items()
    )
    assert written_card.keys() >= Model.model_fields.keys()
    assert found["context"] == {"deploy": "docker", "docker_gpus": "0"}
    assert found["credentials_required"] == ["hub"]
    assert found["deployment_config"] == {"target": "local", "slurm": {"partition": "p"}, "debug": True}
    assert found["summary"] == {
        "total": 2,
        "success": 1,
        "failed": 1,
        "total_build_time": 2.5,
        "successful_builds": [expected_image],
        "failed_builds": [
            {"model": "gpt", "key": "gpt", "error": "exit 1", "card": Model(name="gpt").model_dump(mode="json")}
        ],
        "successful_pushes": [
            {"image": "ci-bert:12", "registry": "localhost:5000", "registry_image": "localhost:5000/ci-bert:12"}
        ],
        "failed_pushes": [],
    }


def test_an_image_that_was_not_pushed_has_no_registry() -> None:
    found = written(entry("a"))
    assert found["built_images"]["a"].keys().isdisjoint({"registry", "registry_image", "push_error"})
    assert "DOCKER_IMAGE_NAME" not in found["built_models"]["a"]["env_vars"]


def test_a_push_that_failed_is_told_where_the_replaced_tool_looks_for_it() -> None:
    found = written(entry("a"), failed("b"), lost=[LostPush("a", "team/a:1", "denied"), LostPush("b", "b", "no route")])
    assert found["built_images"]["a"]["push_error"] == "denied"
    assert found["summary"]["failed_pushes"] == [
        {"image": "ci-x", "registry": "docker.io/team", "intended_registry_image": "team/a:1", "error": "denied"},
        {"image": "b", "registry": "docker.io", "intended_registry_image": "b", "error": "no route"},
    ]


@pytest.mark.parametrize(
    ("context", "target"),
    [
        ({}, "local"),
        ({"deploy": "host"}, "host"),
        ({"k8s": {}}, "k8s"),
        ({"deploy": "kubernetes"}, "k8s"),
        ({"slurm": {"nodes": 2}}, "slurm"),
        ({"slurm": {}, "deploy": "docker"}, "local"),
    ],
)
def test_the_target_is_written_in_the_replaced_tools_words(context: dict[str, Any], target: str) -> None:
    assert written(context=context)["deployment_config"]["target"] == target


def test_a_context_without_deploy_leaves_a_later_run_its_choice() -> None:
    assert "deploy" not in read(written(entry("a"), context={"slurm": {}})).context
    assert "deploy" not in read(written(entry("a"))).context


SECRETS: dict[str, Any] = {
    "docker_env_vars": {"HF_TOKEN": "planted-1", "MAD_SECRETS_A": "planted-2", "OMP": "say planted-1 aloud"},
    "env_vars": {"WANDB_API_KEY": "planted-3"},
    "docker_build_arg": {"GIT_PASSWORD": "planted-4"},
    "secrets": {"S3_KEY": "planted-5"},
    "slurm": {"rest": {"api_token": "planted-6", "url": "https://u:planted-6@h"}},
    "k8s": {
        "secrets": {
            "strategy": "omit",
            "image_pull_secret_names": ["regcred"],
            "runtime_secret_name": "run",
            "S3_KEY": "planted-7",
        },
        "env": [{"password": {"deep": ["planted-8"]}}],
    },
    "docker_mounts": {"/root/.hf_token": "/home/me/.hf_token"},
}


def test_no_secret_stands_in_what_is_written() -> None:
    card = Model.model_validate(
        {
            "name": "m",
            "args": "--key planted-9 --seen planted-known",
            "env_vars": {"DB_PASSWORD": "planted-9", "MAD_SECRETS_B": "planted-10"},
            "upload": {"access_key": "planted-11", "bucket": "b"},
            "secrets": {"S3_KEY": "planted-12"},
        }
    )
    image = Image("ci-m", command="build --arg planted-known", log="planted-12.log")
    lost = Entry("x", card.model_copy(update={"name": "x"}), None, "error near planted-known and planted-9")
    found = written(Entry("m", card, image), lost, context=SECRETS, masker=Masker(["planted-known"]))
    assert "planted" not in json.dumps(found)
    assert found["secrets_required"] == ["DB_PASSWORD", "HF_TOKEN", "S3_KEY", "WANDB_API_KEY"]
    assert found["context"]["docker_env_vars"] == {"OMP": "say *** aloud"}
    assert "secrets" not in found["context"]
    assert found["built_models"]["m"]["args"] == "--key *** --seen ***"
    assert found["built_models"]["m"]["upload"] == {"bucket": "b"}
    assert found["summary"]["failed_builds"][0]["error"] == "error near *** and ***"


def test_names_and_paths_stay_whatever_secrets_they_resemble() -> None:
    words = ["docker", "myteam", "mybert", "sha256", "gfx942"]
    image = Image(
        "ci-mybert:12",
        digest="sha256:id",
        dockerfile="docker/mybert.Dockerfile",
        base="myteam/base",
        content="mybert",
        architecture="gfx942",
        registry_image="localhost:5000/myteam/mybert:12",
        registry_digest=DIGEST,
        command="docker buildx build",
    )
    card = Model(name="mybert", dockerfile="docker/mybert", args="--of myteam")
    lost = Entry("other", Model(name="other", dockerfile="docker/x"), None, "docker broke")
    entries = [Entry("mybert", card, image), lost]
    found = written(*entries, masker=Masker(words), lost=[LostPush("mybert", "myteam/mybert:12", "myteam is denied")])
    (read_again, read_lost) = read(found).entries
    pinned = f"localhost:5000/myteam/mybert@{DIGEST}"
    assert read_again.image == replace(image, reference=pinned, command="*** buildx build")
    assert (read_again.card.name, read_again.card.dockerfile, read_again.card.args) == (
        "mybert",
        "docker/mybert",
        "--of ***",
    )
    assert read_again.card.env_vars == {"DOCKER_IMAGE_NAME": "localhost:5000/myteam/mybert:12"}
    assert (read_lost.key, read_lost.card.dockerfile, read_lost.error) == ("other", "docker/x", "*** broke")
    (push,) = found["summary"]["failed_pushes"]
    assert (push["intended_registry_image"], push["error"]) == ("myteam/mybert:12", "*** is denied")


def test_the_names_of_a_clusters_secrets_and_paths_of_mounts_are_no_secrets() -> None:
    found = written(context=SECRETS)
    assert found["deployment_config"]["k8s"]["secrets"] == {
        "strategy": "omit",
        "image_pull_secret_names": ["regcred"],
        "runtime_secret_name": "run",
    }
    assert found["context"]["docker_mounts"] == {"/root/.hf_token": "/home/me/.hf_token"}


def test_a_model_without_an_image_requires_no_secret() -> None:
    card = Model(name="m", cred="hub", env_vars={"HF_TOKEN": "x"})
    found = written(Entry("m", card, None, "failed"))
    assert (found["secrets_required"], found["credentials_required"]) == ([], [])


def test_a_model_is_never_lost_to_another_of_its_key() -> None:
    with pytest.raises(UserError, match="two models of a build manifest have one key: a"):
        written(entry("a", "a"), entry("a", "a"))


def test_a_number_that_json_cannot_hold_is_left_open() -> None:
    card = Model.model_validate({"name": "m", "odd": [float("nan"), float("inf"), 1.5]})
    assert written(Entry("m", card, Image("x")))["built_models"]["m"]["odd"] == [None, None, 1.5]


printable = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=8).filter(lambda text: "::" not in text)
named = printable.filter(bool)
plain_keys = st.text("abc_xyz", min_size=1, max_size=6)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | printable,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain_keys, inner, max_size=3),
    max_leaves=4,
)
cards = st.fixed_dictionaries(
    {"name": named},
    optional={
        "dockerfile": printable,
        "scripts": printable,
        "n_gpus": st.integers(-1, 16),
        "timeout": st.none() | st.integers(-1, 9),
        "tags": st.lists(named, max_size=2),
        "args": printable,
        "cred": st.sampled_from(["", "hub"]),
        "distributed": st.fixed_dictionaries({}, optional={"nnodes": st.integers(1, 4), "launcher": printable}),
        "slurm": st.dictionaries(plain_keys, plain, max_size=2),
        "env_vars": st.dictionaries(plain_keys, printable, max_size=2),
        "log_error_patterns": st.none() | st.lists(named, max_size=2),
        "own_key": plain,
    },
).map(Model.model_validate)
pushed = st.sampled_from([("", ""), ("localhost:5000/ci-x:1", ""), ("team/ci-x:1", DIGEST)])
images = st.builds(
    lambda fields, push: Image(**fields, registry_image=push[0], registry_digest=push[1]),
    st.fixed_dictionaries(
        {"reference": named},
        optional={
            **dict.fromkeys(("digest", "base", "base_digest", "log", "rocm_root", "content", "command"), printable),
            "dockerfile": printable,
            "build_duration": st.floats(0, 1e6),
            "vendor": st.sampled_from(["", "AMD", "NVIDIA"]),
            "architecture": st.sampled_from(["", "gfx942"]),
        },
    ),
    pushed,
)
some = st.lists(
    st.builds(Entry, named, cards, images) | st.builds(Entry, named, cards, st.none(), named),
    max_size=4,
    unique_by=lambda each: each.key,
)
contexts = st.fixed_dictionaries(
    {},
    optional={
        "deploy": st.sampled_from(["local", "docker", "host", "slurm", "k8s"]),
        "slurm": st.dictionaries(plain_keys, plain.filter(lambda value: value is not None), max_size=2),
        "docker_env_vars": st.dictionaries(plain_keys, printable, max_size=2),
        "env_vars": st.dictionaries(plain_keys, printable, max_size=2),
        "docker_mounts": st.dictionaries(printable, printable, max_size=2),
        "timeout": st.integers(0, 9),
        "debug": st.booleans(),
    },
)


def as_read(each: Entry) -> Entry:
    """What a reader of the manifest gets: pinned where that is possible, the card with what was added to it."""
    image = each.image
    if image is None:
        return each
    name = image.registry_image
    reference = f"{name.removesuffix(':1')}@{image.registry_digest}" if image.registry_digest else name
    variables = {**each.card.env_vars, "DOCKER_IMAGE_NAME": name} if name else each.card.env_vars
    return replace(
        each,
        card=each.card.model_copy(update={"env_vars": variables}),
        image=replace(image, reference=reference or image.reference),
    )


@settings(deadline=None, max_examples=50)
@given(some, contexts)
def test_what_was_written_is_read_again(entries: list[Entry], context: dict[str, Any]) -> None:
    document = json.loads(json.dumps(written(*entries, context=context)))
    found = read(document)
    expected = sorted(map(as_read, entries), key=lambda each: each.image is None)
    assert list(found.entries) == expected
    assert found.context == context
    Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8"))).validate(document)


@settings(deadline=None, max_examples=50)
@given(some, contexts)
def test_a_manifest_is_the_same_after_reading_and_writing_it(entries: list[Entry], context: dict[str, Any]) -> None:
    once = read(written(*entries, context=context))
    again = read(written(*once.entries, context=once.context))
    assert again == once


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
frames = st.fixed_dictionaries(
    {},
    optional={
        "built_images": json_values | st.dictionaries(st.sampled_from("ab"), json_values),
        "built_models": json_values | st.dictionaries(st.sampled_from("ab"), json_values),
        "context": json_values,
        "summary": json_values | st.fixed_dictionaries({"failed_builds": json_values}),
        "deployment_config": json_values,
        "secrets_required": json_values,
    },
)


@settings(deadline=None, max_examples=50)
@given(frames | json_values)
def test_any_json_is_a_manifest_or_faults(data: object) -> None:
    try:
        found = read(data).entries
    except FaultsError:
        found = ()
    assert all(each.image or each.error for each in found)


def built(duration: float, image_id: str = "sha256:id", content: str = "c0ffee") -> Entry:
    image = Image("ci-a", digest=image_id, content=content, build_duration=duration)
    return Entry(
        "a", Model(name="a"), image if not duration else replace(image, log="first.log", command="docker build")
    )


def test_a_build_that_built_nothing_writes_the_same_again() -> None:
    first = written(built(12.5), failed("b"))
    again = manifestcontent.kept(written(built(0), failed("b")), json.loads(json.dumps(first)))
    assert json.dumps(again) == json.dumps(first)
    assert again["summary"]["total_build_time"] == 12.5


@pytest.mark.parametrize(
    "new",
    [built(3.5), built(0, image_id="sha256:other"), built(0, content="other"), built(0, image_id="", content="")],
)
def test_another_build_is_told_as_it_was(new: Entry) -> None:
    document = written(new)
    assert manifestcontent.kept(document, written(built(12.5))) == document


@pytest.mark.parametrize(
    "old",
    [
        {},
        {"built_images": None},
        {"built_images": []},
        {"built_images": {"a": 3}},
        {"built_images": {"a": {"image_id": "sha256:id", "content_hash": "c0ffee", "build_duration": "long"}}},
        {"built_images": {"b": {"image_id": "sha256:id", "content_hash": "c0ffee", "build_duration": 2}}},
        TOOL,
    ],
)
def test_what_stood_in_the_file_before_may_be_anything(old: dict[str, Any]) -> None:
    document = written(built(0))
    assert manifestcontent.kept(document, old) == document


def test_the_schema_is_published() -> None:
    schema = manifest.schema()
    Draft202012Validator.check_schema(schema)
    golden.compare(f"{json.dumps(schema, indent=2)}\n", SCHEMA)


@pytest.mark.parametrize("key", ["built_images", "built_models", "summary", "deployment_config", "secrets_required"])
def test_the_schema_wants_every_part(key: str) -> None:
    document = written(entry("a"), failed("b"))
    validator = Draft202012Validator(manifest.schema())
    assert validator.is_valid(document)
    del document[key]
    assert not validator.is_valid(document)


def test_the_schema_lets_cards_hold_more_but_not_images() -> None:
    document = written(entry("a"))
    validator = Draft202012Validator(manifest.schema())
    document["built_models"]["a"]["more"] = 1
    assert validator.is_valid(document)
    document["built_images"]["a"]["more"] = 1
    assert not validator.is_valid(document)
