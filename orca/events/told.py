"""Which recorded files were told of already: a small database, since a night has tens of thousands of them."""

from __future__ import annotations

import fcntl
import hashlib
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from orca.disk import make_folder, storage_errors
from orca.errors import InputError, StorageError

_TABLE = "CREATE TABLE IF NOT EXISTS told (folder TEXT, name TEXT, PRIMARY KEY (folder, name))"


class Told:
    """The files below one folder that were told of. One process has it at a time.

    What was added is there after a crash once `commit` was called, whole or not at all.

    Parameters
    ----------
    place : Path
        Folder of the database.
    root : Path
        The folder with the files.

    Raises
    ------
    InputError
        Another process has it.
    StorageError
        It cannot be read or written.
    """

    def __init__(self, place: Path, root: Path) -> None:
        make_folder(place)
        self.path = place / f"{hashlib.sha256(str(root).encode(errors='surrogateescape')).hexdigest()[:16]}.sqlite"
        with storage_errors(self.path):
            self._lock = self.path.with_suffix(".lock").open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise InputError("another `orca watch` looks at this folder", root, "End it first") from error
        try:
            with self._errors():
                self._base = sqlite3.connect(self.path)
                self._base.execute(_TABLE)
        except StorageError:
            self._lock.close()
            raise

    def close(self) -> None:
        """Keep what was added, and let others have it."""
        try:
            self.commit()
        finally:
            self._base.close()
            self._lock.close()

    def names(self, folder: str) -> set[str]:
        """Names of the files in a folder that were told of."""
        with self._errors():
            return {name for (name,) in self._base.execute("SELECT name FROM told WHERE folder = ?", (folder,))}

    def folders(self) -> list[str]:
        """Folders of files that were told of."""
        with self._errors():
            return [folder for (folder,) in self._base.execute("SELECT DISTINCT folder FROM told ORDER BY folder")]

    def add(self, folder: str, name: str) -> None:
        """Remember a file."""
        with self._errors():
            self._base.execute("INSERT OR IGNORE INTO told VALUES (?, ?)", (folder, name))

    def forget(self, folder: str, names: Iterable[str]) -> None:
        """Forget files: when they come again, they are told of again."""
        with self._errors():
            self._base.executemany("DELETE FROM told WHERE folder = ? AND name = ?", ((folder, name) for name in names))

    def commit(self) -> None:
        """Have all that on the disk."""
        with self._errors():
            self._base.commit()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            remedy = "Free some space; a broken one may be removed, then all files are told of once more"
            raise StorageError(f"cannot be used ({error})", self.path, remedy) from error
