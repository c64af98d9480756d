"""Images built side by side, one by one, and not at all.

Eight Dockerfiles each wait a few seconds in one step. Printed: wall time of a session that builds them side by side, of
one that builds them one by one, of one that finds all of them there, and of `docker buildx build` by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BASE = "madengine-test-base:latest"
"""What tests/engines/docker.sh makes; --base names another."""


def project(folder: Path, count: int, seconds: float, base: str) -> None:
    """A project of models with a Dockerfile each, which no cache knows."""
    name = f"bench-{secrets.token_hex(5)}"
    (folder / "docker").mkdir()
    for number in range(count):
        step = f"RUN sleep {seconds} && echo {name}-{number} > /mark"
        (folder / f"docker/{name}-{number}.Dockerfile").write_text(f"FROM {base}\n{step}\n", encoding="utf-8")
    cards = [{"name": f"m{n}", "dockerfile": f"docker/{name}-{n}", "scripts": "run.sh"} for n in range(count)]
    (folder / "models.json").write_text(json.dumps(cards, indent=1), encoding="utf-8")


def build(folder: Path, *options: str) -> float:
    """Seconds that a whole session takes which makes the images."""
    command = [sys.executable, "-m", "pytest", "-q", "--madengine-build-only", *options]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "pytest_madengine.plugin"}
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def bare(folder: Path) -> float:
    """Seconds that docker takes for the same, one build after another, without any cache."""
    started = time.perf_counter()
    for path in sorted(folder.glob("docker/*.Dockerfile")):
        command = ["docker", "buildx", "build", "--quiet", "--no-cache", "--file", str(path), str(folder / "docker")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def forget(folder: Path) -> None:
    """Remove the images that the manifest names."""
    manifest = json.loads((folder / "build_manifest.json").read_text(encoding="utf-8"))
    names = [image["docker_image"] for image in manifest["built_images"].values()]
    subprocess.run(["docker", "rmi", "--force", *names], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--base", default=BASE)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        project(folder, given.count, given.seconds, given.base)
        alone = bare(folder)
        one_by_one = build(folder, "--madengine-build-jobs=1", "--madengine-no-cache")
        together = build(folder, f"--madengine-build-jobs={given.count}", "--madengine-no-cache")
        unchanged = build(folder)
        forget(folder)
    print(f"{given.count} images of {given.seconds:g} s, each a session of its own")
    print(f"docker by itself, one by one: {alone:.1f} s")
    print(f"one by one: {one_by_one:.1f} s, {one_by_one / alone:.2f} times that")
    print(f"side by side: {together:.1f} s, {one_by_one / together:.1f} times as fast")
    print(f"nothing to do: {unchanged:.2f} s")


if __name__ == "__main__":
    main()
