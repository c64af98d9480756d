"""AI models as pytest items. The public names are in `__all__`; importing this module imports nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

__version__ = "0.1.0"
__all__ = ["__version__", "load_results"]


def load_results(path: str | Path | None = None) -> pd.DataFrame:
    """What runs came to, for analysis: one row for each metric of each row of perf.csv.

    `model` is the card's name, `row` the one in perf.csv, `metric` is `performance` or a further column of the model's
    results file, `value` and `unit` are its, and `is_last_attempt` is false for tries at an item before its last. The
    other columns are those of perf.csv and of the record. Moments are UTC datetimes, numbers are numbers, `samples` are
    tuples of numbers, and everything else is text. What failed has a row too, whose value is NaN.

    Args:
        path: a folder in which pytest ran models, the folder of a run, a record (results.jsonl) or a perf.csv, which
            the replaced tool may have written; the current folder where None.

    Returns:
        the oldest results first.

    Raises:
        UserError: there is no such place, or a perf.csv that is none.
    """
    from pytest_madengine.store import frame

    return frame.load(path)
