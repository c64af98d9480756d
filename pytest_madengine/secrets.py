"""Values that must never be shown, and the masking of text that may hold them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

MASK = "***"
PREFIX = "MAD_SECRETS"
SHORTEST_MASKED = 6
"""Shorter values are not masked: they would blot out ordinary words and numbers."""
TELLTALE = re.compile(
    r"(^|_)(TOKEN|SECRETS?|PASSWORD|PASSWD|CREDENTIALS?|(API|ACCESS|PRIVATE|SECRET)_?KEY)(_|$)", re.IGNORECASE
)


class Secret(str):
    """A string whose `repr` hides it, so that tracebacks and `--showlocals` do not show it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"'{MASK}'"


def secrets_of_environment(environ: Mapping[str, str]) -> dict[str, Secret]:
    """The variables whose names begin with `MAD_SECRETS`, which builds and containers receive."""
    return {name: Secret(value) for name, value in environ.items() if name.startswith(PREFIX)}


def is_secret(name: str) -> bool:
    """Whether a variable of this name holds a secret: `HF_TOKEN`, `S3_ACCESS_KEY`, `MAD_SECRETS_X`."""
    return name.startswith(PREFIX) or bool(TELLTALE.search(name))


def all_texts(value: Any) -> Iterator[str]:
    """Every string in an object of JSON, at any depth; of objects the values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from all_texts(inner)


def redacted(value: Any) -> Any:
    """An object of JSON in which what stands under the name of a secret is hidden, at any depth."""
    if isinstance(value, Mapping):
        return {key: MASK if is_secret(key) else redacted(inner) for key, inner in value.items()}
    return [redacted(inner) for inner in value] if isinstance(value, list | tuple) else value


class Masker:
    """Replaces known secret values in text.

    A value of several lines is masked line by line too, since logs are read by line.
    """

    def __init__(self, values: Iterable[str]) -> None:
        pieces = {piece for value in values for piece in (value, *value.splitlines())}
        known = {piece.strip() for piece in pieces if len(piece.strip()) >= SHORTEST_MASKED}
        self.values = sorted(known, key=len, reverse=True)
        self._bytes = [value.encode() for value in self.values]

    def __call__(self, text: str) -> str:
        """`text` with every secret hidden."""
        for value in self.values:
            text = text.replace(value, MASK)
        return text

    def mask_bytes(self, data: bytes) -> bytes:
        """Like calling it, on undecoded output, whose length stays: positions in a log stay true."""
        for value in self._bytes:
            data = data.replace(value, b"*" * len(value))
        return data

    def found_in(self, data: bytes) -> bool:
        """Whether any secret value stands in `data`."""
        return any(value in data for value in self._bytes)


NO_SECRETS = Masker(())
