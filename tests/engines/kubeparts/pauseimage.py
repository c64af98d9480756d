"""pauseimage.py PROGRAM FILE: an image archive, as `docker save` makes them, that holds one static program."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path

NAME = "docker.io/tests/pause:1"


def archive(files: dict[str, bytes], mode: int = 0o644) -> bytes:
    """A tar file of these."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), mode
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def main() -> None:
    layer = archive({"pause": Path(sys.argv[1]).read_bytes()}, 0o755)
    layers = {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]}
    content = {"architecture": "amd64", "os": "linux", "config": {"Entrypoint": ["/pause"]}, "rootfs": layers}
    config = json.dumps(content).encode()
    manifest = [{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]
    files = {"config.json": config, "layer.tar": layer, "manifest.json": json.dumps(manifest).encode()}
    Path(sys.argv[2]).write_bytes(archive(files))


if __name__ == "__main__":
    main()
