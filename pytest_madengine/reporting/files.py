"""Files that are written whole."""

from __future__ import annotations

import os
from pathlib import Path


def replace(path: Path, text: str) -> None:
    """Write the file at once: who reads it meanwhile sees the old one or the new one. A link stays a link.

    Raises:
        OSError: it cannot be written.
    """
    real = Path(os.path.realpath(path))
    new = real.with_name(f".{real.name}.{os.getpid()}")
    try:
        new.write_bytes(text.encode(errors="backslashreplace"))
        new.replace(real)
    finally:
        new.unlink(missing_ok=True)
