"""Telling of the files that a recorder finishes: what `orca watch` does.

The truth is what the folders list, looked at again and again: file systems of many hosts tell nobody what another host
did. Where the kernel tells, it only wakes us up. A file is finished when nothing in it changed for `limits.settle_s`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from orca import naming
from orca.config import Config
from orca.errors import (
    BrokerAwayError,
    ConfigError,
    DataError,
    InfrastructureError,
    InputError,
    RightsError,
    StorageError,
)
from orca.events.publisher import Publisher
from orca.events.submit import RECORDED_POOL, Submitted, recorded, send
from orca.events.told import Told
from orca.ms.growth import Snapshot, snapshot

YOUNG_S = 120.0
"""A folder that was changed within this time is listed each time: what was added at once may not show in its time."""
EVERY_S = 600.0
"""Each folder is listed so often, whatever its time says."""
ACTIVE_S = 3600.0
"""A folder that was changed within this time is one that the recorder may be writing to."""
OLD_S = 600.0
"""What was changed so long ago is finished at the first look, whatever the recorder's clock."""
DEPTH = 4
"""Folders inside each other: <SB>/<date>/<hour>, and one more."""
_BATCH = 50
"""Files told of are remembered after so many at the latest; after a crash these are told of again, with their ids."""

_log = logging.getLogger("orca.watch")


@dataclass
class _Folder:
    """What a folder held when it was listed."""

    changed_ns: int
    listed: float
    empty: bool
    folders: list[str]


@dataclass
class _Young:
    """A file that may be growing: how it looked, since when, and when that was seen last."""

    files: Snapshot = field(default_factory=dict)
    since: float = 0.0
    seen: float = float("-inf")


class Watch:
    """Looks for raw Measurement Sets below a folder, and tells of each once.

    Parameters
    ----------
    root : Path
        It need not be there yet.
    settings : Config
    publisher : Publisher

    Raises
    ------
    InputError
        It is no folder, or another process watches it.
    StorageError
        What was told of cannot be read.
    """

    def __init__(self, root: Path, settings: Config, publisher: Publisher) -> None:
        if root.exists() and not root.is_dir():
            raise InputError("is no folder", root, "Give the root of what a recorder writes")
        self.root, self.settings, self.publisher = str(root.absolute()), settings, publisher
        self.told = Told(settings.paths.data / "watch", root.absolute())
        self._folders: dict[str, _Folder] = {}
        self._young: dict[str, _Young] = {}
        self.problems: set[str] = set()

    def close(self) -> None:
        """Remember what was told of."""
        self.told.close()

    @property
    def growing(self) -> int:
        """How many files are there that are not finished."""
        return len(self._young)

    @property
    def active(self) -> set[str]:
        """Folders in which something was changed lately."""
        now = time.time()
        return {path for path, each in self._folders.items() if now - each.changed_ns / 1e9 < ACTIVE_S}

    def look(self, tell: Callable[[Submitted], None], ended: Callable[[], bool] = lambda: False) -> int:
        """Look once: tell of what is finished, the oldest first, and send what waits in the spool.

        What goes wrong is tried again at the next look, and logged when it begins: see `problems`.

        Parameters
        ----------
        tell : function
            Called for each file that was told of.
        ended : function
            Whether to stop in the middle.

        Returns
        -------
        int
            How many files were told of.
        """
        before, self.problems = self.problems, set()
        self._scan()
        count = 0
        try:
            self._flush()
            for path, files in self._finished(ended):
                count += self._tell(path, files, tell)
                if count % _BATCH == 0:
                    self.told.commit()
        except (InfrastructureError, RightsError, ConfigError, StorageError) as error:
            self.problems.add(str(error))
        finally:
            self.told.commit()
        self._log(before)
        return count

    def _flush(self) -> None:
        try:
            self.publisher.flush()
        except BrokerAwayError as error:  # what is new waits behind what waits already
            self.problems.add(str(error))

    def _tell(self, path: str, files: Snapshot, tell: Callable[[Submitted], None]) -> int:
        try:
            message = recorded(Path(path), seen=files)
        except (InputError, DataError) as error:  # of this file alone
            self.problems.add(str(error))
            return 0
        submitted = send(self.publisher, message, RECORDED_POOL)
        if submitted.why:
            self.problems.add(submitted.why)
        self.told.add(*os.path.split(path))
        del self._young[path]
        tell(submitted)
        return 1

    def _log(self, before: set[str]) -> None:
        """Say what goes wrong now and did not before."""
        for problem in sorted(self.problems - before):
            _log.warning("%s", problem)
        if before and not self.problems:
            _log.warning("what was wrong is over")

    def _scan(self) -> None:
        """Find files that are new, and forget those that are gone."""
        there: set[str] = set()
        pending = [(self.root, 0)]
        while pending:
            folder, depth = pending.pop()
            listing = self._listed(folder, depth)
            if listing is not None:
                there.add(folder)
                pending += [(inner, depth + 1) for inner in listing.folders]
        self._folders = {folder: each for folder, each in self._folders.items() if folder in there}
        for folder in self.told.folders():
            if folder not in there and self._is_gone(folder):
                self.told.forget(folder, self.told.names(folder))

    def _is_gone(self, folder: str) -> bool:
        """Whether a folder was removed. Where the one above it is empty, a disk may not be mounted."""
        while folder != self.root and folder not in self._folders:
            folder = os.path.dirname(folder)  # noqa: PTH120 - what is walked are strings, for speed
        return folder in self._folders and not self._folders[folder].empty

    def _listed(self, folder: str, depth: int) -> _Folder | None:
        """What a folder holds, looked at only where that may have changed; None where it is gone."""
        known, now = self._folders.get(folder), time.monotonic()
        try:
            changed_ns = os.stat(folder).st_mtime_ns  # noqa: PTH116
            old = time.time() - changed_ns / 1e9 > YOUNG_S
            if known and known.changed_ns == changed_ns and old and now - known.listed < EVERY_S:
                return known
            with os.scandir(folder) as entries:
                found = [each for each in entries if not each.name.startswith(".") and not each.name.endswith(".tmp")]
            told = self.told.names(folder)
            fresh = [entry for entry in found if entry.name not in told]
            inside = [entry.path for entry in fresh if depth < DEPTH and _is_folder(entry)]
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self.problems.add(f"{folder}: cannot be read ({error.strerror})")
            return known
        for entry in fresh:
            if entry.path not in self._young and _is_raw(entry.name):
                self._young[entry.path] = _Young()
        if found:
            self.told.forget(folder, told - {entry.name for entry in found})
        self._folders[folder] = _Folder(changed_ns, now, not found, inside)
        return self._folders[folder]

    def _finished(self, ended: Callable[[], bool]) -> Iterator[tuple[str, Snapshot]]:
        """Files that grow no longer, and how they look, the oldest first."""
        for path in sorted(self._young, key=lambda path: (os.path.basename(path), path)):  # noqa: PTH119
            if ended():
                return
            young, now = self._young[path], time.monotonic()
            if now - young.seen < self.settings.limits.settle_s / 2:  # to look costs a hundred questions
                continue
            young.seen = now
            try:
                files = snapshot(Path(path))
            except OSError as error:
                self.problems.add(f"{path}: cannot be read ({error.strerror})")
                continue
            if not files and not os.path.lexists(path):
                del self._young[path]
            elif self._is_finished(path, files):
                yield path, files

    def _is_finished(self, path: str, files: Snapshot) -> bool:
        if not any(size for size, _ in files.values()):
            return False
        if not path.endswith(".tar") and f"{path}/table.dat" not in files:
            return False  # no table yet
        if time.time() - max(changed for _, changed in files.values()) / 1e9 > OLD_S:
            return True
        young = self._young[path]
        if files != young.files:
            young.files, young.since = files, young.seen
        return young.seen - young.since >= self.settings.limits.settle_s


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether there may be recordings in it."""
    return not entry.name.endswith(".ms") and entry.is_dir()


def _is_raw(name: str) -> bool:
    try:
        parsed = naming.parse(name)
    except InputError:
        return False
    return parsed.kind is naming.Kind.RAW and not parsed.manifest
