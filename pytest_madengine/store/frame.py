"""Results as a table of pandas; the only module that knows it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_madengine.store.store import Store

if TYPE_CHECKING:
    import pandas as pd

NAMES = {"model": "row", "card": "model", "name": "metric", "metric": "unit_stated", "last": "is_last_attempt"}
"""The store's names that say something else to whoever reads a table."""
LEFT_OUT = ("result", "place", "unit_stated", "performance", "relative_change")
"""Numbers of the store's own, and what stands in `value`, `unit` and `change`."""
MOMENTS = ("recorded", "started", "ended")
WHOLE = ("n_gpus", "nnodes", "gpus_per_node", "attempt")
NUMBERS = ("value", "change", "duration", "build_duration", "test_duration", "data_download_duration")
FIRST = ("run", "recorded", "model", "row", "status", "metric", "value", "unit", "direction", "change", "judgement")
"""Columns that come first; the others follow in the order of the store."""


def load(path: str | Path | None = None) -> pd.DataFrame:
    """See `pytest_madengine.load_results`."""
    import pandas as pd

    with Store.open(Path(path) if path else None) as store:
        names, values = store.everything()
    frame = pd.DataFrame(values, columns=[NAMES.get(name, name) for name in names])
    frame = frame.drop(columns=list(LEFT_OUT))
    return _typed(frame)[[*FIRST, *(name for name in frame.columns if name not in FIRST)]]


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """Moments, numbers and truths as such; text stays text, also where it looks like a number: `0042`."""
    import json

    import pandas as pd

    for name in MOMENTS:
        frame[name] = pd.to_datetime(frame[name], utc=True, format="ISO8601", errors="coerce")
    for name in NUMBERS:
        frame[name] = pd.to_numeric(frame[name], errors="coerce").astype("float64")
    for name in WHOLE:
        numbers = pd.to_numeric(frame[name], errors="coerce")
        frame[name] = numbers.where(numbers % 1 == 0).astype("Int64")
    frame["is_last_attempt"] = frame["is_last_attempt"].astype(bool)
    frame["samples"] = [tuple(json.loads(text)) for text in frame["samples"]]
    return frame
