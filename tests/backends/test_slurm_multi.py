"""Models that start their own containers, on a real cluster and on this host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_madengine.results.perf import PERF_COLUMNS
from tests.cards import PASSES, card, project, rows, run_bare, statuses
from tests.engines.cluster import Cluster
from tests.engines.registries import Registry

BARE = {"container_runtime": "none", "exclusive": False, "time": "00:05:00", "gpus_per_node": 0}
SHORT = "model,performance,metric,status"
ONE = f"{SHORT}\\nserved,12.5,tok/s (con=8),SUCCESS\\n"


def self_managed(name: str = "m", **more: Any) -> dict[str, Any]:
    return card(name, **{"distributed": {"launcher": "slurm_multi"}, **more})


def on_cluster(**context: Any) -> list[str]:
    slurm = {**BARE, **context.pop("slurm", {})}
    given = json.dumps({**context, "slurm": slurm})
    return ["--madengine-tags=all", "--target=slurm", f"--madengine-context={given}"]


def writes(path: str, text: str = ONE) -> str:
    """A script's lines that write results."""
    return f'file={path}\nmkdir -p "$(dirname "$file")"\nprintf "{text}" >"$file"\n'


def log(folder: Path, model: str = "m") -> str:
    """What a model printed."""
    (found,) = folder.glob(f".madengine/runs/latest/jobs/{model}-*/run.log")
    return found.read_text()


def results(folder: Path) -> list[tuple[str, ...]]:
    """The rows of perf.csv, as far as the model measured them."""
    names = ("model", "performance", "metric", "status")
    return [tuple(row[name] for name in names) for row in rows(folder / "perf.csv")]


class TestOnThisHost:
    """The script runs as it is, wherever the target's other models run."""

    RUN = ("--madengine-tags=all", "--target=host")

    def test_its_output_is_in_the_log_and_its_results_are_rows(self, pytester: pytest.Pytester) -> None:
        split = {"launcher": "slurm_multi", "sglang_disagg": {"prefill_nodes": 2}}
        model = self_managed(distributed=split, env_vars={"DOCKER_IMAGE_NAME": "reg/x:1"}, args="--a 'b c'")
        shows = 'echo "image $DOCKER_IMAGE_NAME, split $xP $yD, args $*"\n'
        project(pytester.path, model, script=shows + writes("perf.csv"))
        run_bare(pytester, *self.RUN, "--madengine-timeout=0").assert_outcomes(passed=1)
        assert results(pytester.path) == [("m_served", "12.5", "tok/s (con=8)", "SUCCESS")]
        assert "image reg/x:1, split 2 1, args --a b c\n" in log(pytester.path)

    def test_a_target_of_containers_runs_it_in_none(self, pytester: pytest.Pytester) -> None:
        project(pytester.path, self_managed(), script='echo "home $HOME"; ' + PASSES)
        run_bare(pytester, "--madengine-tags=all", "--target=docker").assert_outcomes(passed=1)
        assert results(pytester.path) == [("m", "12.50", "tokens_per_second", "SUCCESS")]

    def test_the_row_of_a_perf_csv_with_all_columns_keeps_what_it_says(self, pytester: pytest.Pytester) -> None:
        said = dict.fromkeys(PERF_COLUMNS, "") | {
            "model": "m",
            "performance": "7",
            "metric": "tok/s",
            "status": "SUCCESS",
            "nnodes": "3",
            "deployment_type": "disagg_1P2D",
            "machine_name": "node[1-3]",
        }
        text = f"{','.join(PERF_COLUMNS)}\\n{','.join(said.values())}\\n"
        project(
            pytester.path, self_managed(args="-x"), script=writes("perf_served.csv", text) + "cp perf_*.csv perf.csv"
        )
        run_bare(pytester, *self.RUN).assert_outcomes(passed=1)
        (row,) = rows(pytester.path / "perf.csv")
        assert {key: row[key] for key, value in said.items() if value} == {key: v for key, v in said.items() if v}
        assert (row["args"], row["launcher"]) == ("-x", "slurm_multi")

    def test_what_was_there_before_is_no_result(self, pytester: pytest.Pytester) -> None:
        project(pytester.path, self_managed(), script="cat ../perf.csv perf.csv; true\n")
        for place in ("scripts/perf.csv", "scripts/perf_old.csv", "perf_old.csv"):
            (pytester.path / place).write_text(ONE.replace("\\n", "\n"))
        own = f"{','.join(PERF_COLUMNS)}\n"
        (pytester.path / "perf.csv").write_text(own)
        result = run_bare(pytester, *self.RUN)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["m: no line 'performance: *' in the model's output, and none of its results in *"])
        assert "older than this run, no result of it: " in log(pytester.path)
        assert (pytester.path / "perf.csv").read_text().startswith(own)
        assert statuses(pytester.path / "perf.csv") == {"m": "FAILURE"}

    def test_a_row_that_says_failure_fails_the_model(self, pytester: pytest.Pytester) -> None:
        text = f"{SHORT}\\nm,1,a,SUCCESS\\nm,0,b,FAILURE\\n"
        project(pytester.path, self_managed(), script=writes("perf.csv", text) + PASSES)
        result = run_bare(pytester, *self.RUN)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["m: in its results, status of m b FAILURE"])
        assert results(pytester.path) == [("m", "1", "a", "SUCCESS"), ("m", "0", "b", "FAILURE")]

    @pytest.mark.parametrize(
        ("text", "words"),
        [("", "*selfmanaged-1.csv is empty"), ("model,metric\\nm,x\\n", "*lacks the column performance; it has *")],
    )
    def test_a_file_that_cannot_be_used_is_no_success(self, pytester: pytest.Pytester, text: str, words: str) -> None:
        project(pytester.path, self_managed(), script=writes("perf.csv", text) + PASSES)
        result = run_bare(pytester, *self.RUN)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines([words])
        assert statuses(pytester.path / "perf.csv") == {"m": "FAILURE"}

    def test_a_file_that_the_card_names_is_read_wherever_it_is_called_perf(self, pytester: pytest.Pytester) -> None:
        narrow = "model,performance,metric,inp\\na,1,x,8\\nb,2,x,9\\n"
        project(
            pytester.path,
            self_managed("named", multiple_results="out/results.csv"),
            self_managed("lost", multiple_results="out/results.csv"),
            named=writes("out/results.csv", narrow) + writes("perf.csv"),
            lost=PASSES,
        )
        result = run_bare(pytester, *self.RUN)
        result.assert_outcomes(passed=1, failed=1)
        result.stdout.fnmatch_lines(["lost: the model wrote no out/results.csv (multiple_results), nor results in *"])
        assert results(pytester.path) == [
            ("named_a", "1", "x", "SUCCESS"),
            ("named_b", "2", "x", "SUCCESS"),
            ("lost", "", "", "FAILURE"),
        ]

    def test_a_script_that_fails_has_a_row(self, pytester: pytest.Pytester) -> None:
        project(pytester.path, self_managed(), script=writes("perf.csv") + "exit 5\n")
        result = run_bare(pytester, *self.RUN)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["m: exit code 5"])
        assert results(pytester.path) == [("m_served", "12.5", "tok/s (con=8)", "FAILURE")]


@pytest.mark.requires_slurm
class TestOnACluster:
    """The script runs once, on the first node, and starts what it wants on the others."""

    def test_it_reaches_all_nodes_and_knows_its_image(self, pytester: pytest.Pytester, slurm_cluster: Cluster) -> None:
        split = {"launcher": "slurm_multi", "sglang_disagg": {"prefill_nodes": 1, "decode_nodes": 2}}
        model = self_managed(
            distributed=split, slurm={"nodes": 3}, env_vars={"DOCKER_IMAGE_NAME": "x:0"}, args="--a 'b c'"
        )
        script = (
            'echo "image $DOCKER_IMAGE_NAME, split $xP $yD, nodes $NNODES, first $MASTER_ADDR, args $*"\n'
            "srun --ntasks-per-node=1 bash -c 'echo \"I am $(uname -n), $DOCKER_IMAGE_NAME $NNODES, in $PWD\"'\n"
            'srun --ntasks-per-node=1 bash "$PWD/m.sh.part"\n'
        )
        project(pytester.path, model, script=script + writes("perf.csv"))
        (pytester.path / "scripts/m.sh.part").write_text('echo "part on $(uname -n)"\n')
        run_bare(pytester, *on_cluster(env_vars={"DOCKER_IMAGE_NAME": "x:1"})).assert_outcomes(passed=1)
        found = log(pytester.path)
        assert "image x:1, split 1 2, nodes 3, first node" in found
        assert ", args --a b c\n" in found
        reached = {line.split()[2] for line in found.splitlines() if line.startswith("part on ")}
        assert len(reached) == 3
        for node in reached:
            assert f"I am {node}, x:1 3, in {pytester.path}/" in found
        (row,) = rows(pytester.path / "perf.csv")
        assert (row["status"], row["performance"], row["nnodes"], row["model"]) == ("SUCCESS", "12.5", "3", "m_served")
        assert row["launcher"] == "slurm_multi"
        run = (pytester.path / ".madengine/runs/latest").resolve().name
        assert run not in slurm_cluster.text("squeue", "--noheader", "--format=%k")

    @pytest.mark.parametrize(
        "place",
        [
            '"$MADENGINE_PROJECT/results/$SLURM_JOB_ID/perf_x.csv"',
            '"results/$SLURM_JOB_ID/perf.csv"',
            '"$MADENGINE_PROJECT/slurm_output/perf_csv/perf_$SLURM_JOB_ID.csv"',
            '"slurm_output/perf_csv/${SLURM_JOB_ID}_x.csv"',
            "perf_x.csv",
        ],
    )
    def test_its_results_are_found(self, pytester: pytest.Pytester, place: str) -> None:
        project(pytester.path, self_managed(slurm={"results_dir": "results/%j"}), script=writes(place))
        run_bare(pytester, *on_cluster()).assert_outcomes(passed=1)
        assert results(pytester.path) == [("m_served", "12.5", "tok/s (con=8)", "SUCCESS")]

    def test_results_of_other_jobs_are_not_its_own(self, pytester: pytest.Pytester) -> None:
        others = (
            'writes "$MADENGINE_PROJECT/slurm_output/perf_csv/1$SLURM_JOB_ID.csv"\n'
            'writes "$MADENGINE_PROJECT/slurm_output/perf_csv/perf_${SLURM_JOB_ID}0.csv"\n'
            'writes "$MADENGINE_PROJECT/results/1$SLURM_JOB_ID/perf.csv"\nwrites "$MADENGINE_PROJECT/perf.csv"\n'
            'writes "$MADENGINE_PROJECT/results/$SLURM_JOB_ID/perf.csv" -d "2 days ago"\n'
        )
        function = 'writes() { mkdir -p "${1%/*}"; printf "' + ONE + '" >"$1"; touch "${@:2}" "$1"; }\n'
        project(pytester.path, self_managed(slurm={"results_dir": "results/%j"}), script=function + others)
        result = run_bare(pytester, *on_cluster(), "--madengine-output=rows.csv")
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(
            ["m: no line 'performance:*, and none of its results in results/${SLURM_JOB_ID}/perf[*].csv, /shared_*"]
        )
        assert statuses(pytester.path / "rows.csv") == {"m": "FAILURE"}

    def test_a_script_that_fails(self, pytester: pytest.Pytester) -> None:
        project(pytester.path, self_managed(slurm={"nodes": 2}), script="echo so far; exit 5\n")
        result = run_bare(pytester, *on_cluster())
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["m: exit code 5"])
        assert results(pytester.path) == [("m", "", "", "FAILURE")]

    def test_the_time_limit_ends_what_it_started_on_other_nodes(
        self, pytester: pytest.Pytester, slurm_cluster: Cluster
    ) -> None:
        script = "echo begun; srun --ntasks-per-node=1 sleep 60\n"
        project(pytester.path, self_managed(slurm={"nodes": 2}), script=script)
        result = run_bare(pytester, *on_cluster(), "--madengine-timeout=3")
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["m: time limit of 3 s exceeded*"])
        run = (pytester.path / ".madengine/runs/latest").resolve().name
        assert run not in slurm_cluster.text("squeue", "--noheader", "--format=%k")

    def test_without_an_image_it_is_an_error_that_lists_the_ways(self, pytester: pytest.Pytester) -> None:
        project(pytester.path, self_managed())
        result = run_bare(pytester, *on_cluster(slurm={"container_runtime": "docker"}))
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(["*models.json:2: m starts its own containers and names no image: set *"])
        assert statuses(pytester.path / "perf.csv") == {"m": "FAILURE"}


@pytest.mark.requires_slurm
@pytest.mark.requires_docker
def test_a_machine_without_an_engine_submits_what_the_nodes_can_have(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    model = self_managed(env_vars={"DOCKER_IMAGE_NAME": "madengine-test-base:latest"})
    project(pytester.path, model, script='docker run --rm --network=host "$DOCKER_IMAGE_NAME" true && ' + PASSES)
    run_bare(pytester, *on_cluster(slurm={"container_runtime": "docker"})).assert_outcomes(passed=1)
    assert results(pytester.path) == [("m", "12.50", "tokens_per_second", "SUCCESS")]


@pytest.mark.requires_slurm
@pytest.mark.requires_registry
def test_the_image_is_on_every_node_before_the_script_runs(pytester: pytest.Pytester, registry: Registry) -> None:
    """The nodes of the tests share one engine, so a local name would do; it goes to the registry all the same."""
    model = self_managed(dockerfile="docker/m", slurm={"nodes": 2})
    script = 'echo "image $DOCKER_IMAGE_NAME"; docker image inspect "$DOCKER_IMAGE_NAME" >/dev/null && ' + PASSES
    project(pytester.path, model, script=script)
    (pytester.path / "docker").mkdir()
    (pytester.path / "docker/m.Dockerfile").write_text(
        "FROM madengine-test-base:latest\nRUN echo self-managed >/mark\n"
    )
    args = on_cluster(slurm={"container_runtime": "docker"})
    run_bare(pytester, *args, f"--madengine-registry={registry.address}").assert_outcomes(passed=1)
    assert f"image {registry.address}/" in log(pytester.path)
