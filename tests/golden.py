"""Comparison with recorded text."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import pytest

RENEW = "MADENGINE_RENEW_GOLDEN"


def compare(text: str, file: Path) -> None:
    """Fail with a diff and with the way to renew the file, unless `file` holds `text`; or renew it."""
    if os.environ.get(RENEW) == "1":
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    recorded = file.read_text(encoding="utf-8") if file.exists() else ""
    diff = difflib.unified_diff(recorded.splitlines(), text.splitlines(), str(file), "generated now", lineterm="")
    if recorded != text:
        hint = f"If the change is meant: {RENEW}=1 pytest {os.environ['PYTEST_CURRENT_TEST'].partition('::')[0]}"
        pytest.fail("\n".join([*diff, hint]), pytrace=False)
