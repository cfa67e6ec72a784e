"""Waiting for new files: the kernel wakes us up where it knows of them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection

from inotify_simple import INotify, flags

_log = logging.getLogger("orca.watch")
_STEP_S = 0.5
_GATHER_MS = 200


class Alarm:
    """Waits, and is woken up when there is something new in a folder.

    Only single folders are watched, never what is below them: a Measurement Set has twenty folders of its own.

    Parameters
    ----------
    use : bool
        Whether to ask the kernel.
    """

    def __init__(self, use: bool) -> None:
        self._kernel: INotify | None = None
        self._watched: dict[str, int] = {}
        if use:
            try:
                self._kernel = INotify()
            except OSError as error:  # this user has too many
                _log.warning("the kernel tells nothing of new files (%s): they are looked for", error.strerror)

    def close(self) -> None:
        """Watch no longer."""
        if self._kernel is not None:
            self._kernel.close()

    def watch(self, folders: Collection[str]) -> None:
        """Have the kernel tell of what is new in some folders, and in no others."""
        if self._kernel is None:
            return
        for folder in set(self._watched) - set(folders):
            try:
                self._kernel.rm_watch(self._watched.pop(folder))
            except OSError as error:  # gone with its folder
                _log.debug("%s: %s", folder, error)
        for folder in folders:
            try:  # again as well: a folder may have been removed and made again
                self._watched[folder] = self._kernel.add_watch(folder, flags.CREATE | flags.MOVED_TO | flags.ONLYDIR)
            except OSError as error:  # gone, or too many: it is looked at all the same
                _log.debug("%s: %s", folder, error)

    def wait(self, seconds: float, ended: threading.Event) -> None:
        """Wait, or less where something is new, or it is to end."""
        if self._kernel is None:
            ended.wait(seconds)
            return
        until = time.monotonic() + seconds
        while not ended.is_set() and (left := until - time.monotonic()) > 0:
            # in steps: a signal does not end the kernel's waiting
            if self._kernel.read(timeout=int(min(left, _STEP_S) * 1000) + 1, read_delay=_GATHER_MS):
                return
