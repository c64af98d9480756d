"""Archives of images on a file system that others share, from a real engine."""

from __future__ import annotations

import json
import subprocess
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pytest_madengine.context.context import Context
from pytest_madengine.engine.board import Phase, Progress
from pytest_madengine.errors import InfrastructureError
from pytest_madengine.images import engine, shipping
from pytest_madengine.images.build import Builder
from pytest_madengine.images.image import Image
from pytest_madengine.images.registry import Registries
from pytest_madengine.images.supply import Orders, Supply, Want
from pytest_madengine.models.model import Model, Source
from tests.engines.registries import Images, Registry

NOWHERE = "nowhere://engine"


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    return Builder(tmp_path / "records")


def nobody(_: Progress) -> None:
    """Nobody wants to be told."""


def known(name: str) -> Image:
    found = engine.inspect(name)
    assert found
    return Image(name, digest=found["Id"])


@pytest.mark.requires_docker
class TestArchive:
    """The file of an image."""

    def test_holds_that_image_and_is_named_after_it(self, images: Images, tmp_path: Path, builder: Builder) -> None:
        image, told = known(images.make()), list[Progress]()
        shipped = shipping.shipped(image, tmp_path / "new/images", builder, told.append)
        name = image.digest.removeprefix("sha256:")
        archive = tmp_path / f"new/images/{name}.tar"
        assert shipped.archive == str(archive)
        assert [path.name for path in archive.parent.iterdir()] == [archive.name]
        assert told == [Progress(Phase.PUSHING, str(archive))]
        with tarfile.open(archive) as tar:
            member = tar.extractfile("manifest.json")
            assert member
            assert name in json.load(member)[0]["Config"]

    def test_is_written_by_one_of_those_who_want_it(self, images: Images, tmp_path: Path, builder: Builder) -> None:
        image, told = known(images.make()), list[Progress]()
        with ThreadPoolExecutor(8) as pool:
            made = [pool.submit(shipping.shipped, image, tmp_path / "i", builder, told.append) for _ in range(8)]
        assert len({each.result().archive for each in made}) == 1
        assert len(told) == 1

    def test_that_is_there_needs_no_image(self, images: Images, tmp_path: Path, builder: Builder) -> None:
        image = known(images.make())
        first = shipping.shipped(image, tmp_path / "i", builder, nobody)
        images.remove()
        assert shipping.shipped(image, tmp_path / "i", builder, nobody) == first

    def test_that_cannot_be_made_leaves_nothing(self, tmp_path: Path, builder: Builder) -> None:
        image = Image("x", digest=f"sha256:{'0' * 64}")
        with pytest.raises(InfrastructureError, match=r"docker save of sha256:0+ to .* failed .*no such file"):
            shipping.shipped(image, tmp_path / "i", builder, nobody)
        assert list((tmp_path / "i").iterdir()) == []

    def test_in_a_folder_that_cannot_be(self, tmp_path: Path, builder: Builder) -> None:
        (tmp_path / "i").touch()
        with pytest.raises(InfrastructureError, match=r"i/0+\.tar cannot be written: File exists"):
            shipping.shipped(Image("x", digest=f"sha256:{'0' * 64}"), tmp_path / "i", builder, nobody)

    def test_is_not_begun_when_the_session_ends(self, tmp_path: Path) -> None:
        stopping = threading.Event()
        stopping.set()
        with pytest.raises(InfrastructureError, match="the session ends"):
            shipping.shipped(
                Image("x", digest="sha256:0"), tmp_path / "i", Builder(tmp_path, None, stopping=stopping), nobody
            )


class Login:
    """What a session on a login node gets for models that run on other nodes."""

    def __init__(self, folder: Path, **orders: Any) -> None:
        self.archives = folder / "archives"
        self.told: list[Progress] = []
        registries = Registries({}, threading.Event())
        given = Orders(on_nodes=True, ship_to=self.archives, **orders)
        self._supply = Supply(given, Context(), {}, {}, Builder(folder / "records", registries), registries)
        self._want = Want(Model(name="m"), Source(folder / "models.json", 1, folder))

    def image(self) -> Image:
        return self._supply.image(self._want, self.told.append)


class TestNamed:
    """Images that the user names."""

    @pytest.mark.requires_docker
    def test_one_of_this_machine_alone_is_shipped(self, images: Images, tmp_path: Path) -> None:
        name = images.make()
        image = Login(tmp_path, use_image=name).image()
        assert image == Image(name, digest=known(name).digest, archive=image.archive)
        assert Path(image.archive).parent == tmp_path / "archives"

    @pytest.mark.requires_registry
    @pytest.mark.parametrize("here", [True, False])
    def test_one_of_a_registry_is_pinned_and_not_pulled(
        self, images: Images, registry: Registry, tmp_path: Path, *, here: bool
    ) -> None:
        local = images.make()
        name = f"{registry.address}/named/{local}"
        digest = Registries({}, threading.Event()).push(local, name)
        if not here:
            subprocess.run(["docker", "rmi", "--force", local, name], check=True, capture_output=True)
        login = Login(tmp_path, use_image=name)
        image = login.image()
        assert (image.reference, image.registry_image) == (f"{name.rpartition(':')[0]}@{digest}", name)
        assert (image.registry_digest, image.archive, login.told) == (digest, "", [])
        assert (engine.inspect(name) is not None) is here

    @pytest.mark.requires_registry
    def test_one_that_differs_from_its_registrys_is_shipped(
        self, images: Images, registry: Registry, tmp_path: Path
    ) -> None:
        name = f"{registry.address}/named/two:1"
        Registries({}, threading.Event()).push(images.make(), name)
        subprocess.run(["docker", "tag", images.make(), name], check=True)
        image = Login(tmp_path, use_image=name).image()
        assert (image.reference, image.registry_image) == (name, "")
        assert image.archive.endswith(f"/{known(name).digest.removeprefix('sha256:')}.tar")

    def test_a_digest_needs_no_question(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DOCKER_HOST", NOWHERE)
        engine.client.cache_clear()
        name = f"ghcr.io/a/b@sha256:{'0' * 64}"
        image = Login(tmp_path, use_image=name).image()
        assert image == Image(name, registry_image=name, registry_digest=f"sha256:{'0' * 64}")

    def test_without_an_engine_the_nodes_have_to_find_out(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DOCKER_HOST", NOWHERE)
        engine.client.cache_clear()
        assert Login(tmp_path, use_image="a/b:1").image() == Image("a/b:1", registry_image="a/b:1")
