from __future__ import annotations

from pathlib import Path
from typing import Any

from pytest_madengine.context import presets
from pytest_madengine.context.context import Context
from pytest_madengine.context.machine import Machine
from pytest_madengine.images.image import Image
from pytest_madengine.jobs import variables
from pytest_madengine.jobs.compose import Session
from pytest_madengine.jobs.job import Devices
from pytest_madengine.launchers import vllm
from pytest_madengine.models.model import Model, Source

SHELL = {"NCCL_DEBUG": "TRACE", "RANK": "3", "MAD_SECRETS_X": "of-the-shell", "BUILD_NUMBER": "7"}
HERE = Machine("here", "AMD", 4, "gfx942")
(VLLM,) = vllm.LAUNCHERS


def in_pods(context: dict[str, Any], **card: Any) -> dict[str, str]:
    """What a model finds in a pod with an NVIDIA GPU."""
    model = Model.model_validate({"name": "m", "n_gpus": "1", **card})
    session = Session("run-1", Context.model_validate(context), HERE, {}, {}, SHELL, cluster="k8s")
    merged = presets.for_pods(model, session.context, Source(Path("models.json"), 1, Path()))
    devices = Devices("NVIDIA", (0,))
    return variables.stated(model, session, Image("a/b:1"), devices, VLLM, merged)


def test_presets_card_and_context_reach_a_pod_and_this_machine_does_not() -> None:
    distributed = {"launcher": "vllm", "nnodes": 2}
    found = in_pods({"env_vars": {"A": "context", "B": "context"}}, env_vars={"A": "card"}, distributed=distributed)
    expected = {
        "A": "context",
        "B": "context",
        "OMP_NUM_THREADS": "8",
        "NCCL_TIMEOUT": "600",
        "NCCL_DEBUG": "WARN",
        "MAD_GPU_VENDOR": "NVIDIA",
        "MAD_RUNTIME_NGPUS": "1",
        "MAD_LAUNCHER_TYPE": "vllm",
        "DISTRIBUTED_BACKEND": "nccl",
        "DOCKER_IMAGE_NAME": "a/b:1",
        "JENKINS_BUILD_NUMBER": "7",
    }
    assert {name: found.get(name) for name in expected} == expected
    strange = {name for name in found if name.startswith("MAD_SYSTEM_")} | {"RANK", "MIOPEN_USER_DB_PATH", "ROCM_PATH"}
    assert not strange & found.keys()


def test_what_card_or_context_state_wins_over_presets() -> None:
    stated = {"OMP_NUM_THREADS": "1"}
    assert in_pods({}, env_vars=stated)["OMP_NUM_THREADS"] == "1"
    assert in_pods({"docker_env_vars": stated})["OMP_NUM_THREADS"] == "1"


def test_secrets_are_those_of_the_shell_the_card_and_the_context() -> None:
    context = Context.model_validate({"secrets": {"B": "two"}, "env_vars": {"API_KEY": "three", "PLAIN": "shown"}})
    session = Session("run-1", context, HERE, {}, {"GIT": {"username": "me", "password": "four"}}, SHELL)
    model = Model.model_validate({"name": "m", "cred": "GIT", "env_vars": {"HF_TOKEN": "one"}})
    assert variables.secrets(model, session) == {
        "MAD_SECRETS_X": "of-the-shell",
        "GIT_USERNAME": "me",
        "GIT_PASSWORD": "four",
        "HF_TOKEN": "one",
        "API_KEY": "three",
        "B": "two",
    }
