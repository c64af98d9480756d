"""Writes images to files that other machines read, for images that no registry has."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pytest_madengine import command
from pytest_madengine.engine.board import Phase, Progress
from pytest_madengine.errors import InfrastructureError
from pytest_madengine.images import engine
from pytest_madengine.images.build import Builder, Doing, locked
from pytest_madengine.images.image import Image


def shipped(image: Image, folder: Path, builder: Builder, doing: Doing) -> Image:
    """The image with its archive in `folder`, which is written unless it is there.

    What is there is whole: it gets its name, the image's id, when all of it is written.

    Args:
        image: one that this machine's engine has.
        folder: where the other machines see it too.
        builder: says when the session ends.
        doing: told when the archive is begun.

    Raises:
        InfrastructureError: the engine or the folder refuses, or the session ends.
    """
    name = image.digest.removeprefix("sha256:")
    archive = folder / f"{name}.tar"
    with locked(f"archive-{name[:16]}", builder.stopping):
        if not archive.exists():
            doing(Progress(Phase.PUSHING, str(archive)))
            _write(image.digest, archive)
    return replace(image, archive=str(archive))


def _write(image: str, archive: Path) -> None:
    new = archive.with_name(f".{archive.name}.{os.uname().nodename}-{os.getpid()}")
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        asked = ["docker", "save", "--output", str(new), image]
        command.run(asked, seconds=engine.LONG, endable=True).require(f"docker save of {image} to {archive}")
        new.replace(archive)
    except OSError as error:
        raise InfrastructureError(f"{archive} cannot be written: {error.strerror}") from None
    finally:
        with suppress(OSError):
            new.unlink()
