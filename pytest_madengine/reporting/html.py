"""A run as one HTML file that needs nothing else: it opens offline, from a mail or a build's artifacts."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pytest_madengine import __version__, assets, files
from pytest_madengine.reporting import htmldata, htmlsamples, htmlsummary
from pytest_madengine.reporting.base import AtTheEnd
from pytest_madengine.reporting.htmlstory import NO_PAST, Past, Story
from pytest_madengine.reporting.status import elapsed
from pytest_madengine.results.result import Result
from pytest_madengine.secrets import NO_SECRETS, Masker

STYLES = ("vendor/uPlot.min.css", "page.css")
SCRIPTS = ("vendor/uPlot.iife.min.js",)
OURS = ("base.js", "charts.js", "model.js", "table.js", "start.js")
"""Parts of one script, in their order."""
POLICY = (
    "default-src 'none'; script-src {script}; style-src {style}; img-src data:; base-uri 'none'; form-action 'none'"
)
"""Nothing is fetched, and no script or style runs but those that the page was made with."""
UNSAFE = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026", 0x2028: "\\u2028", 0x2029: "\\u2029"}
"""What could end a script element early, as JSON writes it."""


class HtmlReport(AtTheEnd):
    """The file of `--madengine-html`, written when the run ends."""

    name = "--madengine-html"

    def __init__(
        self,
        path: Path,
        run: Mapping[str, str],
        mask: Masker = NO_SECRETS,
        past: Callable[[Sequence[Result]], Past] | None = None,
    ) -> None:
        self._path = path
        self._run = run
        self._mask = mask
        self._past = past

    def conclude(self, results: Sequence[Result], _: int, /) -> None:
        """See `Concluding`."""
        past = self._past(results) if self._past else NO_PAST
        write(self._path, results, self._run, past, self._mask)


def write(
    path: Path, results: Sequence[Result], run: Mapping[str, str], past: Past = NO_PAST, mask: Masker = NO_SECRETS
) -> None:
    """Make the file.

    Args:
        path: where to; links on the page are relative to its folder.
        results: all of the run, tries before the last included.
        run: what is known of the run: `run` (its id), `target`, or whatever else; shown in this order.
        past: other runs, for trends and for what is different since.
        mask: hides secrets.

    Raises:
        OSError: it cannot be written.
    """
    story = Story(results, run, past, htmlsamples.of(results), linker(path.parent))
    files.replace_target(path, page(story, mask))


def linker(folder: Path) -> Callable[[str], str]:
    """Makes relative URLs of paths, for a page in `folder`."""
    top = os.path.realpath(folder)

    def link(path: str) -> str:
        return quote(os.path.relpath(path, top), errors="surrogatepass")

    return link


def page(story: Story, mask: Masker = NO_SECRETS) -> str:
    """The page's text."""
    style = "\n".join(assets.text(f"report/{name}") for name in STYLES)
    ours = "\n".join(assets.text(f"report/{name}") for name in OURS)
    scripts = [*(assets.text(f"report/{name}") for name in SCRIPTS), f'"use strict";\n(() => {{\n{ours}}})();']
    run = str(story.run.get("run", ""))
    return assets.render(
        "report/page.html.j2",
        policy=POLICY.format(script=" ".join(map(_hash, scripts)), style=_hash(style)),
        style=style,
        scripts=scripts,
        title=mask(run),
        facts=_masked(htmlsummary.facts(_facts(story), story.results), mask),
        summary=_masked(asdict(htmlsummary.summary(story.results)), mask),
        data=_json(_masked(htmldata.data(story), mask)),
        version=__version__,
        now=f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
    )


def _facts(story: Story) -> dict[str, str]:
    """What is known of the run, with its times."""
    run = {name: str(value) for name, value in story.run.items()}
    moments = [moment for each in story.results for text in (each.started, each.ended) if (moment := _moment(text))]
    if moments:
        first, last = min(moments), max(moments)
        run |= {"started": f"{first:%Y-%m-%d %H:%M} UTC", "took": elapsed((last - first).total_seconds())}
    elif any(each.duration for each in story.results):
        run["models ran"] = elapsed(sum(each.duration for each in story.results))
    return run


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return moment.replace(tzinfo=moment.tzinfo or timezone.utc).astimezone(timezone.utc)


def _hash(text: str) -> str:
    """How a policy names an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(data: object) -> str:
    """Compact JSON that is safe inside of a script element."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).translate(UNSAFE)


def _masked(value: Any, mask: Masker) -> Any:
    """The same with secrets hidden in all but the names of things."""
    if not mask.values:
        return value
    if isinstance(value, Mapping):
        return {key: _masked(inner, mask) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(inner, mask) for inner in value]
    return mask(value) if isinstance(value, str) else value
