"""Brings what pods leave into the folders of their jobs."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from pytest_madengine.backends import facts
from pytest_madengine.backends.kubeapi import Api
from pytest_madengine.backends.kubeleft import STATUS
from pytest_madengine.backends.kubepod import CONTAINER
from pytest_madengine.backends.kubescript import ARCHIVE, FETCHED, KEPT
from pytest_madengine.errors import InfrastructureError

PIECE = 4 << 20
"""Bytes of results that are asked for at once."""
MOST = 4 << 30
"""Bytes of results that are fetched of a pod."""
POD, NEW = "pod", ".fetching"
"""In the folder of a rank: whose results these are; what comes."""
EARLIER = "earlier"
"""The folder of a job for what failed tries left."""
ABSENT = 44
SERVE = f"""[ -e {ARCHIVE} ] || exit {ABSENT}
wc -c <{ARCHIVE}
while read -r from count; do
  if [ "$from" = kept ]; then : >{FETCHED}; exit 0; fi
  tail -c "+$from" {ARCHIVE} | head -c "$count"
done
exit 1
"""
"""The shell text that, in a pod, hands over the results piece by piece, and lets the pod end once they are kept."""
RELEASE = f": >{FETCHED}"
"""The one that only lets it end."""


def kept(folder: Path, pod: str) -> bool:
    """Whether all that a pod left is in a folder."""
    return facts.word(folder / POD) == pod and (folder / STATUS).exists()


def make_room(folder: Path, pod: str, home: Path) -> None:
    """Put aside what an earlier try left in the folder of a rank.

    Args:
        folder: of the rank.
        pod: whose results it is for from now on.
        home: the folder of the job.
    """
    before = facts.word(folder / POD)
    if before == pod:
        return
    if before:
        place = home / EARLIER / before
        place.mkdir(parents=True, exist_ok=True)
        for name in (*KEPT, facts.EXIT_CODE, POD):
            with suppress(FileNotFoundError):
                (folder / name).rename(place / name)
    (folder / facts.LOG).touch(mode=0o600)
    (folder / POD).write_text(f"{pod}\n", encoding="utf-8")


def give_back(folder: Path, pod: str, home: Path) -> None:
    """Let the log of a pod that was taken away stand for its rank again; that of the pod in its place is put aside.

    Args:
        folder: of the rank.
        pod: whose log it is.
        home: the folder of the job.
    """
    before, now = home / EARLIER / pod / facts.LOG, folder / facts.LOG
    if not before.is_file():
        return
    if now.is_file():
        place = home / EARLIER / facts.word(folder / POD)
        place.mkdir(parents=True, exist_ok=True)
        now.rename(place / facts.LOG)
    before.rename(now)


def deliver(api: Api, namespace: str, pod: str, folder: Path) -> bool:
    """Have a pod's results in the folder of its rank, and let it end; whether they were there.

    Whoever fetched them may have died before the pod was told.

    Raises:
        InfrastructureError: the pod cannot be reached.
    """
    if not kept(folder, pod):
        return _fetched(api, namespace, pod, folder)
    api.run(namespace, pod, CONTAINER, ["bash", "-c", RELEASE], lambda _: b"")
    return True


def _fetched(api: Api, namespace: str, pod: str, folder: Path) -> bool:
    with TemporaryFile(dir=folder) as archive:
        reader = Reader(archive, lambda: store(archive, folder))
        code = api.run(namespace, pod, CONTAINER, ["bash", "-c", SERVE], reader)
        if not reader.stored and code != ABSENT:
            raise InfrastructureError(f"the results of {pod} could not be read")
        return reader.stored


class Reader:
    """Asks for an archive piece by piece.

    Args:
        archive: is written to.
        store: is called when all is there.
    """

    def __init__(self, archive: IO[bytes], store: Callable[[], None]) -> None:
        self.stored = False
        self._archive = archive
        self._store = store
        self._size: int | None = None
        self._have = 0

    def __call__(self, output: bytes) -> bytes:
        """What to say to the command that wrote this."""
        if self._size is None:
            self._size = int(output)
            if self._size > MOST:
                raise InfrastructureError(f"its results are {self._size} bytes, more than {MOST}")
            return self._request()
        self._archive.write(output)
        self._have += len(output)
        if self._have >= self._size:
            self._store()
            self.stored = True
            return b"kept\n"
        return b"" if self._have % PIECE else self._request()

    def _request(self) -> bytes:
        return b"%d %d\n" % (self._have + 1, PIECE)


def store(archive: IO[bytes], folder: Path) -> None:
    """Unpack results into the folder of a rank, the exit code last."""
    archive.seek(0)
    with fresh(folder / NEW) as place:
        with tarfile.open(fileobj=archive, mode="r:") as packed:
            for member in packed:
                _unpack(packed, member, place)
        adopt(place, folder)


@contextmanager
def fresh(place: Path) -> Iterator[Path]:
    """An empty folder for a while."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _unpack(packed: tarfile.TarFile, member: tarfile.TarInfo, place: Path) -> None:
    """Write one file, if it is one that is kept; what else may be in an archive is left there."""
    parts = Path(member.name).parts
    source = packed.extractfile(member) if member.isfile() and wanted(parts) else None
    if source is None:
        return
    target = place.joinpath(*parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    with source, target.open("wb") as file:
        shutil.copyfileobj(source, file)


def wanted(parts: tuple[str, ...]) -> bool:
    """Whether a file of these folders and this name is one that a pod's script keeps."""
    return bool(parts) and parts[0] in (*KEPT, facts.EXIT_CODE) and ".." not in parts


def adopt(place: Path, folder: Path) -> None:
    """Move results to where they belong, the exit code last."""
    (place / facts.ARTIFACTS).mkdir(exist_ok=True)
    for path in sorted(place.iterdir(), key=lambda path: path.name == STATUS):
        target = folder / path.name
        if target.is_dir():
            shutil.rmtree(target)
        path.replace(target)
    (folder / facts.LOG).chmod(0o600)  # until it is masked at the end
