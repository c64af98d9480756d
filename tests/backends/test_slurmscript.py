"""The scripts that SLURM runs, as they come from cards."""

from __future__ import annotations

import difflib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_madengine.backends.slurmscript import OF_NODE, scripts
from pytest_madengine.context.context import Context
from pytest_madengine.context.machine import Machine
from pytest_madengine.images.image import Image
from pytest_madengine.jobs import compose
from pytest_madengine.jobs.job import Job
from pytest_madengine.launchers import deepspeed, primus, sglang, slurm_multi, torchrun, vllm
from pytest_madengine.models.model import Model, Source
from tests.golden import compare

GOLDEN = Path(__file__).parent / "golden"
SHELLCHECK = Path(sys.executable).with_name("shellcheck")
MODULES = (torchrun, deepspeed, vllm, sglang, primus, slurm_multi)
LAUNCHERS = {launcher.name: launcher for module in MODULES for launcher in module.LAUNCHERS}
BY_NAME = LAUNCHERS | {name: launcher for launcher in LAUNCHERS.values() for name in launcher.aliases}
RUNTIMES = ("docker", "podman", "apptainer", "enroot", "none")
NODES = (1, 4)
PUSHED = Image(
    "ci-m:0123",
    digest=f"sha256:{'a' * 64}",
    content="0123",
    registry_image="registry.example/team/ci-m:0123",
    registry_digest=f"sha256:{'d' * 64}",
)
HOSTILE = """it's "q" $HOME `id` $(id) \\ a; # & * ${NODE_RANK} !x
second line"""
LINE = HOSTILE.partition("\n")[0]
QUOTES = "SC2089,SC2090"
"""shellcheck's doubts about every value that holds a quote."""


def job(folder: Path, *, image: Image | None = PUSHED, card: dict[str, Any] | None = None, **context: Any) -> Job:
    """The job of a card named m, unless it says otherwise."""
    model = Model.model_validate({"name": "m", "scripts": "scripts/m.sh", "args": "--steps 3", **(card or {})})
    (folder / "scripts").mkdir(exist_ok=True)
    (folder / model.scripts).touch()
    session = compose.Session(
        run="run-1",
        context=Context.model_validate(context),
        machine=Machine("login", context.get("gpu_vendor", "AMD")),
        launchers=BY_NAME,
        credentials={},
        environ={},
        cluster="slurm",
    )
    return compose.job(model, Source(folder / "models.json", 7, folder), image, folder / "runs/run-1/jobs/m-1", session)


def launched(folder: Path, launcher: str, nodes: int, runtime: str = "none", **context: Any) -> Job:
    """The job of a model that has eight GPUs on each node."""
    slurm = {"partition": "gpu", "gpus_per_node": 8, "container_runtime": runtime}
    distributed = {"launcher": launcher, "nnodes": nodes, "port": 29501, "primus": {"config_path": "exp.yaml"}}
    image = None if runtime == "none" and launcher != "slurm_multi" else PUSHED
    return job(folder, image=image, slurm=slurm, distributed=distributed, **context)


def texts(made: Job, **how: Any) -> dict[str, str]:
    """All scripts of a job, by name."""
    return {**scripts(made, **how), "run.sh": made.script}


def shown(made: Job, folder: Path, *names: str) -> str:
    """Scripts as one text, the same wherever the test runs."""
    found = texts(made)
    text = "\n".join(f"======== {name} ========\n{found[name]}" for name in names)
    return text.replace(str(folder), "/shared/project")


def check(made: Job, folder: Path, **how: Any) -> None:
    """Meet what bash or shellcheck does not like."""
    for name, text in texts(made, **how).items():
        file = folder / name
        file.write_text(text, encoding="utf-8")
        assert subprocess.run(["bash", "-n", file], check=False, capture_output=True).stderr == b""
        argv: list[str | Path] = [SHELLCHECK, "--severity=warning", f"--exclude={QUOTES}", file]
        assert subprocess.run(argv, check=False, capture_output=True, text=True).stdout == ""


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_scripts_for_four_nodes(runtime: str, tmp_path: Path) -> None:
    made = launched(tmp_path, "torchrun", 4, runtime)
    compare(shown(made, tmp_path, "job.sh", "node.sh"), GOLDEN / f"slurm-{runtime}.txt")
    check(made, tmp_path)


def test_what_each_launcher_has_unlike_torchrun_on_one_node_and_on_four(tmp_path: Path) -> None:
    lines = []
    for launcher in LAUNCHERS.values():
        for nodes in (nodes for nodes in NODES if nodes >= launcher.least_nodes):
            names = ("job.sh", "node.sh") if launcher.self_managed else ("job.sh", "node.sh", "run.sh")
            base, own = (
                shown(launched(tmp_path, name, nodes), tmp_path, *names).splitlines()
                for name in ("torchrun", launcher.name)
            )
            changes = difflib.unified_diff(base, own, n=0, lineterm="")
            kept = [line for line in changes if not line.startswith(("---", "+++", "@@"))]
            lines += [f"======== {launcher.name}, {nodes} ========", *kept]
    compare("\n".join([*lines, ""]), GOLDEN / "slurm-launchers.diff")


def test_the_scripts_for_one_node(tmp_path: Path) -> None:
    made = launched(tmp_path, "torchrun", 1)
    compare(shown(made, tmp_path, "job.sh", "node.sh"), GOLDEN / "slurm-one-node.txt")


@pytest.mark.parametrize("nodes", NODES)
@pytest.mark.parametrize("name", LAUNCHERS)
def test_no_shell_stumbles_over_the_scripts_of_any_launcher(name: str, nodes: int, tmp_path: Path) -> None:
    made = launched(tmp_path, name, max(nodes, LAUNCHERS[name].least_nodes), "docker", gpu_vendor="NVIDIA")
    check(made, tmp_path)
    check(made, tmp_path, steps=True)


AWKWARD = {
    "name": LINE,
    "args": "--text 'two  words' --cost '$5'",
    "env_vars": {"TEXT": HOSTILE, "CARD_TOKEN": "planted"},
    "slurm": {
        "nodes": 2,
        "gpus_per_node": 1,
        "modules": ["rocm/6.4", LINE],
        "prologue": 'x=a; case "$x" in a) echo \'it is "a"\' ;; esac\nulimit -l unlimited',
        "epilogue": 'echo "`id -un`" # the user',
        "network_interface": LINE,
        "options": {"wckey": LINE},
    },
    "distributed": {"launcher": "primus", "primus": {"cli_extra": HOSTILE}},
}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_no_value_is_anything_but_a_value_to_a_shell(runtime: str, tmp_path: Path) -> None:
    folder = tmp_path / "it's my $HOME"
    folder.mkdir()
    image = Image(f"registry.example/{LINE}")
    context = {"slurm": {"container_runtime": runtime}, "docker_mounts": {f"/{LINE}": "/tmp"}}  # noqa: S108  # only named
    made = job(folder, card=AWKWARD, image=None if runtime == "none" else image, **context)
    check(made, tmp_path)
    check(made, tmp_path, steps=True)
    assert "planted" not in "".join(texts(made).values())


def test_a_nodes_shell_gives_the_model_its_values_as_they_are(tmp_path: Path) -> None:
    made = job(tmp_path, image=None, card=AWKWARD, slurm={"container_runtime": "none"})
    node = scripts(made)["node.sh"]
    begin, end = node.index("variables() {"), node.index("\nrun() {")
    wanted = ("TEXT", "NCCL_SOCKET_IFNAME", "PRIMUS_CLI_EXTRA", "NODE_RANK", "MAD_SLURM_JOB_ID")
    shows = "".join(f"printf '%s\\0' \"${name}\"\n" for name in wanted)
    known = "set -eu\nrank=1 SLURM_JOB_ID=93\nexport NODE_LIST=a,b MASTER_ADDR=a NODE_IPS=1,2\n"
    done = subprocess.run(
        ["bash", "-c", f"{known}{node[begin:end]}\nvariables\n{shows}"], check=True, capture_output=True, text=True
    )
    found = dict(zip(wanted, done.stdout.split("\0"), strict=False))
    expression = HOSTILE.replace("${NODE_RANK}", "1")
    assert found == dict(zip(wanted, (HOSTILE, LINE, expression, "1", "93"), strict=True))


@pytest.mark.parametrize("vendor", ["AMD", "NVIDIA"])
@pytest.mark.parametrize("launcher", ["torchrun", "vllm"])
@pytest.mark.parametrize("runtime", RUNTIMES[:-1])
def test_a_container_is_told_all_that_its_node_found_out(
    runtime: str, launcher: str, vendor: str, tmp_path: Path
) -> None:
    made = launched(tmp_path, launcher, 2, runtime, gpu_vendor=vendor)
    line = next(line for line in scripts(made)["node.sh"].splitlines() if " TORCH_ELASTIC_RDZV_TIMEOUT " in line)
    names = {*OF_NODE, *made.env, *made.expressions, *made.visible_devices}
    assert names <= set(line.replace("(", " ").replace(")", " ").replace(";", " ").split())
    shown_by = {"torchrun": {"HIP", "ROCR", "CUDA"}, "vllm": {"HIP" if vendor == "AMD" else "CUDA"}}[launcher]
    assert {name.partition("_")[0] for name in made.visible_devices} == shown_by
