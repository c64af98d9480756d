#!/usr/bin/env python3
"""Stands in for apptainer and enroot, which Debian 12 does not have: called by their names, with options that we use.

It refuses what the real ones would not understand, keeps of an image only its id, and lets docker run the container.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import subprocess
import sys
from pathlib import Path


def convert(source: str, file: str) -> None:
    """Note in `file` which image the source is."""
    if Path(file).exists():
        sys.exit(f"FATAL: {file} exists")
    scheme, _, rest = source.partition(":")
    if scheme == "docker-archive":
        said = subprocess.run(["docker", "load", "--input", rest], check=True, capture_output=True, text=True).stdout
        found = re.search(r"[0-9a-f]{64}", said)
    else:
        place, hash_sign, path = rest.removeprefix("//").partition("#")
        name = re.sub(r":(sha256:)", r"@\1", f"{place}/{path}" if hash_sign else place)
        if scheme == "docker":
            subprocess.run(["docker", "pull", "--quiet", name], check=True, stdout=subprocess.DEVNULL)
        said = subprocess.run(
            ["docker", "image", "inspect", "--format={{.Id}}", name], check=True, capture_output=True, text=True
        ).stdout
        found = re.search(r"[0-9a-f]{64}", said)
    Path(file).write_text(found[0] if found else "", encoding="utf-8")


def start(image: str, mounts: list[str], command: list[str], home: str = "/root") -> None:
    """Become the container, in whose environment nothing is of ours."""
    options = ["--rm", "--interactive", "--network=host", f"--env=HOME={home}", *(f"--mount={each}" for each in mounts)]
    for name in list(os.environ):
        if name not in ("PATH", "HOME", "DOCKER_HOST"):
            del os.environ[name]
    os.execvp("docker", ["docker", "run", *options, "--entrypoint=", image, *command])  # noqa: S606  # a shell would be in the way


def apptainer() -> None:
    parser = argparse.ArgumentParser("apptainer", allow_abbrev=False)
    kinds = parser.add_subparsers(dest="kind", required=True)
    build = kinds.add_parser("build", allow_abbrev=False)
    build.add_argument("--disable-cache", action="store_true")
    build.add_argument("file")
    build.add_argument("source")
    run = kinds.add_parser("exec", allow_abbrev=False)
    for switch in ("--cleanenv", "--writable-tmpfs"):
        run.add_argument(switch, action="store_true", required=True)
    for switch in ("--rocm", "--nv"):
        run.add_argument(switch, action="store_true")
    run.add_argument("--home", required=True)
    run.add_argument("--pwd", required=True)
    run.add_argument("--mount", action="append", default=[])
    run.add_argument("image")
    run.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    if given.kind == "build":
        convert(given.source, given.file)
        return
    source, _, home = given.home.partition(":")
    mounts = [f"type=bind,source={source},target={home}"]
    for line in given.mount:
        pairs = dict(pair.partition("=")[::2] for pair in next(csv.reader([line])))
        read_only = ",readonly" if "ro" in pairs else ""
        mounts.append(f"type=bind,source={pairs['source']},target={pairs['destination']}{read_only}")
    start(Path(given.image).read_text(encoding="utf-8"), mounts, given.command, home)


def enroot() -> None:
    parser = argparse.ArgumentParser("enroot", allow_abbrev=False)
    kinds = parser.add_subparsers(dest="kind", required=True)
    take = kinds.add_parser("import", allow_abbrev=False)
    take.add_argument("--output", required=True)
    take.add_argument("source")
    create = kinds.add_parser("create", allow_abbrev=False)
    create.add_argument("--name", required=True)
    create.add_argument("file")
    run = kinds.add_parser("start", allow_abbrev=False)
    for switch in ("--root", "--rw"):
        run.add_argument(switch, action="store_true", required=True)
    run.add_argument("--rc", required=True)
    run.add_argument("--mount", action="append", default=[])
    run.add_argument("name")
    run.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    containers = Path(os.environ["ENROOT_DATA_PATH"]) if given.kind != "import" else Path()
    if given.kind == "import":
        convert(given.source, given.output)
    elif given.kind == "create":
        (containers / given.name).write_bytes(Path(given.file).read_bytes())
    else:
        mounts = [line.split(":") for line in given.mount]
        made = [f"type=bind,source={m[0]},target={m[1]}" for m in mounts if m[2] == "none" and "rbind" in m[3]]
        rc = [f"type=bind,source={given.rc},target=/etc/rc"]
        start((containers / given.name).read_text(encoding="utf-8"), [*made, *rc], ["sh", "/etc/rc", *given.command])


if __name__ == "__main__":
    {"apptainer": apptainer, "enroot": enroot}[Path(sys.argv[0]).name]()
