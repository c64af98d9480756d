"""An ordinary test that asks for a model: `result` runs it and is what it measured."""

# ruff: noqa: S101  # assert is what tests do
from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_madengine.results.result import Result


@pytest.mark.madengine("compress")
def test_compress_rate_is_sane(result: Result) -> None:
    assert result.performance is not None
    assert result.performance > 1
    assert result.metric == "MB/s"
