"""Taking turns on a machine: what takes cores and memory, such as WSClean, is done by so many at once and no more.

A turn is a lock on a file, which the kernel takes back when its holder dies.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from orca.disk import make_folder, storage_errors
from orca.errors import StoppedError
from orca.process import Stop

_POLL_S = 0.1


@contextmanager
def turn(folder: Path, count: int | None, stop: Stop, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Wait until fewer than `count` others are inside, and keep them out meanwhile.

    Parameters
    ----------
    folder : Path
        On a disk of this machine; the same for all who share its turns. Gets a small file for each.
    count : int or None
        How many may be inside; None for any number.
    stop : callable
        Asked ten times a second while waiting; a returned text ends it.
    waiting : callable, optional
        Called once if there is no turn at once.

    Raises
    ------
    StoppedError
        `stop` said so.
    StorageError
        The folder cannot be written.
    """
    if count is None:
        yield
        return
    make_folder(folder)
    with ExitStack() as stack:
        with storage_errors(folder):
            files = [stack.enter_context((folder / f"turn-{number}").open("a")) for number in range(count)]
        if not _take_one(files):
            waiting()
            while not _take_one(files):
                if reason := stop():
                    raise StoppedError(reason)
                time.sleep(_POLL_S)
        yield


def _take_one(files: Sequence[IO[Any]]) -> bool:
    """Lock any one of the files; closing it gives the turn back."""
    for file in files:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        return True
    return False
