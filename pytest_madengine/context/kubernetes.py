"""The `k8s` section of contexts and cards, typed, and what follows from it alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from pytest_madengine.errors import nearest
from pytest_madengine.validation import CommaList

ALIASES = {
    **dict.fromkeys(("gpus_per_node", "n_gpus", "num_gpus", "ngpus"), "gpu_count"),
    "cpu_request": "cpu",
    "memory_request": "memory",
}
"""Other documented spellings, and the keys that they stand for."""
OWN_LABELS = "madengine."
"""What the labels begin with by which our objects are found again."""

LONGEST_LABEL, LONGEST_NAME = 63, 253
VALID_LABEL = "a DNS label: at most 63 lower-case letters, digits and hyphens, no hyphen first or last"
VALID_NAME = "the name of an object: lower-case letters, digits, dots and hyphens, a letter or digit first and last"
VALID_KEY = "[PREFIX/]NAME, such as 'amd.com/gpu': letters, digits, dots, hyphens and underscores"
VALID_VALUE = "at most 63 letters, digits, dots, hyphens and underscores, a letter or digit first and last"
VALID_QUANTITY = (
    "an amount of Kubernetes, such as '64Gi', '1500M', '500m' or 2 (m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei)"
)
VALID_LINE = "one line of text without control characters"
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?", re.ASCII)
_NAME = re.compile(rf"{_LABEL.pattern}(?:\.{_LABEL.pattern})*", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", re.ASCII)
_QUANTITY = re.compile(
    r"\+?(?P<number>\d+(?:\.\d*)?|\.\d+)(?P<suffix>[KMGTPE]i|[numkMGTPE]|[eE][+-]?\d{1,2}|)", re.ASCII
)
_POWERS = {
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", 1)},
    **{letter: Decimal(1000) ** power for power, letter in enumerate("kMGTPE", 1)},
    **{letter: Decimal(1000) ** -power for power, letter in enumerate("mun", 1)},
    "": Decimal(1),
}
TOLERATION = ("key", "operator", "value", "effect", "tolerationSeconds")


def amount(quantity: str) -> Decimal:
    """The number that a quantity of Kubernetes stands for: bytes, or processors.

    Raises:
        ValueError: it is none, or it is negative.
    """
    form = _QUANTITY.fullmatch(quantity)
    if not form:
        raise ValueError(VALID_QUANTITY)
    number, suffix = form["number"], form["suffix"]
    if suffix in _POWERS:
        return Decimal(number) * _POWERS[suffix]
    return Decimal(number + suffix)


def _text(value: object) -> object:
    """What YAML takes for a number or a boolean, as it was written."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def _quantity(value: object) -> str:
    text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    if not isinstance(text, str):
        raise ValueError(VALID_QUANTITY)  # noqa: TRY004  # pydantic collects ValueErrors
    amount(text.strip())
    return text.strip()


def _matching(form: re.Pattern[str], longest: int, valid: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if len(text) > longest or not form.fullmatch(text):
            raise ValueError(valid)
        return text

    return check


def _key(text: str) -> str:
    """A qualified name, as of labels, annotations and resources."""
    prefix, slash, name = text.rpartition("/")
    if slash and not (len(prefix) <= LONGEST_NAME and _NAME.fullmatch(prefix)):
        raise ValueError(VALID_KEY)
    if len(name) > LONGEST_LABEL or not _WORD.fullmatch(name):
        raise ValueError(VALID_KEY)
    return text


def _label_value(text: str) -> str:
    if text and (len(text) > LONGEST_LABEL or not _WORD.fullmatch(text)):
        raise ValueError(VALID_VALUE)
    return text


def _class(text: str) -> str:
    """The name of a storage class; the empty one stands for volumes that somebody made."""
    return _matching(_NAME, LONGEST_NAME, VALID_NAME)(text) if text else text


def _line(text: str) -> str:
    text = text.strip()
    if not text or not text.isprintable():
        raise ValueError(VALID_LINE)
    return text


def _not_ours(labels: dict[str, str]) -> dict[str, str]:
    if taken := [key for key in labels if key.startswith(OWN_LABELS)]:
        raise ValueError(
            f"keys that do not begin with {OWN_LABELS!r} (found {taken[0]!r}): jobs are found again by those"
        )
    return labels


def _toleration(value: dict[str, Any]) -> dict[str, Any]:
    for key in value:
        if key not in TOLERATION:
            close = nearest(key, TOLERATION)
            hint = f" (did you mean {close!r} in place of {key!r}?)" if close else f" (found {key!r})"
            raise ValueError(f"the keys {', '.join(TOLERATION)}{hint}")
    return value


Label = Annotated[str, AfterValidator(_matching(_LABEL, LONGEST_LABEL, VALID_LABEL))]
Name = Annotated[str, AfterValidator(_matching(_NAME, LONGEST_NAME, VALID_NAME))]
Key = Annotated[str, AfterValidator(_key)]
LabelValue = Annotated[str, BeforeValidator(_text), AfterValidator(_label_value)]
Quantity = Annotated[str, BeforeValidator(_quantity)]
Line = Annotated[str, AfterValidator(_line)]
StorageClass = Annotated[str, AfterValidator(_class)]
Names = Annotated[
    CommaList, AfterValidator(lambda names: tuple(map(_matching(_NAME, LONGEST_NAME, VALID_NAME), names)))
]


class Secrets(BaseModel):
    """Where the secrets for pulling images, and credential.json, come from.

    Attributes:
        strategy: `from_local_credentials` makes them of credential.json and the user's logins, for each job; `existing`
            uses those named here; `omit` has none.
        image_pull_secret_names: secrets of the namespace for pulling images, used beside those made.
        runtime_secret_name: a secret of the namespace whose entries become variables, with `existing`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: Literal["from_local_credentials", "existing", "omit"] = "from_local_credentials"
    image_pull_secret_names: Names = ()
    runtime_secret_name: Name | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_comments(cls, values: Any) -> Any:
        return _uncommented(values)


class Kubernetes(BaseModel):
    """What Kubernetes is asked for, and how a job of ours runs there.

    Where None or an empty value is the default, the cluster's own default holds. Storage classes are such a case: the
    wiki's "nfs-banff" is one cluster's, and a claim that names a class which is not there waits for ever.

    Attributes:
        kubeconfig: the client's file; None for $KUBECONFIG, ~/.kube/config or the pod that pytest runs in.
        context: the context within that file; None for its current one.
        gpu_count: GPUs for each pod; 0 asks for none.
        memory: requested, `memory_limit` at most; bytes.
        cpu: requested, `cpu_limit` at most; processors.
        backoff_limit: how often failed pods are tried again.
        allow_privileged_profiling: whether the model may trace processes; None lets the tools decide.
        data_pvc: an existing claim with data, mounted at /data.
        output_dir: a folder for the manifests, without secrets; None writes none.
        recreate_shared_data_pvc: whether the data claim that all runs share is made anew, and what is on it lost.
        results: how results come back: `pod` fetches them before the pod ends, `claim` writes them to a volume; None
            takes a claim where one of the keys for it is stated.
        results_pvc: an existing claim for results.
        results_wait: seconds for which a pod that is done waits until its results are fetched.
        rdma: further devices for each pod by resource name, such as {"rdma/hca": 1}.
        shm_size: of /dev/shm.
        queue: the LocalQueue of Kueue that admits the job.
        shape: the kind of object that runs the pods; the latter two need an operator in the cluster.
        pod_spec: merged over the pods' spec last; the model's container is called `model`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kubeconfig: Line | None = None
    context: Line | None = None
    namespace: Label = "default"
    gpu_resource_name: Key = "amd.com/gpu"
    gpu_count: int | None = Field(None, ge=0)
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "Always"
    memory: Quantity | None = None
    memory_limit: Quantity | None = None
    cpu: Quantity | None = None
    cpu_limit: Quantity | None = None
    backoff_limit: int = Field(3, ge=0)
    node_selector: dict[Key, LabelValue] = Field(default_factory=dict)
    tolerations: tuple[Annotated[dict[str, Any], AfterValidator(_toleration)], ...] = ()
    ttl_seconds_after_finished: int | None = Field(None, ge=0)
    allow_privileged_profiling: bool | None = None
    secrets: Secrets = Field(default_factory=Secrets)
    data_pvc: Name | None = None
    output_dir: Line | None = None
    results: Literal["pod", "claim"] | None = None
    results_pvc: Name | None = None
    results_wait: int = Field(600, ge=1)
    results_storage_size: Quantity | None = None
    data_storage_size: Quantity | None = None
    storage_class: StorageClass | None = None
    nfs_storage_class: StorageClass | None = None
    data_storage_class: StorageClass | None = None
    single_node_results_storage_class: StorageClass | None = None
    local_path_storage_class: StorageClass | None = None
    multi_node_results_storage_class: StorageClass | None = None
    recreate_shared_data_pvc: bool = False
    host_ipc: bool = False
    host_network: bool = False
    service_account: Name | None = None
    labels: Annotated[dict[Key, LabelValue], AfterValidator(_not_ours)] = Field(default_factory=dict)
    annotations: dict[Key, Annotated[str, BeforeValidator(_text)]] = Field(default_factory=dict)
    affinity: dict[str, Any] = Field(default_factory=dict)
    priority_class: Name | None = None
    rdma: dict[Key, Quantity] = Field(default_factory=dict)
    topology_spread_constraints: tuple[dict[str, Any], ...] = ()
    shm_size: Quantity = "16Gi"
    queue: Label | None = None
    shape: Literal["job", "jobset", "leaderworkerset"] = "job"
    pod_spec: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _in_our_words(cls, values: Any) -> Any:
        """Drop comments, and put the documented keys in place of their other spellings.

        Raises:
            ValueError: two spellings of a key have different values.
        """
        given = _uncommented(values)
        if not isinstance(given, dict):
            return given
        for alias in ALIASES.keys() & given.keys():
            key, value = ALIASES[alias], given.pop(alias)
            if given.setdefault(key, value) != value:
                raise ValueError(
                    f"one of {alias!r} and {key!r}, which mean the same (found {value!r} and {given[key]!r})"
                )
        return given

    @property
    def results_claimed(self) -> bool:
        """Whether results go to a claim."""
        if self.results:
            return self.results == "claim"
        keys = ("single_node_results_storage_class", "local_path_storage_class", "multi_node_results_storage_class")
        return any(getattr(self, key) is not None for key in ("results_pvc", "results_storage_size", *keys))

    def data_class(self) -> str | None:
        """The storage class for data; None for the cluster's own default."""
        return _first(self.data_storage_class, self.nfs_storage_class, self.storage_class)

    def results_class(self, nodes: int) -> str | None:
        """The storage class for results; None for the cluster's own default.

        Args:
            nodes: of the job; one that has several needs a volume that all of them may write to.
        """
        if nodes == 1:
            return _first(self.single_node_results_storage_class, self.local_path_storage_class, self.storage_class)
        return _first(self.multi_node_results_storage_class, self.nfs_storage_class, self.storage_class)


def _first(*classes: str | None) -> str | None:
    return next((each for each in classes if each is not None), None)


def _uncommented(values: Any) -> Any:
    if not isinstance(values, Mapping):
        return values
    return {key: value for key, value in values.items() if not str(key).startswith("_")}
