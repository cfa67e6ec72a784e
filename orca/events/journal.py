"""What the trigger has begun and done, on disk: so that a file that is told again is not worked on again.

A batch is written down before its flow run is asked for, and its messages are acknowledged after that. Whatever is
killed in between, the same batch is asked for again, with the same key, and Prefect has one flow run for a key.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orca.disk import make_folder
from orca.errors import StorageError

KEEP_DAYS = 2.0
"""After that a file may be told again as new; raw data live for one day."""
_TABLES = """
CREATE TABLE IF NOT EXISTS batches
    (key TEXT PRIMARY KEY, deployment TEXT, parameters TEXT, tags TEXT, begun REAL, flow_run TEXT, refused TEXT);
CREATE TABLE IF NOT EXISTS files (identity TEXT, rule TEXT, key TEXT, PRIMARY KEY (identity, rule));
"""


@dataclass(frozen=True)
class Request:
    """A flow run to ask for.

    Attributes
    ----------
    key : str
        Prefect makes one flow run for it, however often it is asked.
    deployment : str
        Such as reduction/reduction, without the prefix.
    parameters : dict
        JSON values.
    tags : tuple of str
    """

    key: str
    deployment: str
    parameters: dict[str, Any]
    tags: tuple[str, ...] = ()


class Journal:
    """The journal of one trigger.

    Parameters
    ----------
    path : Path
        Made if there is none.
    """

    def __init__(self, path: Path) -> None:
        make_folder(path.parent)
        self.path = path
        with self._told():
            self._database = sqlite3.connect(path, isolation_level=None)
            self._database.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; {_TABLES}")

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @contextmanager
    def _told(self) -> Any:
        try:
            yield
        except sqlite3.Error as error:
            remedy = "See that its disk has room and is local; a broken one may be moved away"
            raise StorageError(f"cannot be used ({error})", self.path, remedy) from error

    @contextmanager
    def _transaction(self) -> Any:
        with self._told():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def begin(self, request: Request, rule: str, identities: Iterable[str]) -> None:
        """Write down what will be asked for, and the files that it is about."""
        values = (
            request.key,
            request.deployment,
            json.dumps(request.parameters),
            json.dumps(request.tags),
            time.time(),
        )
        with self._transaction():
            self._database.execute("INSERT OR IGNORE INTO batches VALUES (?, ?, ?, ?, ?, NULL, NULL)", values)
            rows = [(identity, rule, request.key) for identity in identities]
            self._database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", rows)

    def done(self, key: str, flow_run: str) -> None:
        """Write down that there is a flow run for it."""
        with self._transaction():
            self._database.execute("UPDATE batches SET flow_run = ? WHERE key = ?", (flow_run, key))

    def refused(self, key: str, why: str) -> None:
        """Write down that Prefect does not take it: it is not asked for again."""
        with self._transaction():
            self._database.execute("UPDATE batches SET refused = ? WHERE key = ?", (why, key))

    def unfinished(self) -> list[Request]:
        """What was begun and is not done, the oldest first."""
        with self._told():
            rows = self._database.execute(
                "SELECT key, deployment, parameters, tags FROM batches"
                " WHERE flow_run IS NULL AND refused IS NULL ORDER BY begun"
            ).fetchall()
        return [Request(key, name, json.loads(what), tuple(json.loads(tags))) for key, name, what, tags in rows]

    def key_of(self, identity: str, rule: str) -> str | None:
        """The batch that a file went into for a rule; None if it has not."""
        with self._told():
            row = self._database.execute(
                "SELECT key FROM files WHERE identity = ? AND rule = ?", (identity, rule)
            ).fetchone()
        return None if row is None else str(row[0])

    def outcome(self, key: str) -> tuple[str | None, str | None]:
        """Flow run of a batch, and why it was refused."""
        with self._told():
            row = self._database.execute("SELECT flow_run, refused FROM batches WHERE key = ?", (key,)).fetchone()
        return (None, None) if row is None else (row[0], row[1])

    def files(self) -> Sequence[tuple[str, str, str]]:
        """Identity, rule and batch of each file, in the order in which they came."""
        with self._told():
            return self._database.execute("SELECT identity, rule, key FROM files ORDER BY rowid").fetchall()

    def forget(self, now: float | None = None) -> None:
        """Drop what is older than `KEEP_DAYS` and done."""
        before = (now or time.time()) - KEEP_DAYS * 86400
        with self._transaction():
            self._database.execute(
                "DELETE FROM files WHERE key IN (SELECT key FROM batches WHERE begun < ? AND flow_run IS NOT NULL"
                " OR begun < ? AND refused IS NOT NULL)",
                (before, before),
            )
            self._database.execute(
                "DELETE FROM batches WHERE begun < ? AND (flow_run IS NOT NULL OR refused IS NOT NULL)", (before,)
            )
