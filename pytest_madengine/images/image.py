"""The image that a model runs in."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Image:
    """An image by name, with where it came from.

    Attributes:
        reference: what to give to the engine.
        digest: the image's own id, `sha256:…`; '' where the engine was not asked.
        dockerfile: its Dockerfile, relative to the project; '' for an image that was not built here.
        base: the base image's name.
        base_digest: the base image's digest or id.
        build_duration: seconds that this session, or that of its manifest, spent building it; 0 when it was there.
        log: the build log's path.
        rocm_root: ROCM_PATH or ROCM_HOME as the image sets it.
        content: hash of all that it was built from; '' for an image that was not built by us.
        command: the build command as shell text; no secret is in it.
        vendor: AMD or NVIDIA, whose GPUs it is for; '' where nobody says.
        architecture: the GPU architecture that it was built for; '' where nobody says.
        registry_image: its name in a registry; '' where it is in none.
        registry_digest: the digest by which that registry knows it, `sha256:…`; '' where nobody asked.
        archive: a file from which other machines load it; '' where they have another way to it, or need none.
        on_compute: whether a node of a cluster built it, so that it is in its registry and perhaps nowhere else.
    """

    reference: str
    digest: str = ""
    dockerfile: str = ""
    base: str = ""
    base_digest: str = ""
    build_duration: float = 0.0
    log: str = ""
    rocm_root: str = ""
    content: str = ""
    command: str = ""
    vendor: str = ""
    architecture: str = ""
    registry_image: str = ""
    registry_digest: str = ""
    archive: str = ""
    on_compute: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain data that `Image(**data)` takes back."""
        return asdict(self)
