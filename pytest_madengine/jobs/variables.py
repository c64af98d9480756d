"""The variables of a job: what a model finds in its environment, and which of it may not be shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_madengine.context import credentials
from pytest_madengine.context.context import Context
from pytest_madengine.context.presets import OnCluster
from pytest_madengine.errors import UserError
from pytest_madengine.images.image import Image
from pytest_madengine.jobs.job import Devices
from pytest_madengine.launchers.base import Launcher
from pytest_madengine.models.model import Model
from pytest_madengine.secrets import Secret, is_secret, secrets_of_environment

if TYPE_CHECKING:
    from pytest_madengine.jobs.compose import Session

PASSED_ON = (
    *("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK", "NODE_RANK", "NNODES", "NPROC_PER_NODE"),
    *(
        "MAD_MULTI_NODE_RUNNER",
        "MAD_COLLECT_METRICS",
        "NCCL_SOCKET_IFNAME",
        "GLOO_SOCKET_IFNAME",
        "NCCL_DEBUG",
    ),
    *("NCCL_IB_DISABLE", "NCCL_NET_GDR_LEVEL", "PRIMUS_CONFIG_PATH", "PRIMUS_CLI_EXTRA"),
    *("TORCH_ELASTIC_RDZV_TIMEOUT", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"),
    "MIOPEN_USER_DB_PATH",
)
"""Variables of the user's shell that reach the model, as the replaced tool lets them."""


def secrets(model: Model, session: Session) -> dict[str, Secret]:
    """What the job may not show: of the user's shell, the card's credential, card and context.

    Raises:
        UserError: the card names a credential that is not there.
    """
    context = session.context
    variables = {**model.env_vars, **context.env_vars, **context.docker_env_vars}
    return {
        **secrets_of_environment(session.environ),
        **credentials.variables(model, session.credentials),
        **{name: Secret(value) for name, value in variables.items() if is_secret(name)},
        **{name: Secret(value) for name, value in context.secrets.items()},
    }


def stated(
    model: Model,
    session: Session,
    image: Image | None,
    devices: Devices,
    launcher: Launcher | None,
    merged: OnCluster | None,
) -> dict[str, str]:
    """Later sources win: presets, the user's shell, machine and model facts, card, context."""
    context = session.context
    passed = {name: session.environ[name] for name in PASSED_ON if name in session.environ}
    if "HIP_VISIBLE_DEVICES" in passed:
        passed["RAY_EXPERIMENTAL_NOSET_HIP_VISIBLE_DEVICES"] = ""
    card = {**model.env_vars, **_image_name(image)}
    named = _image_of_containers(model, launcher, image, merged)
    facts = _facts(model, session, image, devices)
    given = {**card, **context.env_vars, **context.docker_env_vars}
    if merged is None:
        return {**passed, **facts, **given, **named}
    of_nodes = {name: value for name, value in facts.items() if not name.startswith("MAD_SYSTEM_")}
    return {**_of_presets(merged), **of_nodes, **_of_launcher(launcher, merged), **given, **named}


def _of_launcher(launcher: Launcher | None, merged: OnCluster) -> dict[str, str]:
    said = {"DISTRIBUTED_BACKEND": merged.distributed.backend, "MAD_LAUNCHER_TYPE": launcher.name if launcher else ""}
    return {name: value for name, value in said.items() if value}


def _of_presets(merged: OnCluster) -> dict[str, str]:
    origins = merged.origins
    return {
        name: value
        for name, value in merged.env_vars.items()
        if name != "MIOPEN_USER_DB_PATH" and origins.get(f"env_vars.{name}", "").startswith("presets/")
    }


def _image_name(image: Image | None) -> dict[str, str]:
    """The name by which other nodes can get the image; one that was built and pushed nowhere has none."""
    named = image and (image.registry_image or (image.reference if not image.content else ""))
    return {"DOCKER_IMAGE_NAME": named} if named else {}


def _image_of_containers(
    model: Model, launcher: Launcher | None, image: Image | None, merged: OnCluster | None
) -> dict[str, str]:
    """What a script that starts its own containers is told of their image, whatever card and context call it.

    Raises:
        UserError: the nodes cannot have it.
    """
    if image is None or not (launcher and launcher.self_managed):
        return {}
    if merged and image.content and not image.registry_image:
        raise UserError(
            f"{model.name} starts its own containers, and its image {image.reference} is on this machine alone; "
            "valid: an image in a registry, as by --madengine-registry or --madengine-use-image"
        )
    return {"DOCKER_IMAGE_NAME": image.registry_image or image.reference}


def _facts(model: Model, session: Session, image: Image | None, devices: Devices) -> dict[str, str]:
    machine, context = session.machine, session.context
    vendor = devices.vendor or machine.vendor
    facts = {
        "MAD_GPU_VENDOR": vendor,
        "MAD_SYSTEM_NGPUS": str(machine.gpus),
        "MAD_SYSTEM_GPU_ARCHITECTURE": machine.architecture,
        "MAD_SYSTEM_HIP_VERSION": machine.toolkit,
        "MAD_SYSTEM_GPU_PRODUCT_NAME": machine.product,
        "MAD_RUNTIME_NGPUS": str(len(devices.gpus)),
        "MAD_GUEST_OS": context.guest_os,
        "MAD_MODEL_NAME": model.name,
        "JENKINS_BUILD_NUMBER": session.environ.get("BUILD_NUMBER", "0"),
    }
    if vendor == "AMD" and (root := _rocm_root(context, image)):
        facts["ROCM_PATH"] = root
    if model.multiple_results:
        facts["MAD_OUTPUT_CSV"] = model.multiple_results
    return facts


def _rocm_root(context: Context, image: Image | None) -> str:
    """Where ROCm is for the model; '' for an image that only nodes have seen, which says so itself."""
    stated = context.docker_env_vars.get("MAD_ROCM_PATH") or (image.rocm_root if image else "")
    unseen = bool(image and image.registry_image and not image.digest)
    return stated or ("" if unseen else "/opt/rocm")
