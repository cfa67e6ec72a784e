"""Sizes and times of files: to see what changed, and to make files look as if they had been there for long."""

from __future__ import annotations

import os
import time
from pathlib import Path

HOUR_S = 3600.0


def contents(path: Path) -> dict[str, tuple[int, int]]:
    """Size and modification time of every file below a path."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return {str(file): (file.stat().st_size, file.stat().st_mtime_ns) for file in files}


def age(path: Path, seconds: float = HOUR_S) -> Path:
    """Make everything below a path look as if it had been written some time ago; returns the path."""
    then = time.time() - seconds
    for file in [path, *path.rglob("*")]:
        os.utime(file, (then, then))
    return path
