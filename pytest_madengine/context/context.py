"""The merged configuration, typed, and the questions that the rest asks of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from pytest_madengine.context.kubernetes import ALIASES, Kubernetes
from pytest_madengine.context.slurm import TRANSLATED, Slurm
from pytest_madengine.errors import Fault, FaultsError, nearest
from pytest_madengine.models.model import UNDISTRIBUTED, Distributed, Model
from pytest_madengine.secrets import Secret
from pytest_madengine.validation import EnvVars, Path, Patterns, Switch, Text, faults, unknown_key

UNBUILT = {
    "tools": "profiling tools do not run in this version",
    "deployment_config": "belongs to a build manifest, which --madengine-manifest takes",
    "data": "data providers do not run in this version",
    "shared_data": "data providers do not run in this version",
}
"""Keys whose effect this version lacks: refusing them beats a run without what was asked for."""

DEPLOYMENTS = {"local": "docker", "kubernetes": "k8s"}
"""Words of `deploy` that are no names of targets."""


MOUNT = {"host_path", "container_path"}


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _seconds(value: float) -> float:
    if not math.isfinite(value) or (value < 0 and value != -1):
        raise ValueError("seconds, 0 (no limit) or -1 (default)")
    return value


def _mounts(value: object) -> object:
    """`docker_mounts` in both documented shapes as {container path: host path}."""
    entries: list[Any] = value if isinstance(value, list) else [value]
    if all(isinstance(entry, Mapping) and entry.keys() == MOUNT for entry in entries):
        return {str(entry["container_path"]): entry["host_path"] for entry in entries}
    return value


class Script(BaseModel):
    """A script to run before or after the model: a path from the project's root and its arguments."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(min_length=1)
    args: Text = ""


def _script(value: object) -> object:
    return {"path": value} if isinstance(value, str) else value


def _all_hidden(variables: dict[str, str]) -> dict[str, str]:
    return {name: Secret(value) for name, value in variables.items()}


Count = Annotated[int | None, Field(ge=-1)]
Scripts = tuple[Annotated[Script, BeforeValidator(_script)], ...]


class Context(BaseModel):
    """What `--madengine-context-file` and `--madengine-context` say together.

    Attributes:
        gpu_vendor: AMD or NVIDIA; None where only the machine can tell.
        docker_gpus: GPU indices such as `0,2-4`, or `all`.
        docker_mounts: container path to host path.
        model_args: replaces the arguments of every card.
        header: every key that `# CONTEXT` headers may compare, with its value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    gpu_vendor: Annotated[Literal["AMD", "NVIDIA"] | None, BeforeValidator(_upper)] = None
    guest_os: Annotated[Literal["UBUNTU", "CENTOS"], BeforeValidator(_upper)] = "UBUNTU"
    rocm_root: str | None = Field(None, alias="MAD_ROCM_PATH")
    docker_env_vars: EnvVars = Field(default_factory=dict)
    docker_build_arg: EnvVars = Field(default_factory=dict)
    docker_gpus: Annotated[str | None, BeforeValidator(lambda v: str(v) if isinstance(v, int) else v)] = None
    docker_cpus: str | None = None
    docker_mounts: Annotated[dict[str, str], BeforeValidator(_mounts)] = Field(default_factory=dict)
    docker_image: str | None = None
    container_image: str | None = Field(None, alias="MAD_CONTAINER_IMAGE")
    k8s: Kubernetes | None = None
    kubernetes: Kubernetes | None = None
    slurm: Slurm | None = None
    deploy: Literal["local", "docker", "host", "slurm", "k8s", "kubernetes"] | None = None
    distributed: Distributed = UNDISTRIBUTED
    launcher: dict[str, Any] | None = None
    vllm: dict[str, Any] = Field(default_factory=dict)
    primus: dict[str, Any] = Field(default_factory=dict)
    secrets: Annotated[EnvVars, AfterValidator(_all_hidden)] = Field(default_factory=dict)
    env_vars: EnvVars = Field(default_factory=dict)
    pre_scripts: Scripts = ()
    post_scripts: Scripts = ()
    encapsulate_script: str = ""
    model_args: str | None = None
    timeout: Annotated[float, AfterValidator(_seconds)] | None = None
    log_error_pattern_scan: Switch = None
    log_error_patterns: Patterns | None = None
    log_error_benign_patterns: Patterns = ()
    rocenv_mode: Literal["lite", "full"] = "lite"
    gen_sys_env_details: bool = True
    generate_sys_env_details: bool = True
    gpu_render_nodes: tuple[int, ...] | None = Field(None, alias="gpu_renderDs")
    gpus_per_node: Count = None
    gpu_count: Count = None
    n_gpus: Count = None
    num_gpus: Count = None
    ngpus: Count = None
    monitor: bool = True
    cleanup_on_failure: bool = True
    skip_perf_collection: bool = False
    debug: bool = False
    host_os: str | None = None
    ctx_test: str | None = None
    numa_balancing: Any = None
    rocm_path: str | None = None
    header: dict[str, Any] = Field(default_factory=dict)

    @field_validator("docker_gpus")
    @classmethod
    def _known_form(cls, gpus: str | None) -> str | None:
        if gpus is not None:
            parse_gpus(gpus)
        return gpus

    @field_validator("docker_env_vars")
    @classmethod
    def _gpu_count_is_a_number(cls, variables: dict[str, str]) -> dict[str, str]:
        if not variables.get("MAD_SYSTEM_NGPUS", "0").isdecimal():
            raise ValueError("MAD_SYSTEM_NGPUS as a whole number")
        return variables

    @field_validator("kubernetes")
    @classmethod
    def _under_one_name(cls, pods: Kubernetes | None, info: ValidationInfo) -> Kubernetes | None:
        if pods is not None and info.data.get("k8s") is not None:
            raise ValueError("one of 'k8s' and 'kubernetes', which mean the same")
        return pods

    @property
    def pods(self) -> Kubernetes | None:
        """What Kubernetes is asked for, under either name."""
        return self.k8s if self.k8s is not None else self.kubernetes

    @property
    def image(self) -> str | None:
        """The image to run instead of building one."""
        return self.container_image or self.docker_image

    @property
    def gpus(self) -> int | None:
        """GPUs per node where the context says so; the first of the five spellings counts."""
        counts = (self.gpus_per_node, self.gpu_count, self.n_gpus, self.num_gpus, self.ngpus)
        return next((count for count in counts if count is not None), None)

    def target(self) -> str:
        """Where to run when no option says so: `deploy`, else Kubernetes or SLURM if configured, else Docker.

        Raises:
            FaultsError: it configures both.
        """
        if self.deploy:
            return DEPLOYMENTS.get(self.deploy, self.deploy)
        kubernetes = self.pods is not None
        if kubernetes and self.slurm is not None:
            valid = "one of them, 'deploy' or --target"
            raise FaultsError([Fault("context", "both 'k8s' and 'slurm' are given", valid)])
        return "k8s" if kubernetes else "slurm" if self.slurm is not None else "docker"

    def given(self) -> dict[str, Any]:
        """What was stated, as plain data that gives this context again."""
        stated = self.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"header"})
        return {**self.header, **stated}

    def applied_to(self, model: Model) -> Model:
        """The card with what the context replaces in it: its arguments."""
        return model if self.model_args is None else model.model_copy(update={"args": self.model_args})

    def distribution(self, model: Model) -> Distributed:
        """The card's `distributed` with the context's over it, key by key."""
        return model.distributed.model_copy(update=self.distributed.model_dump(exclude_unset=True))


def parse_gpus(text: str) -> list[int] | None:
    """`0,2-4` as [0, 2, 3, 4]; None stands for all.

    Raises:
        ValueError: it is neither indices and ranges nor `all`.
    """
    if text.strip() in ("", "all"):
        return None
    indices: list[int] = []
    for piece in text.split(","):
        first, dash, last = piece.strip().partition("-")
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
            raise ValueError("GPU indices and ranges such as '0,2-4', or 'all'")
        indices += range(int(first), int(last) + 1)
    return list(dict.fromkeys(indices))


def validated(values: Mapping[str, Any], where: Callable[[Path], str], header_keys: Callable[[], set[str]]) -> Context:
    """The merged configuration typed.

    Args:
        values: the merged layers; keys that begin with `_` are comments.
        where: renders a key path as the reader finds it in the input.
        header_keys: the keys that the project's Dockerfiles compare in their `# CONTEXT` lines; asked only
            when a key is not known otherwise.

    Raises:
        FaultsError: every wrong, unknown, misplaced or unavailable key at once.
    """
    given = {key: value for key, value in values.items() if not key.startswith("_")}
    known = {field.alias or name for name, field in Context.model_fields.items()} - {"header"}
    strange = given.keys() - known - UNBUILT.keys()
    compared = header_keys() & strange if strange else set()
    found = [Fault(where((key,)), text, "leave it out") for key, text in UNBUILT.items() if given.get(key)]
    found += [_misplaced(key, given[key], known, where) for key in sorted(strange - compared)]
    fields = {key: value for key, value in given.items() if key in known}
    try:
        context = Context.model_validate(fields)
    except ValidationError as error:
        raise FaultsError([*found, *faults(error, Context, where)]) from None
    if found:
        raise FaultsError(found)
    named = {key: value for key, value in given.items() if isinstance(value, str | int | float)}
    return context.model_copy(update={"header": named})


def _misplaced(key: str, value: object, known: set[str], where: Callable[[Path], str]) -> Fault:
    owners = [owner for owner, keys in OWNERS.items() if key in keys]
    if not owners or nearest(key, known) == key:
        return unknown_key((key,), known, where)
    example = f"{owners[0]}.{key}"
    return Fault(
        where((key,)),
        f"{key!r} does not belong here (found {value!r:.40})",
        f"under {' or '.join(owners)}: {example}",
    )


OWNERS: dict[str, frozenset[str]] = {
    "slurm": frozenset([*Slurm.model_fields, *TRANSLATED]),
    "k8s": frozenset([*Kubernetes.model_fields, *ALIASES]),
    "distributed": frozenset(Distributed.model_fields) - {"launcher", "primus"},
}
"""Which object a key belongs to that people write at the top level."""
