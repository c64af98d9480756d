"""Images reach the nodes of a real SLURM cluster and run there in several container runtimes."""

from __future__ import annotations

import json
import secrets
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.backends.support import BASE_IMAGE, Spy
from tests.cards import PASSES, card, project, run_bare, statuses
from tests.engines.registries import Registry

pytestmark = [pytest.mark.requires_slurm, pytest.mark.requires_docker]

LABEL = "madengine-slurm-image"
STANDINS = Path(__file__).parents[1] / "engines/standins.py"
NOWHERE = "unix:///nowhere/docker.sock"
HOSTILE = """it's "q" $HOME `x` \\ a
second line"""
SHOWS = """echo "in $PWD on $(uname -n), rank $NODE_RANK of $NNODES: $TEXT, $MY_TOKEN"
ls -d /madengine/project
touch /file
"""


def docker(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["docker", *arguments], check=check, capture_output=True, text=True)
    return done.stdout.strip()


def held(label: str) -> list[str]:
    """The ids of the images that the engine, which is that of all nodes too, has of a label."""
    return docker("images", "--all", "--no-trunc", "--quiet", f"--filter=label={LABEL}={label}").split()


@pytest.fixture
def label(docker_engine: str) -> Iterator[str]:
    """The label of a test's own images, which go with the test."""
    label = secrets.token_hex(6)
    yield label
    if ids := held(label):
        docker("rmi", "--force", *set(ids))


@pytest.fixture
def image(label: str) -> str:
    """The name of an image that can run models and is like no other."""
    container = docker("create", BASE_IMAGE)
    docker("commit", f"--change=LABEL {LABEL}={label}", container, f"slurm-image-{label}:1")
    docker("rm", container)
    return f"slurm-image-{label}:1"


@pytest.fixture
def forgets(label: str) -> str:
    """Shell text by which a job, before it asks for its image, lets the engine forget it."""
    return f"docker rmi --force $(docker images --all --quiet --filter=label={LABEL}={label}) && echo forgotten"


Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    """Runs the project's model on nodes, by default two."""

    def run(
        image: str = "", script: str = SHOWS + PASSES, options: str = "", engine: str = "", **slurm: object
    ) -> pytest.RunResult:
        stated = {
            "nodes": 2,
            "exclusive": False,
            "time": "00:05:00",
            "gpus_per_node": 0,
            "enable_node_check": False,
            **slurm,
        }
        context = {"slurm": stated, "secrets": {"MY_TOKEN": 'planted "and"\nin lines'}}
        one = card("m", env_vars={"TEXT": HOSTILE}, dockerfile="docker/m", additional_docker_run_options=options)
        project(pytester.path, one, script=script)
        named = [f"--madengine-use-image={image}"] if image else []
        given = f"--madengine-context={json.dumps(context)}"
        with pytest.MonkeyPatch.context() as environment:
            if engine:
                environment.setenv("DOCKER_HOST", engine)
            return run_bare(pytester, "--madengine-tags=all", "--target=slurm", given, *named)

    return run


def left(folder: Path, name: str) -> str:
    """A file of the model's job."""
    (found,) = folder.glob(f".madengine/runs/latest/jobs/m-*/{name}")
    return found.read_text(encoding="utf-8")


def archives(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(".madengine/images/*") if not path.name.endswith(".lock"))


def ran(folder: Path) -> None:
    """Both ranks ran in containers, saw their variables, and no file has the secret."""
    for rank in range(2):
        said = left(folder, f"ranks/{rank}/run.log")
        assert "in /myworkspace/run_directory on " in said
        assert f", rank {rank} of 2: {HOSTILE}, *" in said
        assert "\n/madengine/project\n" in said
    files = [path for path in folder.glob(".madengine/runs/latest/**/*") if path.is_file()]
    assert not any(b"planted" in path.read_bytes() for path in files)
    assert statuses(folder / "perf.csv") == {"m": "SUCCESS"}


class TestArchives:
    """Images that no registry has."""

    def test_nodes_load_what_was_built_here(
        self, pytester: pytest.Pytester, run: Run, label: str, forgets: str
    ) -> None:
        dockerfile = pytester.path / "docker/m.Dockerfile"
        dockerfile.parent.mkdir()
        dockerfile.write_text(f"FROM {BASE_IMAGE}\nLABEL {LABEL}={label}\n", encoding="utf-8")
        run(prologue=forgets).assert_outcomes(passed=1)
        ran(pytester.path)
        assert "forgotten" in left(pytester.path, "slurm.log")
        (identity,) = set(held(label))
        assert archives(pytester.path) == [f"{identity.removeprefix('sha256:')}.tar"]

    @pytest.mark.parametrize("kind", ["cut off", "another"])
    def test_one_that_is_not_what_its_name_says_runs_nowhere(
        self, pytester: pytest.Pytester, run: Run, image: str, label: str, forgets: str, kind: str
    ) -> None:
        (identity,) = set(held(label))
        archive = pytester.path / f".madengine/images/{identity.removeprefix('sha256:')}.tar"
        archive.parent.mkdir(parents=True)
        if kind == "another":
            docker("save", f"--output={archive}", BASE_IMAGE)
        else:
            archive.write_bytes(b"not a tar file" * 1000)
        result = run(image, prologue=forgets)
        result.assert_outcomes(errors=1)
        words = (
            f"node*: {archive} holds another image than {identity}: remove it" if kind == "another" else "*docker load*"
        )
        result.stdout.fnmatch_lines([f"*{words}*"])
        assert statuses(pytester.path / "perf.csv") == {"m": "FAILURE"}


@pytest.mark.requires_registry
class TestRegistries:
    """Images that nodes pull."""

    def pushed(self, registry: Registry, image: str) -> str:
        name = f"{registry.address}/{image}"
        docker("tag", image, name)
        docker("push", "--quiet", name)
        return name

    def test_each_node_pulls_by_digest(
        self, pytester: pytest.Pytester, run: Run, registry: Registry, image: str, label: str
    ) -> None:
        name = self.pushed(registry, image)
        (identity,) = set(held(label))
        docker("rmi", "--force", identity)
        counts = f"docker images --quiet --filter=label={LABEL}={label} | wc -l >$dir/before"
        run(name, prologue=counts).assert_outcomes(passed=1)
        ran(pytester.path)
        assert left(pytester.path, "before").strip() == "0"
        assert archives(pytester.path) == []
        assert f"{registry.address}/slurm-image-{label}@sha256:" in left(pytester.path, "image.sh")

    def test_a_digest_that_the_registry_does_not_have(
        self, pytester: pytest.Pytester, run: Run, registry: Registry, image: str
    ) -> None:
        name = self.pushed(registry, image).rpartition(":")[0]
        result = run(f"{name}@sha256:{'0' * 64}")
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(["*node*: docker pull failed:*"])
        assert statuses(pytester.path / "perf.csv") == {"m": "FAILURE"}

    def test_without_an_engine_here(self, pytester: pytest.Pytester, run: Run, registry: Registry, image: str) -> None:
        run(self.pushed(registry, image), engine=NOWHERE).assert_outcomes(passed=1)
        ran(pytester.path)

    @pytest.mark.parametrize("known", [True, False])
    def test_nodes_log_in_as_credential_json_says_and_models_see_nothing_of_it(
        self, pytester: pytest.Pytester, run: Run, private_registry: Registry, label: str, image: str, *, known: bool
    ) -> None:
        login = private_registry.login
        assert login
        config = pytester.mkdir("config")
        docker("--config", str(config), "login", "-u", login.username, "-p", login.password, private_registry.address)
        name = f"{private_registry.address}/{image}"
        docker("tag", image, name)
        docker("--config", str(config), "push", "--quiet", name)
        docker("rmi", "--force", *set(held(label)))
        shutil.rmtree(config)
        if known:
            entry = json.dumps({private_registry.address: login.entry()})
            (pytester.path / "credential.json").write_text(entry, encoding="utf-8")
        with Spy(login.password) as spy:
            result = run(name, script=f"env | grep -c {login.password}\n{PASSES}", engine=NOWHERE)
        result.assert_outcomes(passed=int(known), errors=int(not known))
        assert spy.seen == []
        assert statuses(pytester.path / "perf.csv") == {"m": "SUCCESS" if known else "FAILURE"}
        if known:
            assert "\n0\n" in left(pytester.path, "ranks/1/run.log")
        files = [path for path in pytester.path.glob(".madengine/**/*") if path.is_file()]
        assert not any(login.password.encode() in path.read_bytes() for path in files)

    def test_nodes_that_got_different_images_run_nothing(
        self, pytester: pytest.Pytester, run: Run, registry: Registry, image: str
    ) -> None:
        name = self.pushed(registry, image)
        other = pytester.path / "bin/docker"
        other.parent.mkdir()
        said = f'if [ "$1 $2" = "image inspect" ] && [ "$SLURM_PROCID" = 1 ]; then echo sha256:{"1" * 64}; exit; fi'
        other.write_text(f'#!/bin/bash\n{said}\nPATH=${{PATH#*:}} exec docker "$@"\n', encoding="utf-8")
        other.chmod(0o755)
        result = run(name, engine=NOWHERE, prologue=f"export PATH={shlex.quote(str(other.parent))}:$PATH")
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines([f"*the nodes have different images: node* has *, node* has {'1' * 64}*"])
        assert statuses(pytester.path / "perf.csv") == {"m": "FAILURE"}


@pytest.mark.requires_podman
def test_podman_loads_an_archive(
    pytester: pytest.Pytester, run: Run, image: str, label: str, podman_storage: str
) -> None:
    run(image, container_runtime="podman", prologue=podman_storage).assert_outcomes(passed=1)
    ran(pytester.path)
    (identity,) = set(held(label))
    removed = ["bash", "-c", f'{podman_storage}; podman rmi "$0"', identity.removeprefix("sha256:")]
    assert subprocess.run(removed, check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize("runtime", ["apptainer", "enroot"])
def test_what_others_are_asked_runs_the_model(
    pytester: pytest.Pytester, run: Run, image: str, label: str, tmp_path: Path, runtime: str
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / runtime).symlink_to(STANDINS)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_text("found\n", encoding="utf-8")
    script = f'cat /data/file; [ -z "${{SLURM_JOB_ID:-}}" ] || exit\n{SHOWS}{PASSES}'
    options = f"--shm-size 1g --ipc=host -v {tmp_path}/data:/data:ro"
    prologue = f"export PATH={shlex.quote(str(tmp_path / 'bin'))}:$PATH"
    run(image, script, options, container_runtime=runtime, prologue=prologue).assert_outcomes(passed=1)
    ran(pytester.path)
    assert "\nfound\n" in left(pytester.path, "ranks/1/run.log")
    (identity,) = set(held(label))
    kinds = {"apptainer": "sif", "enroot": "sqsh"}
    bare = identity.removeprefix("sha256:")
    assert archives(pytester.path) == sorted([f"{bare}.tar", f"{bare}.{kinds[runtime]}"])
