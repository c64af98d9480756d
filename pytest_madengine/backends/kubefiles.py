"""The scripts and the project's files as the ConfigMaps of a job, as plain data."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pytest_madengine.errors import Fault, FaultsError
from pytest_madengine.jobs.job import Job

POD_SCRIPT, JOB_SCRIPT = "pod.sh", "run.sh"
ROOM = 900 * 1024
"""Bytes of one ConfigMap: of the 1 MiB that a cluster takes, some is for names."""
PART = ROOM // 2
"""Bytes of a file from which on it comes in parts of that size."""
MOST_BYTES, MOST_FILES = 8 * 1024 * 1024, 1000
"""What the files of a job may come to; clusters keep all of them in one small database."""
ELSEWHERE = "put them into the image, a git repository (the card's 'url') or k8s.data_pvc"


@dataclass(frozen=True)
class File:
    """A file of the project that the job needs.

    Attributes:
        path: from the project's root, with slashes.
        data: its content.
        mode: its permission bits.
    """

    path: str
    data: bytes
    mode: int = 0o644


@dataclass(frozen=True)
class Piece:
    """A file, or a part of a large one, within a ConfigMap: its key there, and where it appears in the pod."""

    key: str
    path: str
    data: bytes
    mode: int

    @property
    def size(self) -> int:
        """What it takes of a ConfigMap, in bytes."""
        return len(self.data) + len(self.key)


def require_fit(name: str, sizes: Mapping[str, int]) -> None:
    """Meet files that pods cannot have.

    Args:
        name: the model's.
        sizes: in bytes, by path.

    Raises:
        FaultsError: they are too many, too large, or a path is none that a pod can have.
    """
    where, size = f"{name}.scripts", sum(sizes.values())
    found = [Fault(where, f"no pod can have the path {path!r}", "UTF-8 without '..'") for path in sizes if _odd(path)]
    if len(sizes) > MOST_FILES:
        found.append(Fault(where, f"{len(sizes)} files", f"at most {MOST_FILES}: {ELSEWHERE}"))
    if size > MOST_BYTES:
        largest = max(sizes, key=lambda path: sizes[path])
        words = f"{size / 2**20:.1f} MiB of files, {largest!r} the largest"
        found.append(Fault(where, words, f"at most {MOST_BYTES >> 20} MiB: {ELSEWHERE}"))
    if found:
        raise FaultsError(found)


def _odd(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return True
    return not path or path.startswith("/") or "\0" in path or ".." in path.split("/")


def pieces(job: Job, script: str, files: Sequence[File]) -> list[Piece]:
    """The scripts and the project's files; a file that no ConfigMap holds is in parts, which the pod puts together.

    Raises:
        FaultsError: they are too many, too large, or a path is none that a pod can have.
    """
    require_fit(job.name, {file.path: len(file.data) for file in files})
    found = [
        Piece(POD_SCRIPT, POD_SCRIPT, _bytes(script), 0o555),
        Piece(JOB_SCRIPT, JOB_SCRIPT, _bytes(job.script), 0o555),
    ]
    for number, file in enumerate(files):
        found += _parts(number, file) if _is_large(file) else [_whole(number, file)]
    return found


def _whole(number: int, file: File) -> Piece:
    """A file of its own, which any user of the container may read."""
    return Piece(f"file-{number}", f"project/{file.path}", file.data, file.mode & 0o777 | 0o444)


def _parts(number: int, file: File) -> list[Piece]:
    cut = [file.data[at : at + PART] for at in range(0, len(file.data), PART)]
    return [Piece(f"part-{number}-{at}", f"parts/{number}/{at:03}", part, 0o444) for at, part in enumerate(cut)]


def _is_large(file: File) -> bool:
    return len(file.data) > PART


def large(files: Sequence[File]) -> Iterator[tuple[int, File]]:
    """The files that come in parts, with the number of the folder that has these."""
    return ((number, file) for number, file in enumerate(files) if _is_large(file))


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def maps(found: Sequence[Piece]) -> list[list[Piece]]:
    """The pieces of each ConfigMap, in their order."""
    filled: list[list[Piece]] = [[]]
    room = ROOM
    for piece in found:
        if piece.size > room and filled[-1]:
            filled.append([])
            room = ROOM
        filled[-1].append(piece)
        room -= piece.size
    return filled


def content(found: Sequence[Piece]) -> dict[str, dict[str, str]]:
    """What a ConfigMap says of its pieces."""
    texts = {piece.key: text for piece in found if (text := _as_text(piece.data)) is not None}
    binary = {piece.key: b64encode(piece.data).decode() for piece in found if piece.key not in texts}
    return {**({"data": texts} if texts else {}), **({"binaryData": binary} if binary else {})}


def _as_text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
