from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_madengine.context.context import Context, validated
from pytest_madengine.context.kubernetes import ALIASES, Kubernetes, amount
from pytest_madengine.errors import FaultsError
from pytest_madengine.validation import dotted

QUANTITY = "an amount of Kubernetes, such as '64Gi', '1500M', '500m' or 2 (m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei)"
NAME = "the name of an object: lower-case letters, digits, dots and hyphens, a letter or digit first and last"
LABEL = "a DNS label: at most 63 lower-case letters, digits and hyphens, no hyphen first or last"
KEY = "[PREFIX/]NAME, such as 'amd.com/gpu': letters, digits, dots, hyphens and underscores"
VALUE = "at most 63 letters, digits, dots, hyphens and underscores, a letter or digit first and last"
TAINT = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
EXAMPLES: dict[str, dict[str, Any]] = {
    "wiki: minimal": {"gpu_count": 4},
    "wiki: data claim": {"namespace": "ml", "gpu_count": 8, "data_storage_class": "nfs-banff"},
    "wiki: recipe": {"namespace": "ml-team", "gpu_count": 8, "host_ipc": True, "data_storage_class": "nfs-banff"},
    "wiki: preset": {
        "kubeconfig": "~/.kube/config",
        "namespace": "default",
        "image_pull_policy": "Always",
        "backoff_limit": 3,
        "ttl_seconds_after_finished": None,
        "nfs_storage_class": "nfs-banff",
        "storage_class": "nfs-banff",
        "data_storage_class": "nfs-banff",
        "recreate_shared_data_pvc": False,
        "secrets": {
            "strategy": "from_local_credentials",
            "image_pull_secret_names": [],
            "runtime_secret_name": None,
        },
    },
    "basic/04-torchrun-multi-node-advanced": {
        "_comment": "why",
        "gpu_count": 8,
        "memory": "128Gi",
        "memory_limit": "256Gi",
        "cpu": "32",
        "cpu_limit": 64,
        "node_selector": {"node-type": "mi300x", "gpu": True},
        "tolerations": [TAINT],
        "results_pvc": "shared-results",
        "data_pvc": "shared-data",
        "output_dir": "./k8s_manifests",
    },
    "docs: unread there": {
        "cpu_request": "8",
        "memory_request": "32Gi",
        "service_account": "ml",
        "labels": {"team": "a"},
    },
}


def faults(**values: Any) -> list[str]:
    with pytest.raises(FaultsError) as caught:
        validated({"k8s": values}, dotted, set)
    return str(caught.value).splitlines()


def fault(**values: Any) -> str:
    (only,) = faults(**values)
    return only


@pytest.mark.parametrize("section", EXAMPLES.values(), ids=EXAMPLES)
def test_the_documented_examples_are_accepted(section: dict[str, Any]) -> None:
    stated = validated({"k8s": section}, dotted, set).pods
    assert stated == validated({"kubernetes": section}, dotted, set).pods
    assert Kubernetes.model_validate(stated.model_dump(mode="json", exclude_unset=True) if stated else {}) == stated


@pytest.mark.parametrize("alias", ALIASES)
def test_a_key_may_have_its_other_spelling(alias: str) -> None:
    stated = Kubernetes.model_validate({alias: 2, ALIASES[alias]: 2})
    assert getattr(stated, ALIASES[alias]) in (2, "2")
    assert stated.model_fields_set == {ALIASES[alias]}


def test_two_spellings_of_one_key_that_disagree_are_refused() -> None:
    assert "one of 'n_gpus' and 'gpu_count', which mean the same (found 2 and 4)" in fault(n_gpus=2, gpu_count=4)


def test_both_names_of_the_section_at_once_are_refused() -> None:
    with pytest.raises(FaultsError) as caught:
        validated({"k8s": {}, "kubernetes": {"namespace": "x"}}, dotted, set)
    assert str(caught.value) == (
        "kubernetes: found {'namespace': 'x'}; valid: one of 'k8s' and 'kubernetes', which mean the same"
    )


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"memory": "64GB"}, f"k8s.memory: found '64GB'; valid: {QUANTITY}"),
        ({"memory": "64 Gi"}, f"k8s.memory: found '64 Gi'; valid: {QUANTITY}"),
        ({"cpu": -1}, f"k8s.cpu: found -1; valid: {QUANTITY}"),
        ({"cpu": True}, f"k8s.cpu: found True; valid: {QUANTITY}"),
        ({"namespace": "ML_team"}, f"k8s.namespace: found 'ML_team'; valid: {LABEL}"),
        ({"service_account": "-a"}, f"k8s.service_account: found '-a'; valid: {NAME}"),
        ({"storage_class": "Fast"}, f"k8s.storage_class: found 'Fast'; valid: {NAME}"),
        ({"gpu_resource_name": "amd.com/"}, f"k8s.gpu_resource_name: found 'amd.com/'; valid: {KEY}"),
        ({"gpu_resource_name": "a b/gpu"}, f"k8s.gpu_resource_name: found 'a b/gpu'; valid: {KEY}"),
        ({"node_selector": {"zone": "a b"}}, f"k8s.node_selector.zone: found 'a b'; valid: {VALUE}"),
        ({"gpu_count": -1}, "k8s.gpu_count: found -1; valid: greater than or equal to 0"),
        (
            {"image_pull_policy": "always"},
            "k8s.image_pull_policy: found 'always'; valid: 'Always', 'IfNotPresent' or 'Never'",
        ),
        ({"shape": "pod"}, "k8s.shape: found 'pod'; valid: 'job', 'jobset' or 'leaderworkerset'"),
        ({"kubeconfig": " \n"}, "k8s.kubeconfig: found ' \\n'; valid: one line of text without control characters"),
        (
            {"labels": {"madengine.run": "x"}},
            "k8s.labels: found {'madengine.run': 'x'}; valid: keys that do not begin with 'madengine.' "
            "(found 'madengine.run'): jobs are found again by those",
        ),
        (
            {"tolerations": [{"key": "a", "efect": "NoSchedule"}]},
            "k8s.tolerations[0]: found {'key': 'a', 'efect': 'NoSchedule'}; valid: the keys key, operator, value, "
            "effect, tolerationSeconds (did you mean 'effect' in place of 'efect'?)",
        ),
        (
            {"secrets": {"strategy": "none"}},
            "k8s.secrets.strategy: found ***; valid: 'from_local_credentials', 'existing' or 'omit'",
        ),
        (
            {"secrets": {"image_pull_secret": "a"}},
            "k8s.secrets.image_pull_secret: unknown key 'image_pull_secret'; valid: image_pull_secret_names, "
            "runtime_secret_name, strategy; did you mean 'image_pull_secret_names'?",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_what_would_be_valid(values: dict[str, Any], text: str) -> None:
    assert fault(**values) == text


def test_a_misspelt_key_is_refused_with_the_nearest_spelling() -> None:
    text = fault(memory_limt="1Gi")
    assert text.startswith("k8s.memory_limt: unknown key 'memory_limt'; valid: affinity, ")
    assert text.endswith("; did you mean 'memory_limit'?")


def test_all_faults_are_told_at_once() -> None:
    places = {text.partition(":")[0] for text in faults(cpu="x", memory="y", nodes=2)}
    assert places == {"k8s.nodes", "k8s.memory", "k8s.cpu"}


@pytest.mark.parametrize(
    ("quantity", "number"),
    [
        ("0", "0"),
        ("2", "2"),
        ("+2", "2"),
        (".5", "0.5"),
        ("1.", "1"),
        ("500m", "0.5"),
        ("1e3", "1000"),
        ("1E3", "1000"),
        ("1E", "1000000000000000000"),
        ("12e-1", "1.2"),
        ("3k", "3000"),
        ("1Ki", "1024"),
        ("1.5Gi", "1610612736"),
        ("7n", "0.000000007"),
    ],
)
def test_quantities_are_read_as_kubernetes_reads_them(quantity: str, number: str) -> None:
    assert amount(quantity) == Decimal(number)


@given(st.text(alphabet="0123456789.+-eEinumkKMGTPB ", max_size=8))
def test_no_text_is_a_quantity_that_the_grammar_of_kubernetes_refuses(text: str) -> None:
    grammar = r"\+?(\d+(\.\d*)?|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?"
    try:
        number = amount(text)
    except ValueError:
        assert not re.fullmatch(r"\d+([KMGTPE]i|[mkMGTPE])?", text)
    else:
        assert re.fullmatch(grammar, text)
        assert number >= 0


def test_the_class_for_data_is_the_first_of_three_that_is_stated() -> None:
    stated = {"data_storage_class": "a", "nfs_storage_class": "b", "storage_class": "c"}
    found = [Kubernetes.model_validate(dict(list(stated.items())[at:])).data_class() for at in range(4)]
    assert found == ["a", "b", "c", None]


def test_the_class_for_results_depends_on_how_many_write() -> None:
    everything = {
        "single_node_results_storage_class": "a",
        "local_path_storage_class": "b",
        "multi_node_results_storage_class": "c",
        "nfs_storage_class": "d",
        "storage_class": "e",
    }
    found = []
    for dropped in (
        (),
        ("single_node_results_storage_class", "multi_node_results_storage_class"),
        tuple(everything)[:4],
    ):
        stated = Kubernetes.model_validate({key: value for key, value in everything.items() if key not in dropped})
        found.append((stated.results_class(1), stated.results_class(2)))
    assert found == [("a", "c"), ("b", "d"), ("e", "e")]
    assert Kubernetes().results_class(1) is None


@pytest.mark.parametrize(
    ("values", "claimed"),
    [
        ({}, False),
        ({"storage_class": "a"}, False),
        ({"results": "claim"}, True),
        ({"results_pvc": "a"}, True),
        ({"results_storage_size": "1Gi"}, True),
        ({"local_path_storage_class": ""}, True),
        ({"results_pvc": "a", "results": "pod"}, False),
    ],
)
def test_results_go_to_a_claim_where_somebody_says_so(values: dict[str, Any], claimed: bool) -> None:  # noqa: FBT001  # pytest passes it
    assert Kubernetes.model_validate(values).results_claimed is claimed


def test_what_a_context_was_given_makes_it_again() -> None:
    given_values = {"k8s": {"tolerations": [TAINT], "secrets": {"strategy": "omit"}, "cpu_request": 2}}
    stated = validated(given_values, dotted, set)
    assert Context.model_validate(stated.given()) == stated
    assert stated.given()["k8s"]["cpu"] == "2"
