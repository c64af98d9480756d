"""What this host is: its name, its GPUs and their architecture.

AMD facts come from the kernel's KFD topology and NVIDIA's from one nvidia-smi call: amd-smi is known to hang.
"""

from __future__ import annotations

import platform
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_madengine import command
from pytest_madengine.context.context import Context

KFD_NODES = Path("/sys/class/kfd/kfd/topology/nodes")
DRM = Path("/sys/class/drm")
ROCM = Path("/opt/rocm")
DEFAULT_VENDOR = "AMD"
"""What a host without a GPU counts as, by the wiki's rule."""


@dataclass(frozen=True)
class Machine:
    """A host as models see it.

    Attributes:
        vendor: AMD or NVIDIA.
        gpus: how many.
        architecture: such as gfx942; NVIDIA's product name, as the replaced tool records it.
        toolkit: major.minor of ROCm, or NVIDIA's driver version.
        render_nodes: AMD only: N of /dev/dri/renderD<N> by GPU index.
    """

    hostname: str
    vendor: str = ""
    gpus: int = 0
    architecture: str = ""
    product: str = ""
    toolkit: str = ""
    render_nodes: tuple[int, ...] = ()


def probe(context: Context) -> Machine:
    """This host; what the context states wins over what is found."""
    found = replace(
        _amd(Path(context.rocm_root) if context.rocm_root else ROCM) or _nvidia() or Machine(""),
        hostname=platform.node(),
    )
    return _stated(found, context)


def stated(context: Context) -> Machine:
    """This host as far as the context tells; its GPUs are not looked at."""
    return _stated(Machine(platform.node()), context)


def vendor() -> str:
    """AMD, NVIDIA or '', told from what exists; starts no process."""
    if Path("/dev/kfd").exists():
        return "AMD"
    return "NVIDIA" if Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") else ""


def architecture_matches(architecture: str, names: tuple[str, ...]) -> str:
    """The name in a `skip_gpu_arch` list that an architecture bears, or ''.

    `A100` names an `NVIDIA A100-SXM4-40GB`, `gfx90a` a `gfx90a:xnack-`.
    """
    words = {architecture.lower(), *re.split(r"[\s:-]+", architecture.lower())} - {""}
    return next((name for name in names if name.lower() in words), "")


def unfit(machine: Machine, vendor: str, architecture: str) -> str:
    """Why an image for these GPUs is not to run on a machine, or ''; a machine whose GPUs nobody knows may try.

    Args:
        machine: where it would run.
        vendor: whose GPUs the image is for; '' for any.
        architecture: which; '' for any. Only AMD's names can be compared: NVIDIA's machines say their product's.
    """
    if machine.gpus and vendor and vendor.upper() != machine.vendor:
        return f"the image is for {vendor} GPUs, this machine has {machine.vendor}'s"
    names = [name.partition(":")[0].lower() for name in (architecture, machine.architecture)]
    known = all(name.startswith("gfx") for name in names)
    return f"the image is for {names[0]}, this machine has {names[1]}" if known and names[0] != names[1] else ""


def _stated(machine: Machine, context: Context) -> Machine:
    stated = context.docker_env_vars
    return replace(
        machine,
        vendor=context.gpu_vendor or machine.vendor or DEFAULT_VENDOR,
        gpus=int(stated.get("MAD_SYSTEM_NGPUS", machine.gpus)),
        architecture=stated.get("MAD_SYSTEM_GPU_ARCHITECTURE", machine.architecture),
        product=stated.get("MAD_SYSTEM_GPU_PRODUCT_NAME", machine.product),
        toolkit=stated.get("MAD_SYSTEM_HIP_VERSION", machine.toolkit),
        render_nodes=context.gpu_render_nodes or machine.render_nodes,
    )


def _amd(rocm: Path) -> Machine | None:
    nodes = [_properties(path / "properties") for path in sorted(KFD_NODES.glob("*"), key=_number)]
    gpus = [node for node in nodes if int(node.get("simd_count", "0")) > 0]
    if not gpus:
        return None
    render = tuple(int(gpu.get("drm_render_minor", "0")) for gpu in gpus)
    product = _text(DRM / f"renderD{render[0]}" / "device" / "product_name")
    version = ".".join(_text(rocm / ".info" / "version").split(".")[:2])
    architecture = gfx_name(int(gpus[0].get("gfx_target_version", "0")))
    return Machine("", "AMD", len(gpus), architecture, product, version, render)


def gfx_name(target_version: int) -> str:
    """KFD's `gfx_target_version` 90402 as gfx942: major, minor and stepping, the last two in hexadecimal."""
    major, rest = divmod(target_version, 10000)
    minor, stepping = divmod(rest, 100)
    return f"gfx{major}{minor:x}{stepping:x}"


def _nvidia() -> Machine | None:
    if not shutil.which("nvidia-smi"):
        return None
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    done = command.run(query, seconds=60)
    rows = [[cell.strip() for cell in line.split(",")] for line in done.output.splitlines() if "," in line]
    if not done or not rows:
        return None
    name, driver = rows[0][:2]
    return Machine("", "NVIDIA", len(rows), name, name, driver)


def _properties(path: Path) -> Mapping[str, str]:
    return dict(line.split(maxsplit=1) for line in _text(path).splitlines() if " " in line)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _number(path: Path) -> int:
    return int(path.name) if path.name.isdigit() else 0
