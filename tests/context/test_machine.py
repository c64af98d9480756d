from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import pytest

from pytest_madengine.context import machine
from pytest_madengine.context.context import Context
from pytest_madengine.context.machine import Machine, architecture_matches, gfx_name, probe

A100 = "NVIDIA A100-SXM4-40GB"


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host without GPUs, whose sysfs and PATH are folders below the one given."""
    for name in ("KFD_NODES", "DRM", "ROCM"):
        monkeypatch.setattr(machine, name, tmp_path / name)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def add_kfd_node(host: Path, number: int, **properties: int) -> None:
    path = host / "KFD_NODES" / str(number) / "properties"
    path.parent.mkdir(parents=True)
    path.write_text("".join(f"{name} {value}\n" for name, value in properties.items()), encoding="utf-8")


def add_amd(host: Path, gpus: int = 2) -> None:
    add_kfd_node(host, 0, cpu_cores_count=64, simd_count=0, gfx_target_version=0)
    for gpu in range(gpus):
        add_kfd_node(host, gpu + 1, simd_count=1216, gfx_target_version=90402, drm_render_minor=128 + 8 * gpu)
    files = {"DRM/renderD128/device/product_name": "AMD Instinct MI300X\n", "ROCM/.info/version": "6.4.1-83\n"}
    for name, text in files.items():
        path = host / name
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")


def add_nvidia(host: Path, *lines: str, code: int = 0) -> None:
    program = host / "bin" / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines) + f"exit {code}\n", encoding="utf-8"
    )
    program.chmod(0o755)


def stated(**values: Any) -> Context:
    return Context.model_validate(values)


def test_amd_facts_come_from_the_kernel(bare: Path) -> None:
    add_amd(bare)
    assert probe(stated()) == Machine(
        hostname=platform.node(),
        vendor="AMD",
        gpus=2,
        architecture="gfx942",
        product="AMD Instinct MI300X",
        toolkit="6.4",
        render_nodes=(128, 136),
    )


def test_nodes_are_counted_in_their_numbers_order(bare: Path) -> None:
    add_amd(bare, gpus=11)
    assert probe(stated()).render_nodes == tuple(range(128, 128 + 88, 8))


def test_an_amd_host_that_tells_little_is_still_one(bare: Path) -> None:
    add_kfd_node(bare, 1, simd_count=4)
    found = probe(stated())
    assert (found.vendor, found.gpus, found.product, found.toolkit) == ("AMD", 1, "", "")


def test_a_node_whose_properties_cannot_be_read_is_no_gpu(bare: Path) -> None:
    (bare / "KFD_NODES" / "1").mkdir(parents=True)
    add_kfd_node(bare, 2, simd_count=4, gfx_target_version=90010)
    assert probe(stated()).gpus == 1


def test_nvidia_facts_come_from_one_call(bare: Path) -> None:
    add_nvidia(bare, f"{A100}, 550.54.15", f"{A100}, 550.54.15")
    found = probe(stated())
    assert (found.vendor, found.gpus, found.architecture, found.toolkit) == ("NVIDIA", 2, A100, "550.54.15")
    assert found.product == A100
    assert found.render_nodes == ()


@pytest.mark.parametrize(
    ("lines", "code"), [((), 0), (("No devices were found",), 0), (("NVIDIA-SMI has failed, no driver",), 9)]
)
def test_a_tool_that_finds_no_gpu_does_not_make_one(bare: Path, lines: tuple[str, ...], code: int) -> None:
    add_nvidia(bare, *lines, code=code)
    assert probe(stated()) == Machine(platform.node(), vendor="AMD")


def test_a_host_without_gpus_counts_as_amd_without_gpus(bare: Path) -> None:
    assert probe(stated()) == Machine(platform.node(), vendor="AMD")
    assert not list(bare.glob("KFD_NODES"))


def test_what_the_context_states_wins(bare: Path) -> None:
    add_amd(bare)
    variables = {
        "MAD_SYSTEM_NGPUS": 8,
        "MAD_SYSTEM_GPU_ARCHITECTURE": "gfx90a",
        "MAD_SYSTEM_GPU_PRODUCT_NAME": "MI250",
        "MAD_SYSTEM_HIP_VERSION": "6.0",
    }
    found = probe(stated(gpu_vendor="NVIDIA", docker_env_vars=variables, gpu_renderDs=[130]))
    assert found == Machine(platform.node(), "NVIDIA", 8, "gfx90a", "MI250", "6.0", (130,))


def test_a_stated_zero_is_no_gpu(bare: Path) -> None:
    add_amd(bare)
    assert probe(stated(docker_env_vars={"MAD_SYSTEM_NGPUS": 0})).gpus == 0


@pytest.mark.parametrize(
    ("version", "name"),
    [
        (90402, "gfx942"),
        (90010, "gfx90a"),
        (90008, "gfx908"),
        (110000, "gfx1100"),
        (120001, "gfx1201"),
        (90500, "gfx950"),
    ],
)
def test_the_kernels_number_as_an_architecture(version: int, name: str) -> None:
    assert gfx_name(version) == name


@pytest.mark.parametrize(
    ("architecture", "names", "match"),
    [
        ("gfx942", ("gfx908", "gfx942"), "gfx942"),
        ("gfx942", ("GFX942",), "GFX942"),
        ("gfx942", ("gfx94",), ""),
        (A100, ("A100",), "A100"),
        (A100, (A100,), A100),
        (A100, ("A10",), ""),
        ("", ("", "gfx942"), ""),
        ("gfx942", (), ""),
        ("gfx90a:sramecc+:xnack-", ("gfx90a",), "gfx90a"),
    ],
)
def test_which_name_of_a_skip_list_this_machine_bears(architecture: str, names: tuple[str, ...], match: str) -> None:
    assert architecture_matches(architecture, names) == match


@pytest.mark.skipif(os.path.exists("/dev/kfd") or os.path.exists("/dev/nvidiactl"), reason="this host has a GPU")  # noqa: PTH110
def test_the_vendor_is_told_without_starting_a_process(bare: Path) -> None:
    assert machine.vendor() == ""
    add_nvidia(bare, "x", code=1)
    assert machine.vendor() == "NVIDIA"
