"""Whether a file is still being written: by looking at it twice, and only if it is young."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orca.errors import GrowingDataError, InvalidDataError, MissingDataError, TruncatedDataError

PAUSE_S = 0.15
"""How long a young file is watched at least, if nothing is wrong with it."""
PATIENCE_S = 1.0
"""How long it is watched if something is: its end may not be written yet."""
_POLL_S = 0.1
_LOCK = "table.lock"  # written by casacore's readers, too

Snapshot = dict[str, tuple[int, int]]


@contextmanager
def settled(path: Path, settle_s: float) -> Iterator[None]:
    """Check a file or folder inside this context: if it grows meanwhile, that is the error, whatever else is wrong.

    Parameters
    ----------
    path : Path
        A file, or a folder with everything in it.
    settle_s : float
        What was not changed within this time does not grow, and is not waited for.

    Raises
    ------
    MissingDataError
        There is nothing at this path.
    GrowingDataError
        Sizes or modification times changed while it was looked at.
    """
    began = time.monotonic()
    if not path.exists():
        raise MissingDataError("there is no such file or folder", path, "Check the name.")
    before = snapshot(path)
    newest_ns = max((mtime for _, mtime in before.values()), default=path.stat().st_mtime_ns)
    young = abs(time.time() - newest_ns / 1e9) < settle_s
    growing = GrowingDataError("is still being written", path, "Try again when the recorder has closed it.")
    try:
        yield
    except (InvalidDataError, MissingDataError, TruncatedDataError) as error:
        if young and _changes(path, before, began + min(PATIENCE_S, settle_s)):
            raise growing from error
        raise
    if _changes(path, before, began + min(PAUSE_S, settle_s) if young else 0.0):
        raise growing


def snapshot(path: Path) -> Snapshot:
    """Size and modification time (ns) of a file, or of all files in a folder but casacore's locks."""
    found: Snapshot = {}
    pending = [str(path)]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    elif entry.name != _LOCK:
                        state = entry.stat()
                        found[entry.path] = (state.st_size, state.st_mtime_ns)
        except NotADirectoryError:
            state = os.stat(folder)  # noqa: PTH116 - what is walked are strings, for speed
            found[folder] = (state.st_size, state.st_mtime_ns)
        except FileNotFoundError:
            continue  # vanished meanwhile, which is a change
    return found


def _changes(path: Path, before: Snapshot, until: float) -> bool:
    """Whether anything changes until a moment of the monotonic clock."""
    while True:
        if snapshot(path) != before:
            return True
        left = until - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(left, _POLL_S))
