"""What all tests share: the engines, made once for a session."""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from pytest_madengine.images import engine

if TYPE_CHECKING:
    from tests.backends.support import Bench, MortalEngine, Place, Submitter
    from tests.engines.browsers import Browser
    from tests.engines.cluster import Cluster
    from tests.engines.kube import KubeCluster
    from tests.engines.mongo import Database
    from tests.engines.registries import Images, Registry

for _name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
    os.environ.pop(_name, None)  # what tests run is not to be annotated where they run

ENGINES = Path(__file__).parent / "engines"
CANNOT = 3
"""The exit code by which an engine's script says that this machine cannot have it."""
NEEDS = {
    "requires_browser": "browser_program",
    "requires_registry": "registry_program",
    "requires_docker": "docker_engine",
    "requires_slurm": "slurm_cluster",
    "requires_kubernetes": "kube_cluster",
    "requires_podman": "podman_storage",
    "requires_mongo": "mongo_program",
}
"""The fixture that makes what a marker asks for."""
DEAD_SOCKETS = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
"""docker-py leaves the sockets open that nobody answers."""

pytest.register_assert_rewrite("tests.backends.contract", "tests.backends.support")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the engine to each test that is marked to need it, before its other fixtures."""
    for item in (item for item in items if isinstance(item, pytest.Function)):
        if any(item.get_closest_marker(each) for each in ("requires_registry", "requires_kubernetes")):
            item.add_marker("requires_docker")
        for marker, fixture in NEEDS.items():
            if item.get_closest_marker(marker):
                item.fixturenames = [fixture, *item.fixturenames]
        if "mortal_engine" in item.fixturenames:
            item.add_marker(DEAD_SOCKETS)


@pytest.fixture(scope="session")
def docker_engine(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Docker engine; gives the name of the image that tests build from."""
    _engine("docker", tmp_path_factory)
    return "madengine-test-base:latest"


@pytest.fixture(scope="session")
def podman_storage(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Podman; gives the shell text by which it finds the storage that is the tests' own."""
    _engine("podman", tmp_path_factory)
    return subprocess.run([ENGINES / "podman.sh", "env"], capture_output=True, check=True, text=True).stdout.strip()


@pytest.fixture(scope="session")
def browser_program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a browser that needs no screen."""
    _engine("browser", tmp_path_factory)
    found = subprocess.run([ENGINES / "browser.sh", "path"], capture_output=True, check=True, text=True)
    return found.stdout.strip()


@pytest.fixture(scope="module")
def browser(browser_program: str) -> Iterator[Browser]:
    """A browser without network; it is another one for each module, as its driver keeps an event loop running."""
    from tests.engines.browsers import Browser

    with Browser(browser_program) as browser:
        yield browser


@pytest.fixture(scope="session")
def registry_program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a program that is an image registry."""
    _engine("registry", tmp_path_factory)
    found = subprocess.run([ENGINES / "registry.sh", "path"], capture_output=True, check=True, text=True)
    return found.stdout.strip()


@pytest.fixture(scope="session")
def registry(registry_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """An image registry that lets everybody in."""
    from tests.engines.registries import Registry

    with Registry(registry_program, tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture(scope="session")
def mongo_program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a program that is a server of MongoDB's protocol."""
    _engine("mongo", tmp_path_factory)
    found = subprocess.run([ENGINES / "mongo.sh", "env"], capture_output=True, check=True, text=True)
    return shlex.split(found.stdout)[-1].partition("=")[2]


@pytest.fixture(scope="session")
def mongo_uri(mongo_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that all tests share: the one of MONGO_TEST_URI, else one that lets everybody in."""
    from tests.engines.mongo import MongoServer

    if given := os.environ.get("MONGO_TEST_URI"):
        yield given
        return
    with MongoServer(mongo_program, tmp_path_factory.mktemp("mongo")) as server:
        yield f"mongodb://127.0.0.1:{server.port}/?directConnection=true"


@pytest.fixture
def mongo(mongo_uri: str) -> Iterator[Database]:
    """An empty database of that server."""
    from tests.engines.mongo import Database

    with contextlib.closing(Database(mongo_uri)) as database:
        yield database


@pytest.fixture(scope="session")
def private_registry(registry_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """An image registry that wants a username and a password; it says which."""
    from tests.engines.registries import LOGIN, Registry

    with Registry(registry_program, tmp_path_factory.mktemp("private-registry"), LOGIN) as registry:
        yield registry


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Images]:
    """Makes small images, which are removed when the test is over."""
    from tests.engines.registries import Images

    images = Images(tmp_path)
    yield images
    images.remove()


@pytest.fixture
def slurm_cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cluster]:
    """A SLURM cluster, whose commands this test's processes find.

    All tests share it, so it is left as it was found. `requires_slurm(accounting=True)` gives the cluster that keeps
    accounts; `requires_slurm(alone=True)` lets no other test use it meanwhile, so that parts of it may be broken.
    """
    from tests.engines.cluster import Cluster

    marker = request.node.get_closest_marker("requires_slurm")
    wish = marker.kwargs if marker else {}
    accounting = wish.get("accounting", False)
    _engine("slurm", tmp_path_factory, DBD=str(int(accounting)))
    cluster = Cluster.of_this_machine(accounting=accounting)
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_", "SQUEUE_", "SACCT_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
    with cluster.alone() if wish.get("alone") else cluster.shared():
        yield cluster


@pytest.fixture
def kube_cluster(
    request: pytest.FixtureRequest,
    docker_engine: str,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[KubeCluster]:
    """A Kubernetes cluster, with a namespace of the test's own that KUBECONFIG names.

    All tests share the cluster, so it is left as it was found. `requires_kubernetes(alone=True)` lets no other test use
    it meanwhile, so that parts of it may be broken; `fake_nodes=40` runs the test's pods on so many pretended nodes.
    """
    from tests.engines.kube import KubeCluster

    marker = request.node.get_closest_marker("requires_kubernetes")
    wish = marker.kwargs if marker else {}
    _engine("kubernetes", tmp_path_factory)
    cluster = KubeCluster.of_this_machine(tmp_path_factory.mktemp("kube"), docker_engine)
    monkeypatch.setenv("KUBECONFIG", str(cluster.config))
    held = cluster.alone() if wish.get("alone") else cluster.shared()
    with contextlib.closing(cluster.api), held, cluster.with_fake_nodes(wish.get("fake_nodes", 0)):
        yield cluster


def _engine(name: str, tmp_path_factory: pytest.TempPathFactory, **variables: str) -> None:
    """Make an engine once for all xdist workers of this session; skip or fail the test where there is none."""
    place = tmp_path_factory.getbasetemp()
    kind = "-".join([name, *(f"{key}{value}" for key, value in variables.items())])
    record = (place.parent if "PYTEST_XDIST_WORKER" in os.environ else place) / f"engine-{kind}.json"
    with FileLock(f"{record}.lock"):
        if not record.exists():
            argv, env = (ENGINES / f"{name}.sh", "ensure"), {**os.environ, **variables}
            done = subprocess.run(argv, capture_output=True, check=False, text=True, env=env)
            record.write_text(json.dumps([done.returncode, f"{done.stdout}{done.stderr}".strip()]), encoding="utf-8")
    code, text = json.loads(record.read_text(encoding="utf-8"))
    said = " ".join(text.split())
    if code == CANNOT and os.environ.get("MADENGINE_REQUIRE_ENGINES") != "1":
        pytest.skip(said)
    if code:
        pytest.fail(f"tests/engines/{name}.sh ensure (exit {code}): {said}", pytrace=False)


@pytest.fixture
def mortal_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MortalEngine]:
    """The engine, which a test may kill and start again; the client that other tests share is left alone."""
    from tests.backends.support import SOCKET, MortalEngine

    if not SOCKET.is_socket():
        pytest.skip("needs an engine behind a unix socket")
    mortal = MortalEngine(tmp_path / "engine.sock")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{mortal.socket}")
    client = functools.cache(engine.client.__wrapped__)
    monkeypatch.setattr(engine, "client", client)
    yield mortal
    if client.cache_info().currsize:
        client().close()
    mortal.kill()
    gc.collect()


@pytest.fixture
def bench(place: Place, tmp_path: Path) -> Iterator[Bench]:
    """The backend of the test's `place`, with a project to run; what still runs is ended."""
    from tests.backends.support import Bench

    bench = Bench(place, tmp_path)
    yield bench
    bench.close()


@pytest.fixture
def submitter(bench: Bench) -> Iterator[Submitter]:
    """Another process at that bench."""
    from tests.backends.support import Submitter

    submitter = Submitter(bench)
    yield submitter
    submitter.close()
