"""The cache in a folder of one machine: an SQLite database, so that several processes use it at once.

SQLite's own locks order the writers, and readers do not wait for them. Not for a disk that hosts share.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from orca.cache.store import Kept, Room
from orca.disk import make_folder
from orca.errors import CacheAwayError, StorageError

_PATIENCE_S = 30.0
"""For the turn of others that write."""
_SETTINGS = "PRAGMA page_size=8192; PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
_TABLES = """
CREATE TABLE IF NOT EXISTS spectra (key TEXT PRIMARY KEY, value BLOB, expires REAL);
CREATE INDEX IF NOT EXISTS spectra_expire ON spectra (expires);
CREATE TABLE IF NOT EXISTS counters (name TEXT, what TEXT, number INTEGER, expires REAL, PRIMARY KEY (name, what));
"""
_AT_ONCE = 500
"""Parameters of a statement; SQLite allows 999 at least."""


class FolderStore:
    """A folder with an SQLite database.

    Parameters
    ----------
    folder : Path
        Made if it is not there.

    Raises
    ------
    CacheAwayError
        It cannot be made or written, or the file in it is something else.
    """

    def __init__(self, folder: Path) -> None:
        self.where = str(folder)
        try:
            make_folder(folder)
        except StorageError as error:
            raise CacheAwayError(error.problem, folder, error.remedy) from error
        self.path = folder / "spectra.sqlite"
        with self._told():
            self._base = sqlite3.connect(self.path, timeout=_PATIENCE_S, isolation_level=None)
            self._base.executescript(_SETTINGS + _TABLES)

    def put(self, items: Sequence[tuple[str, bytes]], expire_s: float) -> None:
        """See `Store`. What has expired is removed on the way."""
        now = time.time()
        with self._writing():
            self._base.execute("DELETE FROM spectra WHERE expires <= ?", (now,))
            rows = [(key, value, now + expire_s) for key, value in items]
            self._base.executemany("INSERT OR REPLACE INTO spectra VALUES (?, ?, ?)", rows)

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """See `Store`."""
        found: dict[str, bytes] = {key: value for key, value, _ in self._rows(keys)}
        return [found.get(key) for key in keys]

    def keys(self, begin: str) -> Iterator[str]:
        """See `Store`."""
        last = begin
        while True:
            with self._told():
                rows = self._base.execute(
                    "SELECT key FROM spectra WHERE key > ? AND key < ? AND expires > ? ORDER BY key LIMIT 10000",
                    (last, begin + "\x7f", time.time()),
                ).fetchall()
            if not rows:
                return
            yield from (key for (key,) in rows)
            last = rows[-1][0]

    def delete(self, keys: Sequence[str]) -> int:
        """See `Store`."""
        with self._writing():
            return self._base.executemany("DELETE FROM spectra WHERE key = ?", [(key,) for key in keys]).rowcount

    def look(self, keys: Sequence[str]) -> list[Kept | None]:
        """See `Store`."""
        now = time.time()
        found = {
            key: Kept(len(value), len(value) + 2 * len(key) + 32, left - now) for key, value, left in self._rows(keys)
        }
        return [found.get(key) for key in keys]

    def count(self, name: str, more: Mapping[str, int], expire_s: float) -> None:
        """See `Store`."""
        now = time.time()
        rows = [(name, what, number, now + expire_s) for what, number in more.items()]
        with self._writing():
            self._base.execute("DELETE FROM counters WHERE expires <= ?", (now,))
            self._base.executemany(
                "INSERT INTO counters VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET number = number + excluded.number",
                rows,
            )
            self._base.execute("UPDATE counters SET expires = ? WHERE name = ?", (now + expire_s, name))

    def counted(self, name: str) -> dict[str, int]:
        """See `Store`."""
        with self._told():
            rows = self._base.execute(
                "SELECT what, number FROM counters WHERE name = ? AND expires > ?", (name, time.time())
            )
            return dict(rows.fetchall())

    def room(self) -> Room:
        """See `Store`. The file does not become smaller: its size is the peak."""
        with self._told():
            pages, free, size = (
                self._base.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "freelist_count", "page_size")
            )
        used, peak = (pages - free) * size, pages * size
        return Room("folder", self.where, used, peak, None, "", f"SQLite {sqlite3.sqlite_version}")

    def close(self) -> None:
        """See `Store`."""
        self._base.close()

    def _rows(self, keys: Sequence[str]) -> list[tuple[str, bytes, float]]:
        """Key, value and when it expires, of those that have not."""
        rows: list[tuple[str, bytes, float]] = []
        for start in range(0, len(keys), _AT_ONCE):
            some = keys[start : start + _AT_ONCE]
            marks = ",".join("?" * len(some))
            with self._told():
                rows += self._base.execute(
                    f"SELECT key, value, expires FROM spectra WHERE key IN ({marks}) AND expires > ?",
                    (*some, time.time()),
                ).fetchall()
        return [(key, value if isinstance(value, bytes) else str(value).encode(), left) for key, value, left in rows]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._told():
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self._base.in_transaction:  # a full disk has ended it
                    self._base.execute("ROLLBACK")
                raise
            self._base.execute("COMMIT")

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            remedy = "See that its disk has room and is local; a broken one may be moved away"
            away = CacheAwayError(f"cannot be used ({error})", self.path, remedy)
            away.may_pass = isinstance(error, sqlite3.OperationalError)
            raise away from error
