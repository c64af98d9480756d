"""GPU architectures: their names, and whether a Dockerfile is for the one that its image is built for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from pytest_madengine.errors import Fault, FaultsError, nearest

if TYPE_CHECKING:
    from pytest_madengine.images.dockerfile import Declaration

OPTION = "--madengine-target-archs"
NATIVE = "native"
"""The word for the GPUs of the machine that builds."""
SYSTEM = "MAD_SYSTEM_GPU_ARCHITECTURE"
VARIABLES = (SYSTEM, "PYTORCH_ROCM_ARCH", "GPU_TARGETS", "GFX_COMPILATION_ARCH", "GPU_ARCHS")
"""By which Dockerfiles say what they compile for."""
PRODUCTS = {
    "gfx906": ("mi50", "mi60"),
    "gfx908": ("mi100",),
    "gfx90a": ("mi200", "mi210", "mi250", "mi250x"),
    "gfx942": ("mi300", "mi300a", "mi300x", "mi325x"),
    "gfx950": ("mi350x", "mi355x"),
}
"""LLVM's AMDGPU processors with the Instinct products and series that are made of them."""
BY_PRODUCT = {product: processor for processor, products in PRODUCTS.items() for product in products}
PROCESSOR = re.compile(r"gfx[0-9a-f]{3,5}(:sramecc[+-])?(:xnack[+-])?|sm_[0-9]{2,3}[af]?", re.IGNORECASE)
SEPARATORS = re.compile(r"[;,\s]+")
VALID = "gfx942, gfx90a:sramecc+:xnack-, sm_90, a name such as MI300X, or native"


def canonical(name: str) -> str:
    """The compiler's name: `gfx942` for `MI300X`, and gfx and sm names in lower case; other names stay.

    MI300 and MI300A are gfx942 too; the replaced tool's gfx940 was a stepping before production.
    """
    plain = name.strip().lower()
    if plain in BY_PRODUCT:
        return BY_PRODUCT[plain]
    return plain if PROCESSOR.fullmatch(plain) else name


def target_archs(values: Iterable[str]) -> tuple[str, ...]:
    """The architectures that an option names, each once and in its order, by the compiler's names.

    Args:
        values: the option's values, each of them a name or several with commas between; `native` stays a word.

    Raises:
        FaultsError: a name is unknown, or there is none.
    """
    names = [piece.strip() for value in values for piece in value.split(",") if piece.strip()]
    found = [_unknown(name) for name in names if not _is_known(name) and name.lower() != NATIVE]
    if not names:
        found = [Fault(OPTION, "no architecture is named", VALID)]
    if found:
        raise FaultsError(found)
    return tuple(dict.fromkeys(NATIVE if name.lower() == NATIVE else canonical(name) for name in names))


def given_architecture(declared: Iterable[Declaration], build_args: Mapping[str, str]) -> str:
    """The one architecture that an image is for: the build argument says so, else the last ARG or ENV that does.

    Args:
        declared: the Dockerfile's variables, filled in.
        build_args: build arguments by name; this one counts whether it is declared or not.

    Returns:
        the compiler's name, or what was given for it; '' where nobody says, or several are named.
    """
    stated = [each.value for each in declared if each.name == SYSTEM]
    values = [build_args.get(SYSTEM), *reversed(stated)]
    value = next((value.strip() for value in values if value and "$" not in value), "")
    return "" if ";" in value or "," in value else canonical(value)


def warnings(declared: Iterable[Declaration], target: str, dockerfile: str) -> list[str]:
    """What a Dockerfile declares that does not go with the architecture that its image is built for.

    Values that hang on an unknown variable, or hold words that name no architecture (`all`, `native`), are not judged.

    Args:
        declared: the Dockerfile's variables, filled in.
        target: the architecture; `native` stands for none and is resolved before. '' where none is known.
        dockerfile: its name, as the reader knows it.

    Returns:
        a sentence for each value that leaves out the target. Without a target, one if the Dockerfile asks for it.
    """
    if not target:
        return list(_unanswered(declared, dockerfile))
    judged: dict[tuple[str, str], int] = {}
    for each in declared:
        if each.name in VARIABLES and each.value and _leaves_out(each.value, target):
            judged.setdefault((each.name, each.value), each.line)
    return [
        f"{dockerfile}:{line}: {name}={value} does not name {target}, which this image is built for"
        for (name, value), line in judged.items()
    ]


def _unanswered(declared: Iterable[Declaration], dockerfile: str) -> Iterator[str]:
    asked = [each for each in declared if each.name == SYSTEM]
    if asked and all(each.value is None for each in asked):
        yield (
            f"{dockerfile}:{asked[0].line}: ARG {SYSTEM} has no default and no GPU architecture is known, so the build "
            f"sees none; give one by {OPTION} or by docker_build_arg.{SYSTEM}"
        )


def _leaves_out(value: str, target: str) -> bool:
    names = [name.partition(":")[0] for name in SEPARATORS.split(value) if name]
    return bool(names) and all(map(_is_known, names)) and _processor(target) not in map(canonical, names)


def _processor(name: str) -> str:
    return canonical(name).partition(":")[0]


def _is_known(name: str) -> bool:
    return name.lower() in BY_PRODUCT or bool(PROCESSOR.fullmatch(name))


def _unknown(name: str) -> Fault:
    close = nearest(name, [*PRODUCTS, *BY_PRODUCT, NATIVE])
    return Fault(OPTION, f"found {name!r}", VALID, close.upper() if close in BY_PRODUCT else close)
