from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_madengine.backends.kubenames import dns_label, hosts, label_value, labels, object_name, of_run, selector
from pytest_madengine.launchers.base import Topology
from tests.backends.kubejobs import JOB

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", re.ASCII)
VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?", re.ASCII)
NAMES = st.one_of(st.text(max_size=80), st.text("aA-_./ ", max_size=80))


@given(NAMES, NAMES)
def test_any_two_texts_have_valid_labels_of_their_own(one: str, other: str) -> None:
    for make, form in ((dns_label, LABEL), (label_value, VALUE)):
        found = {text: make(text) for text in (one, other)}
        assert all(len(each) <= 63 and form.fullmatch(each) for each in found.values())
        assert len(set(found.values())) == len(found)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("llama3-8b", "llama3-8b"),
        ("Llama3", "llama3-dcdb72578a"),
        ("a" * 63, "a" * 63),
        ("", "x-e3b0c44298"),
    ],
)
def test_a_fitting_text_stays_and_another_gets_a_hash(text: str, label: str) -> None:
    assert dns_label(text) == label


@given(NAMES, NAMES)
def test_objects_of_any_two_jobs_have_valid_names_of_their_own(one: str, other: str) -> None:
    found = {(name, id_): object_name(replace(JOB, name=name, id=id_)) for name in (one, other) for id_ in ("a", "b")}
    assert all(LABEL.fullmatch(name) and len(name) <= 45 for name in found.values())
    assert len({object_name(replace(JOB, id=each)) for each in (one, other)}) == len({one, other})


def test_a_name_tells_the_model() -> None:
    name = object_name(replace(JOB, name="Primus_pretrain/Torchtitan: MI300X of eight"))
    assert name.startswith("madengine-primus-pretrain-torchtit-")
    assert name == object_name(replace(JOB, name="Primus_pretrain/Torchtitan: MI300X of eight", secrets={}))


def test_what_belongs_to_a_run_or_a_job_is_found_by_labels() -> None:
    assert labels(JOB) == {
        "app": "madengine",
        "app.kubernetes.io/managed-by": "pytest-madengine",
        "model": "llama3-8b",
        "madengine.run": "run-1",
        "madengine.job": "madengine-run-1-llama3-8b-0123abcd",
    }
    assert labels(JOB).items() >= selector(JOB).items()
    assert of_run(JOB.run) == "madengine.run=run-1"


@pytest.mark.parametrize("shape", ["job", "jobset", "leaderworkerset"])
@pytest.mark.parametrize("nodes", [1, 2, 1000])
def test_pods_have_names_that_dns_can_resolve(shape: str, nodes: int) -> None:
    found = hosts(replace(JOB, name="m" * 200, topology=Topology(nodes)), shape)
    assert len(set(found)) == nodes
    for host in found:
        pod, _, service = host.partition(".")
        assert LABEL.fullmatch(pod)
        assert LABEL.fullmatch(service)
        assert len(f"{pod}-abcde") <= 63  # a Job's controller adds that to the names of pods


def test_the_operators_count_pods_in_their_own_ways() -> None:
    job = replace(JOB, topology=Topology(3))
    name = object_name(job)
    assert hosts(job, "job") == tuple(f"{name}-{rank}.{name}" for rank in range(3))
    assert hosts(job, "jobset") == tuple(f"{name}-n-0-{rank}.{name}" for rank in range(3))
    assert hosts(job, "leaderworkerset") == (f"{name}-0.{name}", f"{name}-0-1.{name}", f"{name}-0-2.{name}")
