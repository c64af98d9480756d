"""Claims: the one for data that all runs share, and those that results are read from."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from pytest_madengine.backends import kuberesults
from pytest_madengine.backends.kubeapi import Api
from pytest_madengine.backends.kubenames import RUN_LABEL
from pytest_madengine.backends.kubenote import Asked
from pytest_madengine.backends.kubepod import CONTAINER, Manifest
from pytest_madengine.errors import InfrastructureError

STARTING = 120.0
"""Seconds in which the pod starts that reads a claim."""
POLL = 0.2
LIST = r"""
shopt -s globstar dotglob nullglob
cd "$1" || exit 44
files=()
for file in **; do
  if [ ! -L "$file" ] && [ -f "$file" ]; then files+=("$file") && printf '%s %s\0' "$(wc -c <"$file")" "$file"; fi
done
printf '\0'
while read -r number from count; do
  [ "$number" != kept ] || exit 0
  tail -c "+$from" "${files[number]}" | head -c "$count"
done
exit 1
"""
"""The shell text that lists the files of a folder and hands them over piece by piece; it needs no tar."""


def provide(cluster: Api, manifest: Manifest, *, anew: bool) -> None:
    """Have the claim for data there.

    Args:
        cluster: where.
        manifest: the claim, with the run that wants it among its annotations.
        anew: whether one that another run made is removed first, with all that is on it.

    Raises:
        InfrastructureError: the cluster refuses.
    """
    metadata = manifest["metadata"]
    where = ("PersistentVolumeClaim", metadata["namespace"], metadata["name"])
    found = cluster.get(*where)
    if (
        found
        and anew
        and (found["metadata"].get("annotations") or {}).get(RUN_LABEL) != metadata["annotations"][RUN_LABEL]
    ):
        cluster.delete(*where)
        _until_gone(cluster, where)
        found = None
    if found is None:
        cluster.create(manifest)


def _until_gone(cluster: Api, where: tuple[str, str, str]) -> None:
    deadline = time.monotonic() + STARTING
    while cluster.get(*where):
        if time.monotonic() > deadline:
            raise InfrastructureError(f"the claim {where[2]} is still in use, so it cannot be made anew")
        time.sleep(POLL)


def fetch(cluster: Api, asked: Asked, wanted: Mapping[str, Path]) -> None:
    """Bring results from a claim.

    Args:
        cluster: where.
        asked: what the job asked for.
        wanted: the folder of each pod's rank, by the pods' names; where several ranks have none, `ranks/N`.

    Raises:
        InfrastructureError: the claim cannot be read.
    """
    if asked.collector is None:
        return
    name = asked.collector["metadata"]["name"]
    cluster.create(asked.collector)
    try:
        _until_running(cluster, asked.namespace, name)
        for pod, folder in wanted.items():
            rank = folder.name if asked.nodes > 1 else "0"
            _fetch_one(cluster, asked.namespace, name, f"{asked.results}/{rank}/{pod}", folder)
    finally:
        cluster.delete("Pod", asked.namespace, name, grace=1)


def _until_running(cluster: Api, namespace: str, name: str) -> None:
    deadline = time.monotonic() + STARTING
    while (found := cluster.get("Pod", namespace, name)) and found["status"].get("phase") != "Running":
        if time.monotonic() > deadline:
            raise InfrastructureError(f"the pod {name}, which reads results, does not start")
        time.sleep(POLL)


def _fetch_one(cluster: Api, namespace: str, name: str, place: str, folder: Path) -> None:
    with kuberesults.fresh(folder / kuberesults.NEW) as new:
        reader = _Reader(new)
        code = cluster.run(namespace, name, CONTAINER, ["bash", "-c", LIST, "bash", place], reader)
        if not reader.done:
            raise InfrastructureError(f"{place} could not be read from the claim (exit code {code})")
        kuberesults.adopt(new, folder)


class _Reader:
    """Asks for one file after the other.

    Args:
        place: is written to.
    """

    def __init__(self, place: Path) -> None:
        self.done = False
        self._place = place
        self._listing: bytes | None = b""
        self._files: list[tuple[int, str]] = []
        self._number, self._have = 0, 0

    def __call__(self, output: bytes) -> bytes:
        """What to say to the command that wrote this."""
        if self._listing is None:
            return self._take(output)
        self._listing += output
        if not (self._listing == b"\0" or self._listing.endswith(b"\0\0")):
            return b""
        entries = self._listing.decode(errors="surrogateescape").split("\0")
        self._files = [(int(size), path) for size, _, path in (each.partition(" ") for each in entries if each)]
        self._listing = None
        return self._request()

    def _take(self, output: bytes) -> bytes:
        size, path = self._files[self._number]
        if target := self._target(path):
            with target.open("ab") as file:
                file.write(output)
        self._have += len(output)
        if self._have < size and self._have % kuberesults.PIECE:
            return b""
        if self._have >= size:
            self._number, self._have = self._number + 1, 0
        return self._request()

    def _request(self) -> bytes:
        while self._number < len(self._files) and not self._files[self._number][0]:
            if target := self._target(self._files[self._number][1]):
                target.touch()
            self._number += 1
        if self._number == len(self._files):
            self.done = True
            return b"kept\n"
        return b"%d %d %d\n" % (self._number, self._have + 1, kuberesults.PIECE)

    def _target(self, path: str) -> Path | None:
        """Where a file goes, if it is one that is kept."""
        if not kuberesults.wanted(Path(path).parts):
            return None
        target = self._place / path
        target.parent.mkdir(parents=True, exist_ok=True)
        return target
