"""Which models a `--madengine-tags` value selects, and with which extra arguments."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pytest_madengine.errors import Fault, FaultsError, nearest

QUOTES = "\"'"


@dataclass(frozen=True)
class Named:
    """What selection needs to know of a model."""

    name: str
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Tag:
    """One selector.

    Attributes:
        text: as the user wrote it.
        selector: a tag, a full name or `all`; `scope/tag`, `scope/all` restrict to names under `scope/`.
        args: `k=v` pairs and flags for the script.
    """

    text: str
    selector: str
    args: tuple[str, ...] = ()

    @property
    def arguments(self) -> str:
        """`batch=512`, `fp16` as `--batch 512 --fp16`."""
        return " ".join(map(_argument, self.args))

    def matches(self, model: Named) -> bool:
        """Whether the selector names the model, one of its tags, or all."""
        if self.selector in ("all", model.name) or self.selector in model.tags:
            return True
        scope, slash, tag = self.selector.partition("/")
        return bool(slash) and model.name.startswith(f"{scope}/") and (tag == "all" or tag in model.tags)

    def rescoped(self) -> Tag | None:
        """`dir:tag:k=v` read as `dir/tag` with arguments, which is how the wiki writes a scoped tag."""
        if not self.args or "=" in self.args[0]:
            return None
        return Tag(self.text, f"{self.selector}/{self.args[0]}", self.args[1:])


def parse(values: Iterable[str]) -> list[Tag]:
    """The tags of all option values: `a,b`, `scope/tag`, `name:arg=value:flag`.

    A comma or colon inside a value is written in quotes or behind a backslash: `m:sizes="1,2"`.
    """
    tags: dict[str, Tag] = {}
    for value in values:
        for piece in _split(value, ","):
            selector, *args = [_plain(part) for part in _split(piece, ":")] or [piece]
            tags.setdefault(piece, Tag(piece, selector, tuple(args)))
    return list(tags.values())


def resolve(tags: Sequence[Tag], models: Sequence[Named]) -> list[Tag]:
    """The tags as they are meant for these models: the wiki's `dir:tag:k=v` becomes `dir/tag`.

    Only a `dir` that is a scope here and holds such a tag or name is read that way; otherwise the second
    piece is a flag for the script.
    """
    return [_resolved(tag, models) for tag in tags]


def unmatched(tags: Sequence[Tag], models: Sequence[Named]) -> FaultsError | None:
    """The tags that select nothing, each with the nearest spelling; None when every tag selects a model."""
    names = {model.name for model in models} | {tag for model in models for tag in model.tags}
    scopes = {f"{name.partition('/')[0]}/all" for name in names if "/" in name}
    lost = [tag for tag in tags if not any(tag.matches(model) for model in models)]
    if not lost:
        return None
    known = f"one of {len(names)} names and tags" if names else "no model was found at all"
    return FaultsError(
        Fault("--madengine-tags", f"{tag.text!r} selects no model", known, nearest(tag.selector, names | scopes))
        for tag in lost
    )


def _resolved(tag: Tag, models: Sequence[Named]) -> Tag:
    scoped = tag.rescoped()
    if scoped and any(scoped.matches(model) for model in models):
        return scoped
    return tag


def _argument(arg: str) -> str:
    name, equals, value = arg.partition("=")
    option = shlex.quote(f"--{name}")
    return f"{option} {shlex.quote(value)}" if equals else option


def _split(text: str, separator: str) -> list[str]:
    """`text` cut at separators that stand outside quotes and not behind a backslash; empty pieces dropped."""
    pieces, quote, escaped = [""], "", False
    for character in text:
        if character == separator and not quote and not escaped:
            pieces.append("")
            continue
        pieces[-1] += character
        if character in QUOTES and not escaped and quote in ("", character):
            quote = "" if quote else character
        escaped = character == "\\" and not escaped and quote != "'"
    return [piece.strip() for piece in pieces if piece.strip()]


def _plain(piece: str) -> str:
    """The piece without the quotes and backslashes that protected it."""
    lexer = shlex.shlex(piece, posix=True, punctuation_chars=False)
    lexer.whitespace, lexer.commenters, lexer.whitespace_split = "", "", True
    try:
        return "".join(lexer)
    except ValueError as error:
        raise FaultsError([Fault("--madengine-tags", f"{piece!r}: {error}", "closed quotes")]) from None
