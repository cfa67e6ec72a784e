"""What is kept too long on disk, and removing it: trash, scratch of the dead, logs, what is kept of failures.

Each function looks at one kind of things, and says what it removed, or, when it is only to tell, would have removed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from orca import scratch, trash
from orca.disk import remove, size_bytes, storage_errors
from orca.procfs import open_files

SECONDS_OF_DAY = 86400.0


@dataclass(frozen=True)
class Swept:
    """What became of one kind of things.

    Attributes
    ----------
    what : str
    removed : int
        How many; of those that would be, where it is only told.
    freed_bytes : int
        What they took on disk.
    kept : int
        Those that are too young, or in use.
    problem : str
        What could not be removed, and why.
    """

    what: str
    removed: int = 0
    freed_bytes: int = 0
    kept: int = 0
    problem: str = ""


def sweep_trash(folders: Iterable[Path], days: float, *, only_tell: bool = False) -> Swept:
    """Remove for good what is in the trash for longer than some days, and what interrupted removals left."""
    before = datetime.now(UTC) - timedelta(days=days)
    removed = kept = freed = failed = 0
    for folder in folders:
        if not only_tell:
            trash.sweep(folder)
        for entry in trash.list_trash(folder):
            if datetime.fromisoformat(entry.since) >= before:
                kept += 1
                continue
            size = size_bytes(entry.path)
            if only_tell or trash.discard(entry.path):
                removed, freed = removed + 1, freed + size
            else:
                failed += 1
    problem = f"{failed} could not be removed: see the rights of the trash" if failed else ""
    return Swept("trash", removed, freed, kept + failed, problem)


def sweep_scratch(folder: Path, hours: float, *, only_tell: bool = False) -> Swept:
    """Remove scratch of processes that died on this machine, and was not touched for some hours."""
    sizes = {path: size_bytes(path) for path, _ in scratch.leftovers(folder, 3600 * hours) if _ours(path)}
    gone = list(sizes) if only_tell else [path for path in scratch.sweep(folder, 3600 * hours) if path in sizes]
    there = (
        [path for path in folder.glob("orca-*") if scratch.owner_of(path.name) and _ours(path)]
        if folder.is_dir()
        else []
    )
    kept = len(set(there) - set(gone))
    failed = len(sizes) - len(gone)
    problem = f"{failed} could not be removed: see the rights of {folder}" if failed else ""
    return Swept("scratch", len(gone), sum(sizes[path] for path in gone), kept, problem)


def log_files(run: Path, prefect_home: Path, temporary: Path) -> list[Path]:
    """ORCA's own log files that stay when what wrote them is gone.

    Parameters
    ----------
    run : Path
        Of `orca up`.
    prefect_home : Path
        Of Prefect's server: its own log, and those of flow runs whose record was lost.
    temporary : Path
        Where unexpected errors of commands are told in full.
    """
    found = [*run.glob("logs/*.log*"), *run.glob("supervisord.log*"), *run.glob("rabbitmq/log/*")]
    found += prefect_home.glob("server.log")
    ended = [*prefect_home.glob("runs/*/*.log"), *prefect_home.glob("runs/*/*.exit")]
    found += [path for path in ended if not path.with_name(f"{path.name.partition('.')[0]}.json").exists()]
    return [*found, *filter(_ours, temporary.glob("orca-traceback-*.txt"))]


def _ours(path: Path) -> bool:
    """Whether it belongs to this user: others remove what is theirs."""
    try:
        return path.lstat().st_uid == os.getuid()
    except FileNotFoundError:
        return False


def sweep_logs(files: Iterable[Path], days: float, *, only_tell: bool = False) -> Swept:
    """Remove log files that were not written to for some days, and that no process has open."""
    latest, opened = time.time() - SECONDS_OF_DAY * days, open_files()
    old, kept = [], 0
    for path in files:
        try:
            young = path.stat().st_mtime > latest
        except FileNotFoundError:  # gone meanwhile
            continue
        if path.is_file() and not young and str(path.resolve()) not in opened:
            old.append(path)
        else:
            kept += 1
    return _removed("logs", old, kept, only_tell=only_tell)


def sweep_failures(folder: Path, days: float, *, only_tell: bool = False) -> Swept:
    """Remove the folders of days (UTC, 2026-01-10) that are older than some days; nothing else."""
    if not folder.is_dir():
        return Swept("failures")
    first = (datetime.now(UTC) - timedelta(days=days)).date()
    with storage_errors(folder):
        found = {path: _day(path.name) for path in sorted(folder.iterdir()) if path.is_dir() and not path.is_symlink()}
    old = [path for path, day in found.items() if day is not None and day < first]
    return _removed("failures", old, len(found) - len(old), only_tell=only_tell)


def _day(name: str) -> date | None:
    try:
        return datetime.strptime(name, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        return None


def _removed(what: str, old: Iterable[Path], kept: int, *, only_tell: bool) -> Swept:
    removed = freed = failed = 0
    for path in old:
        size = size_bytes(path)
        if not only_tell:
            remove(path)
        if only_tell or not path.exists():
            removed, freed = removed + 1, freed + size
        else:
            failed += 1
    problem = f"{failed} could not be removed: see their rights" if failed else ""
    return Swept(what, removed, freed, kept + failed, problem)
