from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_madengine.backends.docker import DockerBackend
from pytest_madengine.context.context import Context
from pytest_madengine.context.machine import Machine
from pytest_madengine.errors import FaultsError, InfrastructureError, UserError
from pytest_madengine.images.image import Image
from pytest_madengine.jobs import compose
from pytest_madengine.jobs.compose import Session, command, launcher_of, limit, run_directory
from pytest_madengine.jobs.job import Devices, Job, Mount
from pytest_madengine.launchers import deepspeed, primus, sglang, slurm_multi, torchrun, vllm
from pytest_madengine.launchers.base import Topology
from pytest_madengine.models.model import Model, Source
from tests.golden import compare

GOLDEN = Path(__file__).parent / "golden"
MODULES = (torchrun, deepspeed, vllm, sglang, primus, slurm_multi)
LAUNCHERS = {name: each for module in MODULES for each in module.LAUNCHERS for name in (each.name, *each.aliases)}
CPU = Machine("here", "AMD")
AMD = Machine("here", "AMD", 4, "gfx942", "MI300X", "6.4", (128, 136, 144, 152))
NVIDIA = Machine("here", "NVIDIA", 4, "NVIDIA A100", "NVIDIA A100", "550.54")
IMAGE = Image("ci-m:0123", rocm_root="/opt/rocm-6.4.1", content="0123")
CREDENTIALS = {
    "GIT": {"username": "me", "password": "hunter2-password"},
    "KEY": {"username": "me", "ssh_key_file": "/keys/my key"},
}
SHELLCHECK = Path(sys.executable).with_name("shellcheck")
Make = Callable[..., Job]


def session(
    machine: Machine = CPU, environ: dict[str, str] | None = None, timeout: float | None = None, **context: Any
) -> Session:
    values = Context.model_validate(context)
    return Session("run-1", values, machine, LAUNCHERS, CREDENTIALS, environ or {}, timeout)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Composes the job of a card; `ours` is the session's."""

    def job(ours: Session | None = None, image: Image | None = IMAGE, **card: Any) -> Job:
        model = Model.model_validate({"name": "dummy", "scripts": "scripts/dummy", **card})
        script = tmp_path / model.scripts_folder / model.entry
        script.parent.mkdir(parents=True, exist_ok=True)
        script.touch()
        source = Source(tmp_path / "models.json", 7, tmp_path)
        return compose.job(model, source, image, tmp_path / "runs" / "dummy-1", ours or session())

    return job


AWKWARD = 'it\'s "a" $(touch pwned) `touch pwned` \\ ; [x] & größe'
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({"args": "--batch 8"}, {}),
    "python-file": ({"scripts": "scripts/dummy/main.py"}, {}),
    "url-with-password": ({"url": "https://github.com/org/repo.git", "cred": "GIT", "scripts": "scripts/repo"}, {}),
    "url-with-ssh-key": ({"url": "ssh://git@host/org/repo", "cred": "KEY", "scripts": "scripts/repo/go.sh"}, {}),
    "scripts-before-and-after": (
        {"multiple_results": "out/results.csv", "args": "--own"},
        {
            "pre_scripts": ["scripts/common/before.sh", {"path": "scripts/warm up.sh", "args": "--gpus '0,1' $HOME"}],
            "post_scripts": [{"path": "scripts/after.sh"}],
            "encapsulate_script": "nice -n 5",
            "model_args": '--from-context "two words"',
        },
    ),
    "self-managed": (
        {"distributed": {"launcher": "slurm_multi"}, "multiple_results": "out/perf_x.csv"},
        {},
    ),
    "awkward": (
        {
            "name": AWKWARD,
            "scripts": f"scripts/{AWKWARD}/run me.sh",
            "args": "--text 'two  words' --cost '$5' -- \"it's\"",
            "multiple_results": f"{AWKWARD}.csv",
            "url": f"file:///srv/{AWKWARD}.git",
        },
        {},
    ),
}


def composed(make: Make, case: str) -> Job:
    card, context = CASES[case]
    return make(session(**context), **card)


@pytest.mark.parametrize("case", CASES)
def test_the_script_of_a_job(make: Make, case: str) -> None:
    compare(composed(make, case).script, GOLDEN / f"{case}.sh")


@pytest.mark.parametrize("case", CASES)
def test_bash_understands_the_script(make: Make, case: str) -> None:
    script = composed(make, case).script
    checked = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("case", CASES)
def test_shellcheck_has_nothing_to_say_about_the_script(make: Make, case: str) -> None:
    script = composed(make, case).script
    checking = [str(SHELLCHECK), "--shell=bash", "--severity=warning", "-"]
    checked = subprocess.run(checking, input=script, capture_output=True, text=True, check=False)
    assert checked.stdout == ""


def test_an_awkward_card_runs_its_script_with_its_arguments_and_nothing_else(make: Make, tmp_path: Path) -> None:
    card = {key: value for key, value in CASES["awkward"][0].items() if key != "url"}
    made = make(**card)
    entry = made.project / "scripts" / AWKWARD / "run me.sh"
    entry.write_text('printf "%s\\0" "$@" >"$MADENGINE_JOB/arguments"; echo "$MAD_MODEL_NAME"', encoding="utf-8")
    made.directory.mkdir(parents=True)
    (made.directory / "run.sh").write_text(made.script, encoding="utf-8")
    places = {"JOB": made.directory, "WORKSPACE": tmp_path / "work", "PROJECT": made.project}
    environment = {**made.env, **{f"MADENGINE_{name}": str(path) for name, path in places.items()}}
    ran = subprocess.run(
        ["bash", str(made.directory / "run.sh")], env={"PATH": os.environ["PATH"], **environment}, check=False
    )
    assert ran.returncode == 0
    arguments = (made.directory / "arguments").read_text(encoding="utf-8").split("\0")[:-1]
    assert arguments == ["--text", "two  words", "--cost", "$5", "--", "it's"] == shlex.split(card["args"])
    assert f"\n{AWKWARD}\n" in (made.directory / "run.log").read_text(encoding="utf-8")
    assert not list(tmp_path.rglob("pwned"))


REQUESTS: dict[str, tuple[Machine, dict[str, Any], dict[str, Any]]] = {
    "cpu": (CPU, {"n_gpus": "0"}, {}),
    "amd": (
        AMD,
        {"n_gpus": "2", "distributed": {"launcher": "torchrun"}, "additional_docker_run_options": "--shm-size 64g"},
        {"docker_gpus": "1-3", "docker_cpus": "0-15", "docker_mounts": {"/data": "/srv/my data"}},
    ),
    "nvidia": (
        NVIDIA,
        {"n_gpus": "-1", "cred": "GIT", "env_vars": {"HF_TOKEN": "hf_hunter2", "TEXT": AWKWARD}},
        {"docker_env_vars": {"NCCL_DEBUG": "WARN"}, "secrets": {"PLAIN": "hunter2-plain"}, "gpu_vendor": "NVIDIA"},
    ),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_the_docker_run_arguments_of_a_job(make: Make, tmp_path: Path, case: str) -> None:
    machine, card, context = REQUESTS[case]
    environ = {"MAD_SECRETS_X": "hunter2-shell", "NCCL_DEBUG": "INFO", "NOT_MAD_SECRETS_X": "a", "PATH": "/bin"}
    plan = DockerBackend().plan(make(session(machine, environ, **context), **card))
    lines = [argument for argument in plan.request if argument != "--device=/dev/fuse"]
    text = "\n".join([*lines, ""]).replace(str(tmp_path), "/host").replace(f"{os.getuid()}:{os.getgid()}", "UID:GID")
    compare(text, GOLDEN / f"docker-run-{case}.txt")
    assert "hunter2" not in text
    assert "hunter2" not in repr(plan)


def test_the_fuse_device_is_passed_on_where_it_exists(make: Make) -> None:
    request = DockerBackend().plan(make()).request
    assert ("--device=/dev/fuse" in request) == Path("/dev/fuse").exists()


def test_docker_needs_an_image(make: Make) -> None:
    with pytest.raises(InfrastructureError, match="dummy: the docker target needs an image"):
        DockerBackend().plan(make(image=None))


def test_secrets_stay_apart_from_what_may_be_shown(make: Make) -> None:
    ours = session(
        environ={"MAD_SECRETS_X": "one"}, docker_env_vars={"A": "1", "API_KEY": "two"}, secrets={"B": "three"}
    )
    made = make(ours, cred="GIT", env_vars={"HF_TOKEN": "four"})
    assert made.secrets == {
        "MAD_SECRETS_X": "one",
        "API_KEY": "two",
        "B": "three",
        "HF_TOKEN": "four",
        "GIT_USERNAME": "me",
        "GIT_PASSWORD": "hunter2-password",
    }
    assert not made.secrets.keys() & made.env.keys()
    assert made.env["A"] == "1"
    assert "hunter2" not in repr(made)
    assert "hunter2" not in made.script


def test_of_the_shell_only_known_variables_reach_the_model(make: Make) -> None:
    environ = {"RANK": "3", "HIP_VISIBLE_DEVICES": "1", "HOME": "/root", "NOT_MAD_SECRETS_X": "a", "LD_PRELOAD": "x"}
    made = make(session(environ=environ))
    assert made.env["RANK"] == "3"
    assert made.env["RAY_EXPERIMENTAL_NOSET_HIP_VISIBLE_DEVICES"] == ""
    assert not {"HOME", "NOT_MAD_SECRETS_X", "LD_PRELOAD"} & {*made.env, *made.secrets}


def test_the_card_wins_over_facts_and_the_context_over_the_card(make: Make) -> None:
    variables = {"MAD_RUNTIME_NGPUS": "card", "A": "card", "B": "card", "C": "card"}
    ours = session(env_vars={"A": "env_vars", "B": "env_vars"}, docker_env_vars={"A": "docker"})
    env = make(ours, env_vars=variables).env
    assert [env[name] for name in ("MAD_RUNTIME_NGPUS", "A", "B", "C")] == ["card", "docker", "env_vars", "card"]


def test_the_model_learns_where_it_runs(make: Make) -> None:
    ours = session(AMD, {"BUILD_NUMBER": "0042"}, guest_os="CENTOS")
    env = make(ours, n_gpus="1", multiple_results="r.csv").env
    facts = {
        "MAD_GPU_VENDOR": "AMD",
        "MAD_SYSTEM_NGPUS": "4",
        "MAD_SYSTEM_GPU_ARCHITECTURE": "gfx942",
        "MAD_SYSTEM_HIP_VERSION": "6.4",
        "MAD_SYSTEM_GPU_PRODUCT_NAME": "MI300X",
        "MAD_RUNTIME_NGPUS": "1",
        "MAD_GUEST_OS": "CENTOS",
        "MAD_MODEL_NAME": "dummy",
        "MAD_OUTPUT_CSV": "r.csv",
        "JENKINS_BUILD_NUMBER": "0042",
    }
    assert {name: env[name] for name in facts} == facts
    assert "MAD_OUTPUT_CSV" not in make().env


@pytest.mark.parametrize(
    ("machine", "image", "variables", "path"),
    [
        (AMD, IMAGE, {"ROCM_PATH": "/own"}, "/own"),
        (AMD, IMAGE, {"MAD_ROCM_PATH": "/other"}, "/other"),
        (AMD, IMAGE, {}, "/opt/rocm-6.4.1"),
        (AMD, Image("x"), {}, "/opt/rocm"),
        (AMD, Image("a/b:1", registry_image="a/b:1"), {}, None),
        (AMD, None, {}, "/opt/rocm"),
        (NVIDIA, IMAGE, {}, None),
    ],
)
def test_the_rocm_path_inside(
    make: Make, machine: Machine, image: Image | None, variables: dict[str, str], path: str | None
) -> None:
    assert make(session(machine, docker_env_vars=variables), image).env.get("ROCM_PATH") == path


@pytest.mark.parametrize(
    ("n_gpus", "context", "taken"),
    [
        ("-1", {}, (0, 1, 2, 3)),
        ("2", {}, (0, 1)),
        ("0", {}, ()),
        ("2", {"docker_gpus": "3,1-2"}, (3, 1)),
        ("-1", {"docker_gpus": "2"}, (2,)),
        ("1", {"gpus_per_node": 3}, (0, 1, 2)),
        ("4", {"n_gpus": 0}, ()),
    ],
)
def test_a_job_gets_the_first_of_the_gpus_it_may_use(
    make: Make, n_gpus: str, context: dict[str, Any], taken: tuple[int, ...]
) -> None:
    devices = make(session(AMD, **context), n_gpus=n_gpus).devices
    assert devices.gpus == taken
    assert devices.render_nodes == tuple(AMD.render_nodes[gpu] for gpu in taken)
    assert devices.vendor == ("AMD" if taken else "")


@pytest.mark.parametrize(
    ("n_gpus", "context", "message"),
    [
        ("5", {}, "dummy needs 5 GPUs, here has 4"),
        ("2", {"docker_gpus": "1"}, r"dummy needs 2 GPUs, here has 1 \(docker_gpus allows 1\)"),
    ],
)
def test_a_job_that_needs_more_gpus_than_there_are_is_refused(
    make: Make, n_gpus: str, context: dict[str, Any], message: str
) -> None:
    with pytest.raises(InfrastructureError, match=f"^{message}$"):
        make(session(AMD, **context), n_gpus=n_gpus)


@pytest.mark.parametrize(
    ("option", "context", "card", "seconds"),
    [
        (None, None, None, 7200),
        (None, None, 60, 60),
        (None, None, -1, 7200),
        (None, None, 0, None),
        (None, 30, 60, 30),
        (None, 0, 60, None),
        (None, -1, 60, 60),
        (7200, None, 60, 7200),
        (0, 30, 60, None),
        (-1, None, 60, 60),
        (0.5, 30, 60, 0.5),
    ],
)
def test_the_option_limits_before_the_context_and_the_context_before_the_card(
    option: float | None, context: float | None, card: int | None, seconds: float | None
) -> None:
    model = Model.model_validate({"name": "m", "timeout": card})
    assert limit(model, Context(timeout=context), option) == seconds


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("", "run_directory"),
        ("https://github.com/org/repo", "repo"),
        ("https://github.com/org/repo.git", "repo"),
        ("https://github.com/org/repo/", "repo"),
        ("ssh://git@host:22/org/repo.v2.git", "repo.v2"),
    ],
)
def test_a_model_runs_in_a_folder_named_after_its_repository(url: str, folder: str) -> None:
    assert run_directory(Model(name="m", url=url)) == folder


@pytest.mark.parametrize(
    ("card", "context", "text"),
    [
        ({"scripts": "s"}, {}, "bash run.sh"),
        ({"scripts": "s/go.sh", "args": "--a 'b c'"}, {}, "bash go.sh --a 'b c'"),
        ({"scripts": "s/go on.py", "args": "--a"}, {"model_args": ""}, "python3 'go on.py'"),
        (
            {"scripts": "s", "args": "--a"},
            {"model_args": "--b", "encapsulate_script": "numactl -l"},
            "numactl -l bash run.sh --b",
        ),
    ],
)
def test_what_starts_the_model(card: dict[str, Any], context: dict[str, Any], text: str) -> None:
    model = Model.model_validate({"name": "m", **card})
    assert command(model, Context.model_validate(context)) == text


def test_the_context_names_the_launcher_before_the_card_and_the_card_before_the_shell() -> None:
    environ = {"MAD_LAUNCHER": "vllm"}
    plain, card = Model(name="m"), Model.model_validate({"name": "m", "distributed": {"launcher": "megatron-lm"}})
    named = [
        launcher_of(card, session(environ=environ, distributed={"launcher": "sglang"})),
        launcher_of(card, session(environ=environ)),
        launcher_of(plain, session(environ=environ)),
        launcher_of(plain, session()),
    ]
    assert [each.name if each else None for each in named] == ["sglang", "megatron", "vllm", None]


def test_an_unknown_launcher_is_a_users_error_with_the_nearest_name() -> None:
    model = Model.model_validate({"name": "m", "distributed": {"launcher": "torchrunn"}})
    with pytest.raises(UserError, match=r"m: distributed.launcher: unknown launcher 'torchrunn'.*mean 'torchrun'\?"):
        launcher_of(model, session())


def test_a_model_without_launcher_finds_torchrun_prepared(make: Make) -> None:
    assert make(session(AMD), n_gpus="2").env["MAD_MULTI_NODE_RUNNER"] == "torchrun --standalone --nproc_per_node=2"
    assert make().env["MAD_MULTI_NODE_RUNNER"] == "torchrun --standalone --nproc_per_node=1"


def test_processes_and_port_may_be_stated(make: Make) -> None:
    made = make(session(AMD, distributed={"master_port": 1234}), distributed={"nproc_per_node": 3})
    assert (made.topology.processes_per_node, made.topology.master_port) == (3, 1234)


def test_a_launcher_for_several_nodes_is_refused_here(make: Make) -> None:
    with pytest.raises(UserError, match="the launcher sglang_disagg needs at least 3 nodes and this target has one"):
        make(distributed={"launcher": "sglang-disagg"})


def test_a_card_without_scripts_is_a_users_error_with_its_line(tmp_path: Path) -> None:
    source = Source(tmp_path / "models.json", 7, tmp_path)
    for scripts, fault in (("", "is missing"), ("scripts/x", r"scripts/x/run.sh does not exist under")):
        with pytest.raises(UserError, match=rf"models.json:7: m.scripts: {fault}"):
            compose.job(Model(name="m", scripts=scripts), source, None, tmp_path, session())


def test_the_scripts_of_a_repository_need_not_be_there_yet(tmp_path: Path) -> None:
    source = Source(tmp_path / "models.json", 7, tmp_path)
    model = Model(name="m", scripts="scripts/x", url="https://host/repo")
    assert compose.job(model, source, None, tmp_path, session()).script


def test_a_credential_that_is_not_there_is_a_users_error(make: Make) -> None:
    with pytest.raises(UserError, match=r"dummy: cred 'NONE' has no entry in credential.json"):
        make(cred="NONE")


def test_docker_options_are_split_as_a_shell_would(make: Make) -> None:
    made = make(additional_docker_run_options="--shm-size=1g -v '/my data:/data' --label \"a b\"")
    assert made.options == ("--shm-size=1g", "-v", "/my data:/data", "--label", "a b")
    with pytest.raises(UserError, match="dummy: additional_docker_run_options: No closing quotation"):
        make(additional_docker_run_options="--label 'a")


def test_mounts_lead_from_host_to_container(make: Make) -> None:
    assert make(session(docker_mounts={"/in": "/out"})).mounts == (Mount("/out", "/in"),)


def test_composing_again_gives_the_same_job(make: Make) -> None:
    ours = session(pre_scripts=["a.sh"], post_scripts=["b.sh"], docker_env_vars={"A": "1"})
    first = make(ours)
    assert make(ours) == first
    assert ours.context == session(pre_scripts=["a.sh"], post_scripts=["b.sh"], docker_env_vars={"A": "1"}).context


def test_a_jobs_id_is_that_of_its_folder_in_its_run(make: Make) -> None:
    made = make()
    assert (made.id, made.run) == ("madengine-run-1-dummy-1", "run-1")


@pytest.mark.parametrize(
    ("card", "words"),
    [
        (
            {"distributed": {"launcher": "slurm_multi"}},
            "its image ci-m:0123 is on this machine alone; valid: an image in",
        ),
        (
            {"slurm": {"container_runtime": "enroot"}, "additional_docker_run_options": "--hostname x"},
            "dummy: additional_docker_run_options: enroot has no --hostname",
        ),
        ({"distributed": {"launcher": "sglang_disagg", "nnodes": 2}}, "needs at least 3 nodes, slurm.nodes is 2"),
        (
            {"additional_docker_run_options": "--rm -d"},
            "dummy: additional_docker_run_options: -d: the run would be over",
        ),
    ],
)
def test_what_a_cluster_cannot_do_is_refused(make: Make, card: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        make(replace(session(), cluster="slurm"), **card)


def test_a_container_that_leaves_its_client_is_refused_where_there_is_one(make: Make) -> None:
    with pytest.raises(FaultsError, match="dummy: additional_docker_run_options: --detach: the run would be over"):
        make(additional_docker_run_options="--detach")
    make(image=None, additional_docker_run_options="--detach")
    bare = replace(session(slurm={"container_runtime": "none"}), cluster="slurm")
    make(bare, image=None, additional_docker_run_options="--detach")


def test_jobs_that_share_nodes_meet_on_ports_of_their_own(make: Make) -> None:
    shared = replace(session(slurm={"exclusive": False}), cluster="slurm")
    (port,) = {make(replace(shared, run=run)).topology.master_port for run in ("run-1", "run-2")}
    assert 20_000 <= port < 30_000
    assert make(replace(session(), cluster="slurm")).topology.master_port == 29500
    assert make(shared, distributed={"port": 1234}).topology.master_port == 1234


SELF_MANAGED = {"launcher": "slurm_multi", "sglang_disagg": {"prefill_nodes": 2, "decode_nodes": 1}}


def self_managed(make: Make, image: Image | None, context: dict[str, Any] | None = None, **card: Any) -> Job:
    """A job of four nodes whose script starts its own containers."""
    card = {"distributed": SELF_MANAGED, "slurm": {"nodes": 4, "results_dir": "r 1/$USER/%j"}, **card}
    return make(replace(session(**(context or {})), cluster="slurm"), image, **card)


def test_a_script_that_starts_its_own_containers_has_its_results_looked_for(make: Make) -> None:
    made = self_managed(make, Image("x:1"))
    compare(made.script, GOLDEN / "self-managed-slurm.sh")
    checking = [str(SHELLCHECK), "--shell=bash", "--severity=warning", "-"]
    checked = subprocess.run(checking, input=made.script, capture_output=True, text=True, check=False)
    assert checked.stdout == ""
    assert made.self_managed
    assert Job.from_json(made.to_json(), made.secrets).self_managed
    assert (made.topology.nodes, made.expressions) == (4, {"xP": "2", "yD": "1"})


@pytest.mark.parametrize(
    ("image", "named"),
    [
        (Image("reg/x@sha256:ab"), "reg/x@sha256:ab"),
        (Image("ci-m:0123", content="0123", registry_image="reg/m:0123"), "reg/m:0123"),
    ],
)
def test_the_image_that_was_resolved_is_the_one_it_is_told(make: Make, image: Image, named: str) -> None:
    others = {"env_vars": {"DOCKER_IMAGE_NAME": "other:1"}}
    assert self_managed(make, image, others, **others).env["DOCKER_IMAGE_NAME"] == named
    assert make(image=image, distributed=SELF_MANAGED, **others).env["DOCKER_IMAGE_NAME"] == named


def test_on_this_machine_an_image_that_was_built_here_will_do(make: Make) -> None:
    assert make(distributed=SELF_MANAGED).env["DOCKER_IMAGE_NAME"] == "ci-m:0123"
    assert "DOCKER_IMAGE_NAME" not in make(image=None, distributed=SELF_MANAGED).env


def test_a_folder_of_results_that_jobs_would_share_is_refused(make: Make) -> None:
    with pytest.raises(FaultsError, match=r"^dummy: slurm\.results_dir: 'out' is the same for every job; valid: "):
        self_managed(make, Image("x:1"), slurm={"results_dir": "out"})


PULLED = Image("reg/m@sha256:ab", registry_image="reg/m:1", registry_digest="sha256:ab")


def in_pods(make: Make, context: dict[str, Any] | None = None, image: Image | None = PULLED, **card: Any) -> Job:
    """A job on Kubernetes."""
    return make(replace(session(**(context or {})), cluster="k8s"), image, **card)


def test_pods_get_what_presets_card_and_context_say(make: Make) -> None:
    context = {"k8s": {"namespace": "ml", "gpu_count": 4}, "env_vars": {"A": "context"}, "docker_env_vars": {"B": "2"}}
    distributed = {"launcher": "torchrun", "nnodes": 2, "port": 1234}
    made = in_pods(make, context, distributed=distributed, env_vars={"A": "card"}, timeout=60)
    stated = {key: made.cluster[key] for key in ("namespace", "gpu_count", "gpu_resource_name", "memory_limit")}
    assert list(stated.values()) == ["ml", 4, "amd.com/gpu", "128Gi"]
    assert made.devices == Devices("AMD", (0, 1, 2, 3))
    assert made.topology == Topology.of_cluster(2, 4, 1234)
    assert made.expressions["MAD_MULTI_NODE_RUNNER"].startswith("torchrun --nnodes=2 --nproc_per_node=4 --node_rank=${")
    assert made.visible_devices == ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")
    env = {name: made.env.get(name) for name in ("A", "B", "MAD_LAUNCHER_TYPE", "NCCL_SOCKET_IFNAME", "MAD_MODEL_NAME")}
    assert list(env.values()) == ["context", "2", "torchrun", "eth0", "dummy"]
    assert not [name for name in made.env if name.startswith("MAD_SYSTEM_")]
    assert (made.limit, made.files, made.measuring, made.keep) == (60.0, ("scripts/dummy/run.sh",), (), False)


def test_a_pod_without_launcher_is_told_of_none(make: Make) -> None:
    made = in_pods(make, n_gpus="0")
    assert made.topology == Topology.of_cluster(1, 1)
    assert not {"MAD_LAUNCHER_TYPE", "DISTRIBUTED_BACKEND"} & made.env.keys()


def test_the_resource_that_pods_ask_for_says_whose_gpus_they_are(make: Make) -> None:
    made = in_pods(make, {"k8s": {"gpu_resource_name": "nvidia.com/gpu"}}, n_gpus="1")
    assert (made.devices, made.env["MAD_GPU_VENDOR"]) == (Devices("NVIDIA", (0,)), "NVIDIA")
    assert "ROCM_PATH" not in made.env
    assert made.visible_devices[0] == "CUDA_VISIBLE_DEVICES"
    assert in_pods(make, image=replace(PULLED, vendor="NVIDIA"), n_gpus="1").cluster["gpu_resource_name"] == (
        "nvidia.com/gpu"
    )


def test_where_other_pods_serve_the_first_one_measures(make: Make) -> None:
    distributed = {"launcher": "sglang-disagg", "nnodes": 3, "nproc_per_node": 1}
    made = in_pods(make, distributed=distributed)
    assert made.measuring == (0,)
    assert Job.from_json(made.to_json(), made.secrets).measuring == (0,)
    on_slurm = make(replace(session(), cluster="slurm"), distributed=distributed)
    assert on_slurm.measuring == ()


def test_of_a_jobs_file_a_later_session_makes_the_same_job(make: Make) -> None:
    ours = replace(session(secrets={"B": "hidden-one"}), cluster="k8s", keep=True)
    made = make(ours, PULLED, cred="GIT")
    told = json.dumps(made.to_json())
    assert not [text for text in ("hidden-one", "hunter2") if text in told or text in repr(made)]
    card = Model.model_validate({"name": "dummy", "cred": "GIT"})
    again = compose.taken_up(json.loads(told), card, ours)
    assert (again, again.keep) == (made, True)
    assert json.loads(again.credential) == CREDENTIALS


def test_only_pods_get_all_credentials(make: Make) -> None:
    assert make().credential == ""
    assert make(replace(session(), cluster="slurm")).credential == ""


@pytest.mark.parametrize(
    ("card", "words"),
    [
        (
            {"distributed": {"launcher": "slurm-multi"}},
            "dummy: distributed.launcher: 'slurm-multi' starts its own containers, and pods can start none; valid:",
        ),
        (
            {"distributed": {"launcher": "sglang_disagg", "nnodes": 2, "nproc_per_node": 1}},
            "the launcher sglang_disagg needs at least 3 nodes, distributed.nnodes is 2",
        ),
        ({"additional_docker_run_options": "--hostname x"}, "a pod has no --hostname"),
        ({"k8s": {"memory": "x"}}, "models.json:7: k8s.memory (dummy)"),
        ({"distributed": {"nnodes": 2}}, "k8s.gpu_count (dummy): is missing, and Kubernetes has no word for all"),
    ],
)
def test_what_pods_cannot_do_is_refused(make: Make, card: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        in_pods(make, **card)


def test_folders_of_nodes_are_not_looked_for_here(make: Make, tmp_path: Path) -> None:
    mounts = {str(tmp_path): "/only/on/nodes"}
    assert in_pods(make, {"docker_mounts": mounts}, n_gpus="0").mounts == (Mount("/only/on/nodes", str(tmp_path)),)
    with pytest.raises(UserError, match="swapped"):
        make(session(docker_mounts=mounts))
