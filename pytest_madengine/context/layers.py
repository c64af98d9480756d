"""Merges configurations, the later over the earlier."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """One object of all layers: objects merge key by key, every other value of a later layer wins whole."""
    return reduce(_over, layers, {})


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        both_objects = isinstance(value, Mapping) and isinstance(below.get(key), Mapping)
        result[key] = _over(below[key], value) if both_objects else value
    return result
