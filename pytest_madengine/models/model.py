"""The model card: what a models.json entry says, typed."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from pytest_madengine.results.references import References
from pytest_madengine.validation import ENV_NAME, CommaList, EnvVars, Patterns, Switch, Text

SCRIPT_SUFFIXES = (".sh", ".slurm", ".py")
Aggregate = Literal["sum", "mean", "max", "min", "rank0"]
"""How the values that several ranks measured become the job's."""


@dataclass(frozen=True)
class Source:
    """Where a card stands: its file, the 1-based line, and the project that its paths start from."""

    file: Path
    line: int
    root: Path


class Distributed(BaseModel):
    """How many processes on how many nodes, and who starts them; cards and contexts share these keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    launcher: Text = ""
    enabled: bool | None = None
    nnodes: int | None = Field(None, ge=1)
    nproc_per_node: int | None = Field(None, ge=1)
    backend: Text = ""
    port: int | None = Field(None, ge=1, le=65535)
    master_port: int | None = Field(None, ge=1, le=65535)
    sglang_disagg: dict[str, Any] = Field(default_factory=dict)
    vllm_disagg: dict[str, Any] = Field(default_factory=dict)
    primus: dict[str, Any] = Field(default_factory=dict)


UNDISTRIBUTED = Distributed()
"""Shared by all cards that say nothing; making one for each would double the time to read a large file."""


class Model(BaseModel):
    """One model card. Unknown keys are kept in `model_extra`.

    Attributes:
        name: unique; cards of `scripts/<dir>/` carry the prefix `<dir>/`.
        dockerfile: path prefix of its Dockerfiles, relative to the project.
        dockercontext: build context folder, relative to the project.
        scripts: a `.sh`, `.py` or `.slurm` file, or a folder with run.sh; relative to the project.
        n_gpus: GPUs per node; -1 takes all, 0 none.
        timeout: seconds for the whole run, None when the card says nothing.
        multiple_results: CSV file that the script writes, relative to where it runs.
        aggregate: how the values of several ranks become one; None leaves it to their performance lines.
        references: what is expected of its metrics, by GPU architecture.
        skip_gpu_arch: architectures on which the model is skipped.
    """

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    name: str = Field(min_length=1)
    dockerfile: Text = ""
    dockercontext: Text = ""
    scripts: Text = ""
    url: Text = ""
    cred: Text = ""
    owner: Text = ""
    data: Text = ""
    n_gpus: int = Field(-1, ge=-1)
    timeout: int | None = Field(None, ge=-1)
    training_precision: Text = ""
    tags: CommaList = ()
    args: Text = ""
    multiple_results: Text = ""
    aggregate: Aggregate | None = None
    references: References = Field(default_factory=dict)
    skip_gpu_arch: CommaList = ()
    deprecated: bool = False
    additional_docker_run_options: Text = ""
    docker_image: Text = ""
    distributed: Annotated[Distributed, BeforeValidator(lambda value: value or {})] = Field(
        default_factory=lambda: UNDISTRIBUTED
    )
    slurm: dict[str, Any] = Field(default_factory=dict)
    k8s: dict[str, Any] = Field(default_factory=dict)
    kubernetes: dict[str, Any] = Field(default_factory=dict)
    env_vars: EnvVars = Field(default_factory=dict)
    log_error_pattern_scan: Switch = None
    log_error_patterns: Patterns | None = None
    log_error_benign_patterns: Patterns = ()

    @field_validator("name")
    @classmethod
    def _name_fits_a_node_id(cls, name: str) -> str:
        if "::" in name or any(not character.isprintable() for character in name):
            raise ValueError("a name without '::' and control characters")
        return name

    @field_validator("cred")
    @classmethod
    def _cred_begins_variables(cls, cred: str) -> str:
        if cred and not ENV_NAME.fullmatch(cred):
            raise ValueError("letters, digits and _, no digit first: variables begin with it")
        return cred

    @property
    def runs_file(self) -> bool:
        """Whether `scripts` names a file rather than a folder with run.sh."""
        return self.scripts.endswith(SCRIPT_SUFFIXES)

    @property
    def scripts_folder(self) -> str:
        """The folder whose content the run starts from, relative to the project."""
        return posixpath.dirname(self.scripts) if self.runs_file else self.scripts

    @property
    def entry(self) -> str:
        """The file that starts the model, relative to the scripts folder."""
        return posixpath.basename(self.scripts) if self.runs_file else "run.sh"

    def with_args(self, extra: str) -> Model:
        """This card with more arguments for its script."""
        return self.model_copy(update={"args": f"{self.args} {extra}".strip()}) if extra else self


def in_scripts_folder(card: Model, folder: str) -> Model:
    """A card of `scripts/<folder>/`: its name gets the prefix, its paths start from the project."""
    if not folder:
        return card
    paths = {key: getattr(card, key) for key in ("dockerfile", "scripts")}
    moved = {key: posixpath.normpath(f"scripts/{folder}/{path}") for key, path in paths.items() if path}
    return card.model_copy(update={"name": f"{folder}/{card.name}", **moved})
