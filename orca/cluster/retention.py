"""What is kept too long of Dask's and of Prefect's.

Prefect's server removes flow runs itself (`orca.cluster.server_settings.vacuum`), each with its task runs, logs and
artifacts, and cannot mistake one that has just begun again. What it has not removed in time belongs to a server that
was started otherwise: that is removed here, by its API.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from orca.cluster.api import api_url
from orca.cluster.flow_runs import STATES
from orca.cluster.machine.questions import call_api
from orca.config import Config
from orca.disk import remove, size_bytes
from orca.errors import InfrastructureError
from orca.retention import Swept

ENDED = (*STATES["done"], *STATES["failed"], *STATES["cancelled"])
GRACE = timedelta(hours=3)
"""The server looks every hour: what is older than it should be by this is left to us."""
PAGE = 50
"""Flow runs that the API removes at once, at most."""
PAGES = 40
"""Pages of one sweep: the next one goes on."""
_PATIENCE_S = 60.0
_LOCK = ".dirlock"
_YOUNGEST_S = 60.0
"""A folder this young may not have its lock yet."""


def sweep_dask(scratch: Path, hours: float, *, only_tell: bool = False) -> Swept:
    """Remove what Dask workers that died left in the scratch folder; one that lives holds the lock of its folder.

    Dask does the same when a worker starts in the same place: this is for those that never come back.

    Parameters
    ----------
    scratch : Path
        ``paths.scratch``.
    hours : float
        What was touched within so many hours stays.
    only_tell : bool
    """
    latest = time.time() - max(_YOUNGEST_S, 3600 * hours)
    removed = kept = freed = failed = 0
    for pattern in ("dask/dask-scratch-space*", "dask/*/dask-scratch-space*"):
        for lock in sorted(scratch.glob(f"{pattern}/*{_LOCK}")):
            folder = lock.with_name(lock.name.removesuffix(_LOCK))
            with _dead(lock, latest) as dead:
                if not dead:
                    kept += 1
                    continue
                size = size_bytes(folder)
                if not only_tell:
                    remove(folder)
                    if folder.exists():
                        failed += 1
                        continue
                    lock.unlink(missing_ok=True)
                removed, freed = removed + 1, freed + size
    problem = f"{failed} could not be removed: see the rights of {scratch}" if failed else ""
    return Swept("scratch of Dask", removed, freed, kept + failed, problem)


@contextmanager
def _dead(lock: Path, latest: float) -> Iterator[bool]:
    """Whether nobody holds a lock that is older; it is held meanwhile."""
    try:
        descriptor = os.open(lock, os.O_RDWR)
    except (FileNotFoundError, PermissionError):  # gone, or another user's
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield os.fstat(descriptor).st_mtime <= latest
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


def sweep_prefect(settings: Config, days: float, *, only_tell: bool = False) -> Swept:
    """Remove flow runs that ended before some days, as far as the server did not; one that has not ended stays.

    Raises
    ------
    InfrastructureError
        There is no server, it does not answer, or it refuses.
    """
    before = datetime.now(UTC) - timedelta(days=days)
    server = _Server(settings)
    old, ended = server.count(before), server.count(None)
    if only_tell:
        return Swept("Prefect's flow runs", old, 0, ended - old)
    return Swept("Prefect's flow runs", server.remove(before - GRACE), 0, ended - old)


class _Server:
    def __init__(self, settings: Config) -> None:
        self._url, self._tls = api_url(settings), settings.network.tls

    def count(self, before: datetime | None) -> int:
        """How many flow runs have ended, before a time if one is given."""
        return int(self._ask("flow_runs/count", {"flow_runs": _which(before)}))

    def remove(self, before: datetime) -> int:
        """Remove flow runs that ended before a time, `PAGES` pages at most; returns how many."""
        removed = 0
        for _ in range(PAGES):
            gone = self._ask("flow_runs/bulk_delete", {"flow_runs": _which(before), "limit": PAGE})["deleted"]
            removed += len(gone)
            if gone:
                self._remove_artifacts(gone)
            if len(gone) < PAGE:
                break
        return removed

    def _remove_artifacts(self, runs: list[str]) -> None:
        """The server removes a flow run's task runs and logs, and forgets its artifacts."""
        question = {"artifacts": {"flow_run_id": {"any_": runs}}, "limit": 200}
        for _ in range(PAGES):
            found = self._ask("artifacts/filter", question)
            for each in found:
                self._ask(f"artifacts/{each['id']}", None, "DELETE")
            if len(found) < 200:
                return

    def _ask(self, path: str, question: Any, method: str | None = None) -> Any:
        try:
            return call_api(self._url, path, question, tls=self._tls, method=method, patience_s=_PATIENCE_S)
        except HTTPError as error:
            if error.code == 404 and method == "DELETE":  # somebody else was faster
                return None
            raise InfrastructureError(f"Prefect's server refuses ({error.code})", self._url) from error
        except (OSError, ValueError) as error:
            remedy = "See that it runs: `orca status`"
            raise InfrastructureError(f"Prefect's server does not answer ({error})", self._url, remedy) from error


def _which(before: datetime | None) -> dict[str, Any]:
    ended: dict[str, Any] = {"state": {"type": {"any_": list(ENDED)}}}
    return ended if before is None else {**ended, "end_time": {"before_": before.isoformat()}}
