"""Jobs for the tests of what Kubernetes is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pytest_madengine.backends.kubefiles import File
from pytest_madengine.images.image import Image
from pytest_madengine.jobs.job import Devices, Job
from pytest_madengine.launchers.base import Topology
from pytest_madengine.secrets import Secret

SCRIPT = "#!/usr/bin/env bash\n\tprintf 'hello\\n'\n"
JOB = Job(
    id="madengine-run-1-llama3-8b-0123abcd",
    run="run-1",
    name="llama3-8b",
    script=SCRIPT,
    directory=Path("/home/me/.madengine/runs/run-1/jobs/llama3-8b-0123abcd"),
    project=Path("/home/me/project"),
    env={"PLAIN": "it's $shown", "OMP_NUM_THREADS": "8"},
    secrets={},
    limit=7200.0,
    image=Image(
        "ci-llama3:0123",
        content="0123",
        registry_image="registry.example:5000/ml/llama3:0123",
        registry_digest=f"sha256:{'d' * 64}",
    ),
    devices=Devices("AMD", (0, 1)),
    topology=Topology.of_cluster(1, 2),
    visible_devices=("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"),
)
SEVERAL = replace(
    JOB,
    topology=Topology.of_cluster(4, 2),
    secrets={"HF_TOKEN": Secret("hunter2")},
    expressions={"MAD_MULTI_NODE_RUNNER": "torchrun --node_rank=${NODE_RANK} --master_addr=${MASTER_ADDR} --x=$HOME"},
)
DISAGGREGATED = replace(
    SEVERAL,
    secrets={},
    expressions={
        "SGLANG_DISAGG_MODE": "enabled",
        "SGLANG_DISAGG_PREFILL_NODES": "1",
        "SGLANG_DISAGG_DECODE_NODES": "2",
        "SGLANG_NODE_IPS": "${NODE_IPS}",
    },
)
FILES = (File("scripts/llama3/run.sh", SCRIPT.encode(), 0o755), File("scripts/llama3/wei ghts.bin", b"\xff\x00", 0o600))
