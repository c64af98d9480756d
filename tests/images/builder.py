"""Another process that builds: `python -m tests.images.builder RECIPE RECORDS`, RECIPE as JSON.

Its answer is the image as one line of JSON. SIGTERM ends it as it ends a pytest session: by an exception.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

from pytest_madengine.images import build


def to_json(recipe: build.Recipe) -> str:
    """A recipe without secrets as the command line takes it."""
    paths = {name: str(getattr(recipe, name)) for name in ("project", "dockerfile", "context")}
    return json.dumps({**paths, "arguments": dict(recipe.arguments)})


def _recipe(text: str) -> build.Recipe:
    data: dict[str, Any] = json.loads(text)
    paths = {name: Path(data[name]) for name in ("project", "dockerfile", "context")}
    return build.Recipe(**paths, arguments=data["arguments"], secrets={})


def _terminate(number: int, _: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminate)
    image = build.Builder(Path(sys.argv[2])).build(_recipe(sys.argv[1]))
    print(json.dumps(image.to_json()))  # noqa: T201  # the parent reads it
