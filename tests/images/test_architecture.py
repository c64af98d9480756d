from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_madengine.errors import FaultsError
from pytest_madengine.images.architecture import (
    PRODUCTS,
    VALID,
    VARIABLES,
    canonical,
    given_architecture,
    target_archs,
    warnings,
)
from pytest_madengine.images.dockerfile import Declaration, declarations

SYSTEM = "MAD_SYSTEM_GPU_ARCHITECTURE"
NAME = "docker/x.Dockerfile"
PIECES = st.sampled_from(["gfx942", "MI300X", "gfx90a:xnack-", "sm_90a", "native", "", " mi100 ", "Gfx1100"])


def of(folder: Path, text: str, **build_args: str) -> list[Declaration]:
    path = folder / "Dockerfile"
    path.write_text(text, encoding="utf-8")
    return declarations(path, build_args)


@pytest.mark.parametrize(
    ("name", "processor"),
    [
        ("MI60", "gfx906"),
        ("mi100", "gfx908"),
        ("MI200", "gfx90a"),
        ("mi210", "gfx90a"),
        ("MI250", "gfx90a"),
        ("MI250X", "gfx90a"),
        ("MI300", "gfx942"),
        ("MI300A", "gfx942"),
        (" MI300X ", "gfx942"),
        ("MI325X", "gfx942"),
        ("MI350X", "gfx950"),
        ("MI355X", "gfx950"),
        ("GFX90A", "gfx90a"),
        ("gfx90a:SRAMECC+:xnack-", "gfx90a:sramecc+:xnack-"),
        ("SM_90", "sm_90"),
        ("NVIDIA A100-SXM4-40GB", "NVIDIA A100-SXM4-40GB"),
        ("", ""),
    ],
)
def test_an_architecture_has_one_name(name: str, processor: str) -> None:
    assert canonical(name) == processor


def test_no_product_is_made_of_two_processors() -> None:
    products = [product for products in PRODUCTS.values() for product in products]
    assert len(products) == len(set(products))


@pytest.mark.parametrize(
    ("values", "archs"),
    [
        (["gfx942"], ("gfx942",)),
        (["gfx90a,gfx942", "gfx908"], ("gfx90a", "gfx942", "gfx908")),
        ([" MI300X , mi250 ,", "gfx942"], ("gfx942", "gfx90a")),
        (["native", "Native"], ("native",)),
        (["gfx90a:sramecc+:xnack-,gfx90a:xnack+"], ("gfx90a:sramecc+:xnack-", "gfx90a:xnack+")),
        (["sm_90,sm_90a,sm_100f"], ("sm_90", "sm_90a", "sm_100f")),
        (["gfx1100,gfx803"], ("gfx1100", "gfx803")),
    ],
)
def test_targets_are_listed_once_in_their_order(values: list[str], archs: tuple[str, ...]) -> None:
    assert target_archs(values) == archs


@pytest.mark.parametrize(
    ("value", "close"),
    [
        ("gfx94x", "gfx942"),
        ("gfx_942", "gfx942"),
        ("MI300XX", "MI300X"),
        ("natve", "native"),
        ("gfx90a:xnack", "gfx90a"),
        ("gfx90a:xnack-:sramecc+", ""),
        ("sm90", ""),
        ("all", ""),
    ],
)
def test_an_unknown_target_is_a_users_error(value: str, close: str) -> None:
    with pytest.raises(FaultsError) as caught:
        target_archs(["gfx942", value])
    (fault,) = caught.value.faults
    assert str(fault).startswith(f"--madengine-target-archs: found {value!r}; valid: {VALID}")
    assert fault.nearest == close


def test_every_unknown_target_is_reported_at_once() -> None:
    with pytest.raises(FaultsError) as caught:
        target_archs(["x,y", "gfx942,z"])
    assert [fault.found for fault in caught.value.faults] == ["found 'x'", "found 'y'", "found 'z'"]


@pytest.mark.parametrize("values", [[], [""], [" , ", ","]])
def test_no_target_is_a_users_error(values: list[str]) -> None:
    with pytest.raises(FaultsError, match=r"^--madengine-target-archs: no architecture is named; valid: gfx942"):
        target_archs(values)


@given(st.lists(st.lists(PIECES, min_size=1), min_size=1))
def test_reading_targets_again_changes_nothing(pieces: list[list[str]]) -> None:
    try:
        archs = target_archs([",".join(each) for each in pieces])
    except FaultsError:
        assert not any(piece for each in pieces for piece in each)
    else:
        assert len(set(archs)) == len(archs)
        assert target_archs([",".join(archs)]) == archs


@given(st.text(st.sampled_from("gfxsm_0369aMI:xnack+-, ")) | st.text())
def test_any_text_is_targets_or_a_users_error(text: str) -> None:
    archs: tuple[str, ...] = ()
    with suppress(FaultsError):
        archs = target_archs([text])
    assert all(re.fullmatch(r"native|gfx[0-9a-f]{3,5}[:a-z+-]*|sm_[0-9]{2,3}[af]?", arch) for arch in archs)


@pytest.mark.parametrize(
    ("text", "build_args", "arch"),
    [
        ("FROM x\n", {}, ""),
        ("FROM x\n", {SYSTEM: "MI300X"}, "gfx942"),
        (f"FROM x\nARG {SYSTEM}=gfx90a\n", {}, "gfx90a"),
        (f"FROM x\nARG {SYSTEM}=gfx90a\n", {SYSTEM: "gfx942"}, "gfx942"),
        (f"FROM x\nENV {SYSTEM}=MI250\n", {}, "gfx90a"),
        (f"FROM x\nENV {SYSTEM}=gfx90a\n", {SYSTEM: "gfx942"}, "gfx942"),
        (f"FROM x\nARG {SYSTEM}=gfx908\nENV {SYSTEM}=gfx90a\n", {}, "gfx90a"),
        (f"FROM x\nARG {SYSTEM}=gfx908\nENV {SYSTEM}=$UNKNOWN\n", {}, "gfx908"),
        (f"FROM x\nARG {SYSTEM}\n", {}, ""),
        (f"ARG {SYSTEM}=gfx908\nFROM x\nARG {SYSTEM}\n", {}, "gfx908"),
        (f"FROM x\nARG A=gfx908\nENV {SYSTEM}=$A\n", {"A": "gfx942"}, "gfx942"),
        (f"FROM x\nARG {SYSTEM}='gfx908;gfx90a'\n", {}, ""),
        ("FROM x\n", {SYSTEM: "gfx908,gfx90a"}, ""),
        ("FROM x\n", {SYSTEM: "NVIDIA A100-SXM4-40GB"}, "NVIDIA A100-SXM4-40GB"),
    ],
)
def test_the_architecture_that_an_image_is_for(
    tmp_path: Path, text: str, build_args: dict[str, str], arch: str
) -> None:
    assert given_architecture(of(tmp_path, text, **build_args), build_args) == arch


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("instruction", ["ARG", "ENV"])
@pytest.mark.parametrize("value", ["gfx908;gfx90a", "gfx908,gfx90a", '"gfx908 gfx90a"', "mi100;gfx90a:xnack-", "sm_90"])
def test_a_value_without_the_target_is_told(tmp_path: Path, instruction: str, variable: str, value: str) -> None:
    declared = of(tmp_path, f"FROM x\n\n{instruction} {variable}={value}\n")
    shown = value.strip('"')
    assert warnings(declared, "gfx942", NAME) == [
        f"docker/x.Dockerfile:3: {variable}={shown} does not name gfx942, which this image is built for"
    ]


@pytest.mark.parametrize(
    "value",
    [
        "gfx942",
        "gfx908;gfx942",
        "gfx942:xnack-",
        "MI300X",
        "'gfx908 , GFX942'",
        "",
        "$UNKNOWN",
        "gfx908;$UNKNOWN",
        "all",
        "native",
        "gfx9-4-generic",
        "gfx94X-dcgpu",
        "'NVIDIA A100-SXM4-40GB'",
    ],
)
def test_a_value_with_the_target_or_without_meaning_is_not_told(tmp_path: Path, value: str) -> None:
    assert warnings(of(tmp_path, f"FROM x\nENV GPU_ARCHS={value}\n"), "gfx942", NAME) == []


@pytest.mark.parametrize("target", ["gfx90a:sramecc+:xnack-", "MI250X"])
def test_a_targets_features_and_its_spelling_are_no_matter(tmp_path: Path, target: str) -> None:
    assert warnings(of(tmp_path, "FROM x\nENV GPU_ARCHS=gfx90a\n"), target, NAME) == []


def test_other_variables_are_no_matter(tmp_path: Path) -> None:
    assert warnings(of(tmp_path, "FROM x\nENV MY_ARCHS=gfx908\n"), "gfx942", NAME) == []


def test_values_are_judged_with_their_variables_filled_in(tmp_path: Path) -> None:
    text = f"FROM x\nARG {SYSTEM}=gfx908\nENV PYTORCH_ROCM_ARCH=${{{SYSTEM}}}\n"
    assert warnings(of(tmp_path, text, **{SYSTEM: "gfx942"}), "gfx942", NAME) == []
    assert [each.partition(" ")[0] for each in warnings(of(tmp_path, text), "gfx942", NAME)] == [
        "docker/x.Dockerfile:2:",
        "docker/x.Dockerfile:3:",
    ]


def test_what_is_declared_again_is_told_once(tmp_path: Path) -> None:
    text = "FROM x\nARG GPU_TARGETS=gfx908\nENV GPU_TARGETS=$GPU_TARGETS\nENV GPU_TARGETS=gfx90a\n"
    assert [each.partition(" does")[0] for each in warnings(of(tmp_path, text), "gfx942", NAME)] == [
        "docker/x.Dockerfile:2: GPU_TARGETS=gfx908",
        "docker/x.Dockerfile:4: GPU_TARGETS=gfx90a",
    ]


def test_without_a_target_a_dockerfile_that_asks_for_one_is_told(tmp_path: Path) -> None:
    text = f"FROM x\nARG {SYSTEM}\nENV GPU_TARGETS=gfx908\nENV PYTORCH_ROCM_ARCH=${SYSTEM}\nARG {SYSTEM}\n"
    assert warnings(of(tmp_path, text), "", NAME) == [
        f"docker/x.Dockerfile:2: ARG {SYSTEM} has no default and no GPU architecture is known, so the build sees none; "
        f"give one by --madengine-target-archs or by docker_build_arg.{SYSTEM}"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "FROM x\n",
        f"FROM x\nARG {SYSTEM}=gfx942\n",
        f"ARG {SYSTEM}=gfx942\nFROM x\nARG {SYSTEM}\n",
        f"FROM x\nARG {SYSTEM}\nENV {SYSTEM}=gfx942\n",
    ],
)
def test_without_a_target_a_dockerfile_that_has_an_answer_is_not_told(tmp_path: Path, text: str) -> None:
    assert warnings(of(tmp_path, text), "", NAME) == []
