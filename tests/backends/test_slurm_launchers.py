"""Every launcher on a real SLURM cluster: what models get there, and what becomes of what their ranks say."""

from __future__ import annotations

import fnmatch
import getpass
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_madengine.engine import rundir
from pytest_madengine.results.result import FailureClass, Result
from tests.backends import launched
from tests.cards import PASSES, card, project, rows, run_bare
from tests.engines.cluster import Cluster

pytestmark = pytest.mark.requires_slurm

GPUS = 2
BARE = {"container_runtime": "none", "exclusive": False, "time": "00:05:00", "enable_node_check": False}
OF_TORCHRUN = ("torchrun", "megatron", "megatron-lm", "megatron_lm", "torchtitan")
LAUNCHERS = (*OF_TORCHRUN, "deepspeed", "primus", "vllm", "sglang")
DISAGGREGATED = ("sglang_disagg", "sglang-disagg")
WIDE, NARROW = 4, 1
PATTERN = "MAD|MASTER|NODE|NNODES|WORLD|RANK|NPROC|GPUS_|TORCH|MIOPEN_USER|NCCL_INIT|NCCL_SOCKET|GLOO|RAY_EXP"
OF_LAUNCHERS = "DISTRIBUTED|TENSOR_|PIPELINE_|CONTEXT_|VLLM|SGLANG|PRIMUS|BACKEND|xP|yD"
SHOWS = f"""printf 'args: %s\\n' "$*"
env | grep -E '^({PATTERN}|{OF_LAUNCHERS}|(HIP|ROCR|CUDA)_VISIBLE_DEVICES)'
PATH=$MADENGINE_PROJECT/bin:$PATH
[ -z "$MAD_MULTI_NODE_RUNNER" ] || $MAD_MULTI_NODE_RUNNER train.sh "$@" || exit
echo "performance: $((NODE_RANK + 1)) tokens_per_second"
"""
TRAINS = 'echo "$MET: $RANK of $WORLD_SIZE, $LOCAL_RANK, $*"\n'
ARGS = "--steps 3 --name 'a b'"
EXTRA = "--mock 'a b' \"$HOME\""


def context(**values: Any) -> str:
    return f"--madengine-context={json.dumps(values)}"


def on(folder: Path, *cards: dict[str, Any], script: str = SHOWS, **values: Any) -> list[str]:
    """The options for these models, which all run this script, beside stand-ins for torchrun and deepspeed."""
    project(folder, *({**each, "scripts": "scripts/run.sh"} for each in cards), script=script)
    (folder / "scripts/train.sh").write_text(TRAINS)
    (folder / "bin").mkdir()
    for name in ("torchrun", "deepspeed"):
        (folder / "bin" / name).symlink_to(launched.__file__)
    slurm = {**BARE, **values.pop("slurm", {})}
    return ["--madengine-tags=all", "--target=slurm", context(**values, slurm=slurm)]


def model(launcher: str, nodes: int, port: int = 29500) -> dict[str, Any]:
    distributed = {"launcher": launcher, "nnodes": nodes, "nproc_per_node": GPUS, "port": port}
    primus = {"primus": {"config_path": "exp.yaml", "cli_extra": EXTRA}} if launcher == "primus" else {}
    return card(f"{launcher}-{nodes}", args=ARGS, distributed=distributed | primus)


def job(folder: Path, name: str) -> Path:
    (found,) = folder.glob(f".madengine/runs/latest/jobs/{name}-{'[0-9a-f]' * 8}")
    return found


def logs(folder: Path, name: str) -> list[str]:
    """What each rank of a model printed."""
    ranks = sorted(job(folder, name).glob("ranks/*/run.log")) or [job(folder, name) / "run.log"]
    return [path.read_text() for path in ranks]


def variables(log: str) -> dict[str, str]:
    """The variables that the script found."""
    lines = (line.partition("=") for line in log.splitlines())
    return {name: value for name, equals, value in lines if equals and re.fullmatch(r"\w+", name)}


def results(folder: Path) -> dict[str, Result]:
    """What the run keeps of each model."""
    found = filter(None, map(rundir.result_in, folder.glob(".madengine/runs/latest/jobs/*")))
    return {result.model: result for result in found}


def of_node(rank: int, nodes: int, hosts: tuple[str, ...], port: int, number: str) -> dict[str, str]:
    """What every launcher's models get on a node."""
    return {
        "MASTER_ADDR": hosts[0],
        "MASTER_PORT": str(port),
        "NODE_LIST": ",".join(hosts),
        "NNODES": str(nodes),
        "WORLD_SIZE": str(nodes * GPUS),
        "NPROC_PER_NODE": str(GPUS),
        "GPUS_PER_NODE": str(GPUS),
        "MAD_RUNTIME_NGPUS": str(GPUS),
        "RANK": str(rank),
        "NODE_RANK": str(rank),
        "MAD_NODE_RANK": str(rank),
        "MAD_TOTAL_NODES": str(nodes),
        "MAD_DEPLOYMENT_TYPE": "slurm",
        "MAD_IN_SLURM_JOB": "1",
        "MAD_SLURM_JOB_ID": number,
        "MIOPEN_USER_DB_PATH": f"/tmp/.miopen/node_{rank}_rank_0",  # noqa: S108  # as documented
        "TORCH_ELASTIC_RDZV_TIMEOUT": "3600",
        "DISTRIBUTED_BACKEND": "nccl",
    }


def runner(launcher: str, nodes: int, rank: int, env: Mapping[str, str]) -> str:
    """The command that starts a node's processes."""
    meeting = f"--node_rank={rank} --master_addr={env['MASTER_ADDR']} --master_port={env['MASTER_PORT']}"
    if launcher == "deepspeed":
        file = f"/tmp/hostfile-{env['MADENGINE_JOB_ID']}-{rank}"  # noqa: S108  # of one job and node
        return f"deepspeed --num_gpus={GPUS}" if nodes == 1 else f"deepspeed --hostfile={file} --no_ssh {meeting}"
    if launcher not in OF_TORCHRUN:
        return ""
    alone = nodes == 1
    return f"torchrun {'--standalone' if alone else f'--nnodes={nodes}'} --nproc_per_node={GPUS}" + (
        "" if alone else f" {meeting}"
    )


def own(launcher: str, nodes: int, rank: int, env: Mapping[str, str]) -> dict[str, str]:
    """What only a launcher's models get."""
    split = {"TENSOR": str(GPUS), "PIPELINE": str(nodes)}
    several = nodes > 1
    of: dict[str, dict[str, str]] = {
        "megatron": {f"{part}_MODEL_PARALLEL_SIZE": size for part, size in split.items()}
        | {"CONTEXT_PARALLEL_SIZE": "1"},
        "torchtitan": {f"TORCHTITAN_{part}_PARALLEL_SIZE": size for part, size in split.items()}
        | {"TORCHTITAN_FSDP_ENABLED": str(int(several)), "TORCHTITAN_CONTEXT_PARALLEL_SIZE": "1"},
        "vllm": {
            "VLLM_TENSOR_PARALLEL_SIZE": str(GPUS),
            "VLLM_PIPELINE_PARALLEL_SIZE": "1",
            "VLLM_DISTRIBUTED_BACKEND": "none" if several else "auto",
        },
        "sglang": {"SGLANG_TENSOR_PARALLEL_SIZE": str(GPUS), "SGLANG_PIPELINE_PARALLEL_SIZE": "1"}
        | ({"NCCL_INIT_ADDR": f"{env['MASTER_ADDR']}:{env['MASTER_PORT']}"} if several else {}),
        "primus": {"PRIMUS_CONFIG_PATH": "exp.yaml", "PRIMUS_CLI_EXTRA": EXTRA},
        "sglang_disagg": {
            "SGLANG_DISAGG_MODE": "enabled",
            "SGLANG_DISAGG_PREFILL_NODES": "1",
            "SGLANG_DISAGG_DECODE_NODES": str(nodes - 2),
            "SGLANG_DISAGG_TOTAL_NODES": str(nodes),
            "SGLANG_TP_SIZE": str(GPUS),
            "SGLANG_NODE_IPS": env.get("NODE_IPS", ""),
            "SGLANG_NODE_RANK": str(rank),
        },
    }
    return of.get(launcher, {}) | {"MAD_LAUNCHER_TYPE": launcher}


FIRST = {"megatron-lm": "megatron", "megatron_lm": "megatron", "sglang-disagg": "sglang_disagg"}
"""The launchers that aliases stand for."""


def check(launcher: str, nodes: int, port: int, texts: list[str], hosts: tuple[str, ...]) -> None:
    """Compare what the ranks of a model printed with what they were to get."""
    found = [variables(text) for text in texts]
    assert len(set(hosts)) == nodes == len(texts)
    name = FIRST.get(launcher, launcher)
    for rank, env in enumerate(found):
        expected = of_node(rank, nodes, hosts, port, found[0]["MAD_SLURM_JOB_ID"]) | own(name, nodes, rank, env)
        expected["MAD_MULTI_NODE_RUNNER"] = runner(name, nodes, rank, env)
        assert {key: env.get(key) for key in expected} == expected
        assert strange(env, expected) == []
        assert len(set(env["NODE_IPS"].split(","))) == nodes
        assert "args: --steps 3 --name a b\n" in texts[rank]
        check_devices(name, env)


def strange(env: Mapping[str, str], expected: Mapping[str, str]) -> list[str]:
    """Variables of other launchers."""
    return sorted(key for key in env.keys() - expected.keys() if re.match(OF_LAUNCHERS, key))


def check_devices(launcher: str, env: Mapping[str, str]) -> None:
    """SLURM grants GPUs by ROCr's variable; those above it count from 0. Ray's models see one variable alone."""
    granted = {name: env.get(f"{name}_VISIBLE_DEVICES") for name in ("HIP", "ROCR", "CUDA")}
    lowest = "HIP" if launcher in ("vllm", "sglang", "sglang_disagg") else "ROCR"
    assert env["RAY_EXPERIMENTAL_NOSET_HIP_VISIBLE_DEVICES"] == ""
    assert re.fullmatch("[0-7],[0-7]", granted[lowest] or "")
    others = {name: value for name, value in granted.items() if name != lowest}
    assert others == dict.fromkeys(others, None if lowest == "HIP" else "0,1")


def check_processes(launcher: str, nodes: int, rank: int, text: str) -> None:
    """The command really starts a process for each GPU, and all processes of all nodes meet."""
    if launcher not in (*OF_TORCHRUN, "deepspeed"):
        return
    world = nodes * GPUS
    met = "alone" if nodes == 1 else ",".join(map(str, range(world)))
    lines = {f"{met}: {rank * GPUS + local} of {world}, {local}, --steps 3 --name a b" for local in range(GPUS)}
    assert lines <= set(text.splitlines())


def test_models_get_what_their_launcher_promises_on_one_node_and_on_four(pytester: pytest.Pytester) -> None:
    kinds = [(launcher, nodes) for launcher in LAUNCHERS for nodes in (NARROW, WIDE)]
    kinds += [(launcher, WIDE) for launcher in DISAGGREGATED]
    ports = {kind: 29600 + number for number, kind in enumerate(kinds)}
    args = on(pytester.path, *(model(*kind, port) for kind, port in ports.items()))
    run_bare(pytester, *args).assert_outcomes(passed=len(kinds))
    kept = results(pytester.path)
    for (launcher, nodes), port in ports.items():
        name = f"{launcher}-{nodes}"
        texts = logs(pytester.path, name)
        check(launcher, nodes, port, texts, kept[name].hosts)
        for rank, text in enumerate(texts):
            check_processes(launcher, nodes, rank, text)
    for row in rows(pytester.path / "perf.csv"):
        launcher, _, count = row["model"].rpartition("-")
        assert (row["launcher"], row["nnodes"], row["gpus_per_node"]) == (launcher, count, str(GPUS))
        assert row["performance"] == ("10" if int(count) == WIDE else "1")


@pytest.mark.requires_docker
def test_all_that_reaches_a_container_too(pytester: pytest.Pytester) -> None:
    kinds = [
        (launcher, 2) for launcher in ("torchrun", "megatron", "torchtitan", "deepspeed", "primus", "vllm", "sglang")
    ]
    kinds += [("sglang_disagg", 3)]
    shows = SHOWS.replace("$MAD_MULTI_NODE_RUNNER train.sh", ": train.sh")
    slurm = {"container_runtime": "docker"}
    cards = [model(*kind) for kind in kinds]
    args = on(pytester.path, *cards, script=shows, slurm=slurm, docker_image="madengine-test-base:latest")
    run_bare(pytester, *args).assert_outcomes(passed=len(kinds))
    kept = results(pytester.path)
    for launcher, nodes in kinds:
        name = f"{launcher}-{nodes}"
        check(launcher, nodes, 29500, logs(pytester.path, name), kept[name].hosts)


def test_the_context_wins_over_the_cards_launcher_key_by_key(pytester: pytest.Pytester) -> None:
    distributed = {"launcher": "torchrun", "nnodes": 2, "nproc_per_node": 1, "port": 29701, "backend": "gloo"}
    given = {"launcher": "deepspeed", "nproc_per_node": 2}
    args = on(pytester.path, card("m", distributed=distributed), distributed=given, slurm={"gpus_per_node": 1})
    run_bare(pytester, *args).assert_outcomes(passed=1)
    for rank, text in enumerate(logs(pytester.path, "m")):
        env = variables(text)
        assert env["MAD_MULTI_NODE_RUNNER"] == runner("deepspeed", 2, rank, env)
        shown = {name: env[name] for name in ("MASTER_PORT", "DISTRIBUTED_BACKEND", "NPROC_PER_NODE", "GPUS_PER_NODE")}
        assert list(shown.values()) == ["29701", "gloo", "2", "1"]
        assert f"0,1,2,3: {rank * 2} of 4, 0, \n" in text


def test_sglang_disagg_on_too_few_nodes_is_refused_before_anything_is_submitted(
    pytester: pytest.Pytester, slurm_cluster: Cluster
) -> None:
    result = run_bare(pytester, *on(pytester.path, model("torchrun", 1), model("sglang-disagg", 2)))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*the launcher sglang_disagg needs at least 3 nodes, slurm.nodes is 2"])
    assert not (pytester.path / "perf.csv").exists()
    folders = slurm_cluster.text("squeue", "--noheader", "--states=all", "--format=%Z")
    assert str(pytester.path) not in folders


RECIPES: dict[str, dict[str, Any]] = {
    "one node": {
        "slurm": {"partition": "amd-gpu", "nodes": 1, "gpus_per_node": 8, "time": "12:00:00", "exclusive": True},
        "distributed": {"launcher": "torchrun", "nnodes": 1, "nproc_per_node": 8},
    },
    "a file": {
        "gpu_vendor": "AMD",
        "guest_os": "UBUNTU",
        "slurm": {"partition": "gpu", "nodes": 4, "gpus_per_node": 8, "time": "24:00:00", "exclusive": True},
        "distributed": {"launcher": "torchrun", "nnodes": 4, "nproc_per_node": 8, "backend": "nccl"},
    },
    "torchrun": {
        "slurm": {"partition": "gpu", "nodes": 4, "gpus_per_node": 8, "time": "24:00:00"},
        "distributed": {"launcher": "torchrun", "nnodes": 4, "nproc_per_node": 8, "backend": "nccl", "port": 29500},
        "env_vars": {"NCCL_DEBUG": "WARN", "HSA_ENABLE_SDMA": "0", "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1"},
    },
    "megatron": {
        "slurm": {"partition": "gpu", "nodes": 8, "gpus_per_node": 8, "time": "48:00:00"},
        "distributed": {"launcher": "megatron", "nnodes": 8, "nproc_per_node": 8},
        "env_vars": {
            "TENSOR_MODEL_PARALLEL_SIZE": "4",
            "PIPELINE_MODEL_PARALLEL_SIZE": "2",
            "CONTEXT_PARALLEL_SIZE": "1",
            "NCCL_IB_DISABLE": "0",
        },
    },
    "torchtitan": {
        "slurm": {"partition": "gpu", "nodes": 4, "gpus_per_node": 8, "time": "24:00:00"},
        "distributed": {"launcher": "torchtitan", "nnodes": 4, "nproc_per_node": 8},
        "env_vars": {"TORCHTITAN_TENSOR_PARALLEL_SIZE": "2", "TORCHTITAN_FSDP_ENABLED": "true"},
    },
    "deepspeed": {
        "slurm": {
            "partition": "gpu",
            "nodes": 8,
            "gpus_per_node": 8,
            "time": "48:00:00",
            "reservation": "ml-priority",
        },
        "distributed": {"launcher": "deepspeed", "nnodes": 8, "nproc_per_node": 8, "backend": "nccl"},
        "env_vars": {"NCCL_DEBUG": "WARN", "HSA_ENABLE_SDMA": "0"},
    },
    "deepspeed on ib0": {
        "slurm": {
            "partition": "amd-gpu",
            "nodes": 4,
            "gpus_per_node": 8,
            "time": "24:00:00",
            "exclusive": True,
            "reservation": "ml-training-q1",
            "network_interface": "ib0",
        },
        "distributed": {"launcher": "deepspeed", "nnodes": 4, "nproc_per_node": 8, "backend": "nccl"},
        "env_vars": {
            "NCCL_IB_DISABLE": "0",
            "NCCL_SOCKET_IFNAME": "ib0",
            "NCCL_DEBUG": "WARN",
            "HSA_ENABLE_SDMA": "0",
        },
    },
    "vllm": {
        "slurm": {"partition": "gpu", "nodes": 2, "gpus_per_node": 8, "time": "12:00:00"},
        "distributed": {"launcher": "vllm", "nnodes": 2, "nproc_per_node": 8},
        "env_vars": {"VLLM_TENSOR_PARALLEL_SIZE": "8", "VLLM_PIPELINE_PARALLEL_SIZE": "2"},
    },
    "sglang": {
        "slurm": {"partition": "gpu", "nodes": 2, "gpus_per_node": 8, "time": "06:00:00"},
        "distributed": {"launcher": "sglang", "nnodes": 2, "nproc_per_node": 8},
        "env_vars": {"SGLANG_TENSOR_PARALLEL_SIZE": "8"},
    },
    "sglang_disagg": {
        "slurm": {"partition": "gpu", "nodes": 5, "gpus_per_node": 8, "time": "04:00:00"},
        "distributed": {
            "launcher": "sglang_disagg",
            "nnodes": 5,
            "nproc_per_node": 8,
            "sglang_disagg": {"prefill_nodes": 2, "decode_nodes": 2},
        },
        "env_vars": {"SGLANG_TP_SIZE": "8"},
    },
    "slurm_multi": {
        "slurm": {"partition": "amd-gpu", "nodes": 3, "gpus_per_node": 8, "time": "04:00:00"},
        "distributed": {"launcher": "slurm_multi"},
    },
}
"""The configurations that the wiki of the replaced tool gives as examples."""
SHOWS_ALL = f"env\n{PASSES}"


def fitted(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe for a cluster whose partition has another name, and no more than four nodes."""
    slurm, distributed = recipe["slurm"], recipe["distributed"]
    nodes = min(slurm["nodes"], WIDE)
    counted = {"nnodes": nodes} if "nnodes" in distributed else {}
    split = {"sglang_disagg": {"prefill_nodes": 2, "decode_nodes": 1}} if "sglang_disagg" in distributed else {}
    return recipe | {
        "slurm": {**slurm, "partition": "main", "nodes": nodes},
        "distributed": {**distributed, **counted, **split},
    }


@pytest.fixture
def reservation(slurm_cluster: Cluster, name: str) -> Iterator[str]:
    """A reservation that the recipe names; it keeps nobody off the nodes."""
    reserved = RECIPES[name]["slurm"].get("reservation", "")
    if reserved:
        far = ("StartTime=now+300days", "Duration=1", "Flags=FLEX", "Nodes=node1", f"Users={getpass.getuser()}")
        slurm_cluster.text("scontrol", "create", "reservation", f"ReservationName={reserved}", *far)
    yield reserved
    if reserved:
        slurm_cluster.text("scontrol", "delete", "reservation", reserved)


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipes_of_the_wiki_run(pytester: pytest.Pytester, name: str, reservation: str) -> None:
    recipe = fitted(RECIPES[name])
    project(pytester.path, card("m"), script=SHOWS_ALL)
    (pytester.path / "bare.json").write_text('{"slurm": {"container_runtime": "none"}}')
    args = ("--madengine-tags=m", "--madengine-context-file=bare.json", context(**recipe))
    run_bare(pytester, *args).assert_outcomes(passed=1)
    nodes, launcher = recipe["slurm"]["nodes"], recipe["distributed"]["launcher"]
    (row,) = rows(pytester.path / "perf.csv")
    assert (row["nnodes"], row["gpus_per_node"], row["deployment_type"]) == (str(nodes), "8", "slurm")
    assert row["launcher"] == launcher
    texts = logs(pytester.path, "m")
    assert len(texts) == (1 if launcher == "slurm_multi" else nodes)
    interface = recipe["slurm"].get("network_interface")
    stated = recipe.get("env_vars", {}) | ({"GLOO_SOCKET_IFNAME": interface} if interface else {})
    for text in texts:
        assert {key: variables(text).get(key) for key in stated} == stated
    script = (job(pytester.path, "m") / "job.sh").read_text()
    assert ("#SBATCH --exclusive\n" in script, f"#SBATCH --time={recipe['slurm']['time']}\n" in script) == (True, True)
    assert (f"#SBATCH --reservation={reservation}\n" in script) == bool(reservation)


MEASURED = {
    "summed": "echo performance: $((NODE_RANK + 1)) tokens_per_second",
    "word": "echo performance: $((NODE_RANK + 2)).0 tokens_per_second [mean]",
    "card": "echo performance: $((NODE_RANK + 3)) ms",
    "disagree": 'echo performance: 1 "$([ $NODE_RANK = 0 ] && echo ms || echo tok/s)"',
    "silent": '[ $NODE_RANK = 1 ] || echo performance: 1 tokens_per_second; echo "here is $NODE_RANK"',
    "fails": 'echo performance: 1 tokens_per_second; echo "here is $NODE_RANK"; exit $((NODE_RANK * 3))',
    "error": '[ $NODE_RANK = 0 ] || echo "RuntimeError: of $NODE_RANK"; echo performance: 1 tokens_per_second',
    "vanishes": "echo performance: 1 tokens_per_second; [ $NODE_RANK = 0 ] || kill -KILL $SLURM_TASK_PID $PPID",
    "table": "[ $NODE_RANK = 0 ] || printf 'model,performance,metric\\na,1.50,x\\nb,2,y\\n' >r.csv",
    "clone": "true",
}
"""What the ranks of a job of two nodes say, by the model that says it."""
OF_TABLE = {"multiple_results": "r.csv"}
CARDS: dict[str, dict[str, Any]] = {
    "card": {"aggregate": "max"},
    "silent": {"aggregate": "sum"},
    "table": OF_TABLE,
    "clone": {"url": "http://127.0.0.1:9/x.git"},
}


def test_what_ranks_measure_becomes_one_result_or_a_failure_that_names_them(pytester: pytest.Pytester) -> None:
    cards = [card(name, slurm={"nodes": 2}, **CARDS.get(name, {})) for name in MEASURED]
    project(pytester.path, *cards, **MEASURED)
    given = context(slurm={**BARE, "gpus_per_node": 0})
    result = run_bare(pytester, "--madengine-tags=all", "--target=slurm", given, "--junitxml=junit.xml")
    result.assert_outcomes(passed=4, failed=4, errors=2)
    found = results(pytester.path)
    measured = [(row["model"], row["performance"], row["metric"]) for row in rows(pytester.path / "perf.csv")]
    good = ("summed", "word", "card", "table_a", "table_b")
    assert sorted(each for each in measured if each[0] in good) == [
        ("card", "4", "ms"),
        ("summed", "3", "tokens_per_second"),
        ("table_a", "1.50", "x"),
        ("table_b", "2", "y"),
        ("word", "2.5", "tokens_per_second"),
    ]
    check_failures(found)
    check_notes(result, pytester.path, found["summed"])
    for rank in (0, 1):
        assert (job(pytester.path, "table") / f"ranks/{rank}/artifacts/r.csv").exists() == bool(rank)


def check_failures(found: Mapping[str, Result]) -> None:
    """Each names its ranks, with the log of the one to look at."""
    node = dict(enumerate(found["fails"].hosts))
    reasons = {
        "disagree": "the ranks disagree on the metric: 'ms' (rank 0 on node*), 'tok/s' (rank 1 on node*)",
        "silent": "rank 1 on node* states no performance, rank 0 on node* does (aggregate: sum)",
        "fails": f"rank 1 on {node[1]} (exit code 3) of 2 failed",
        "error": "error in the log: rank 1 on node*: 'RuntimeError: of 1' (pattern 'RuntimeError:')",
        "vanishes": "the job was lost: its script ended with *; rank 1 on node* of 2 never finished",
        "clone": "rank 0 on node* (exit code 128), 1 on node* (exit code 128) of 2 failed in git clone",
    }
    for name, reason in reasons.items():
        assert fnmatch.fnmatchcase(found[name].reason, reason), found[name].reason
    broken = {name for name, result in found.items() if result.failure is FailureClass.INFRASTRUCTURE}
    assert broken == {"vanishes", "clone"}
    for name in ("silent", "fails", "error", "vanishes"):
        assert found[name].log.endswith("/ranks/1/run.log")
    assert "here is 1" in found["silent"].tail
    assert found["fails"].tail[-1] == "here is 1"
    assert not any(found[name].tail for name in ("summed", "table"))


def check_notes(result: pytest.RunResult, folder: Path, summed: Result) -> None:
    """What nobody asked for is told: on the terminal, in JUnit's file and in the kept result."""
    note = "2 ranks summed by the rule for tokens_per_second; state `aggregate` in the card"
    assert summed.notes == (note,)
    result.stdout.fnmatch_lines([f"note: *summed*: {note}"])
    cases = ET.parse(folder / "junit.xml").iter("testcase")  # noqa: S314  # our own file
    (case,) = (each for each in cases if each.get("name") == "summed")
    assert [each.get("value") for each in case.iter("property") if each.get("name") == "note"] == [note]
