"""Folders of the configuration: can be written, with room, on a fitting file system, and fast enough for scratch."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from orca.cluster.doctor.finding import Check, Finding
from orca.cluster.doctor.site import Examined
from orca.config import Config
from orca.disk import free_bytes, nearest_folder, not_writable, readable

SECTION = "disks"
NETWORK = ("nfs", "nfs4", "lustre", "cifs", "smb3", "fuse.sshfs", "beegfs", "ceph", "gpfs", "glusterfs", "9p")
MEMORY = ("tmpfs", "ramfs")
SAMPLE_BYTES = 64 * 1024**2
SHORT_BYTES = 4 * 1024**2
"""Less says nothing about a disk."""
CHUNK_BYTES = 4 * 1024**2
WRITE_S = 4.0
"""No longer is written; then comes the fsync."""
SLOW_MB_S, FAST_MB_S = 50, 200
"""The telescope records 650 MB/s, of which each of eleven nodes has 60 MB/s to write, and to read again."""
FEW_INODES = 0.02


def checks(site: Examined) -> list[Check]:
    """One for each folder, so that one on a dead network drive holds up itself alone."""
    settings = site.settings
    if settings is None:
        return []
    folders = {
        key: value for key, value in settings.items().items() if isinstance(value, Path) and key != "network.tls"
    }
    found = [Check(SECTION, key, partial(_folder, site, key, folder)) for key, folder in folders.items()]
    speed = Check(
        SECTION, "speed of scratch", lambda: _speed(settings.paths.scratch, settings.limits.scratch_reserve_gb)
    )
    return [*found, speed, Check(SECTION, "trash", lambda: _trash(settings))]


def _folder(site: Examined, key: str, folder: Path) -> Iterator[Finding]:
    nearest = nearest_folder(folder)
    other = f"mkdir -p {folder}, as somebody who may; or set {key} to another"
    if not nearest.is_dir():
        remedy = f"Move {nearest} away, or set {key} to another"
        yield Finding(SECTION, key, "error", f"{folder}: {nearest} is not a folder", remedy)
        return
    if key == "paths.raw" and folder.is_dir():  # which the recorder writes, and we need not
        if not os.access(folder, os.R_OK | os.X_OK):
            yield Finding(SECTION, key, "error", f"{folder} cannot be read", f"chmod +rx {folder}, as its owner")
            return
    elif reason := not_writable(nearest):
        yield Finding(SECTION, key, "error", f"{folder}: {nearest} cannot be written: {reason}", other)
        return
    kind = file_system(nearest)
    made = "" if folder == nearest else " can be made"
    seen = f"{folder}{made}, {readable(free_bytes(nearest))} free, {kind}"
    wrong = list(_unfit(key, folder, kind)) + list(_short(site, key, nearest))
    if not wrong:
        yield Finding(SECTION, key, "ok", seen)
    for finding in wrong:
        yield Finding(SECTION, key, finding.level, f"{seen}: {finding.seen}", finding.remedy)


def _unfit(key: str, folder: Path, kind: str) -> Iterator[Finding]:
    """Kinds of file systems that do not suit."""
    if kind in NETWORK and key == "paths.scratch":
        yield Finding(SECTION, key, "warning", "scratch on a network drive is slow", f"Set {key} to a local disk")
    if kind in NETWORK and key == "paths.spool":
        seen = "others share this disk, and locks may not work"
        yield Finding(SECTION, key, "warning", seen, f"Set {key} to a local disk")
    if kind in MEMORY:
        level = "note" if key in ("paths.scratch", "cache.uri") else "warning"
        seen = "it is in memory, which is lost with the machine's power and taken from its tasks"
        yield Finding(SECTION, key, level, seen, f"Set {key} to a folder on a disk")  # type: ignore[arg-type]


def _short(site: Examined, key: str, nearest: Path) -> Iterator[Finding]:
    """Too little room."""
    settings, free_gb = site.settings, free_bytes(nearest) / 1e9
    if settings is None:
        return
    reserve = settings.limits.scratch_reserve_gb
    if key == "paths.scratch" and free_gb < reserve:
        seen = f"limits.scratch_reserve_gb is {reserve:g}, so no task starts"
        yield Finding(SECTION, key, "error", seen, "Free some space, or set paths.scratch to another disk")
    elif key == "paths.scratch" and site.pools is not None:
        wanted = max(pool.scratch_gb for pool in site.pools.pools.values())
        if free_gb < site.pools.limits.free_scratch_gb:
            least = site.pools.limits.free_scratch_gb
            seen = f"limits.free_scratch_gb of {site.pools.path} is {least:g}: the node takes no task"
            yield Finding(SECTION, key, "error", seen, "Free some space, or set paths.scratch to another disk")
        elif free_gb < wanted:
            seen = f"a task may need {wanted:g} GB (scratch_gb of {site.pools.path})"
            yield Finding(SECTION, key, "warning", seen, "Free some space, or set paths.scratch to another disk")
    elif key != "paths.raw" and free_gb < 1:
        yield Finding(SECTION, key, "warning", "nearly full", "orca trash ls; orca trash empty; or another disk")
    state = os.statvfs(nearest)
    if state.f_files and state.f_favail < FEW_INODES * state.f_files:
        seen = f"{state.f_favail} files more can be made, then it is full whatever space there is"
        yield Finding(SECTION, key, "warning", seen, f"Remove small files there: df -i {nearest}")


def file_system(path: Path) -> str:
    """Kind of the file system that a folder is on, as the kernel calls it."""
    device = path.stat().st_dev
    kinds = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():  # see proc(5)
        before, _, behind = line.partition(" - ")
        kinds[before.split()[2]] = behind.split()[0]
    return kinds.get(f"{os.major(device)}:{os.minor(device)}", "unknown file system")


def _speed(scratch: Path, reserve_gb: float) -> Iterator[Finding]:
    nearest, name = nearest_folder(scratch), "speed of scratch"
    if not nearest.is_dir() or not_writable(nearest):  # which another check says
        return
    size = sample_bytes(free_bytes(nearest) - round(reserve_gb * 1e9))
    if size < SHORT_BYTES:
        yield Finding(SECTION, name, "note", "not measured: that would take of the room that is to stay free")
        return
    written, seconds = write(nearest, size)
    rate = written / 1e6 / max(seconds, 1e-3)
    seen = f"{rate:.0f} MB/s with fsync, of {readable(written)} in {seconds:.2g} s"
    if rate < SLOW_MB_S:
        remedy = (
            f"See what else writes there (iostat -x 1), or set paths.scratch to a faster disk than that of {nearest}"
        )
        yield Finding(SECTION, name, "warning", f"{seen}: slow", remedy)
    else:
        yield Finding(SECTION, name, "ok" if rate >= FAST_MB_S else "note", seen)


def sample_bytes(spare: int) -> int:
    """How much is written where so much may be taken: a tenth of it at most."""
    return max(0, min(SAMPLE_BYTES, spare // 10))


def write(folder: Path, size: int) -> tuple[int, float]:
    """Bytes that were written to a nameless file and synced, and the seconds that took."""
    chunk = os.urandom(CHUNK_BYTES)  # what a file system can compress says nothing
    written, began = 0, time.monotonic()
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        while written < size and time.monotonic() - began < WRITE_S:
            written += file.write(chunk[: size - written])
        os.fsync(file.fileno())
    return written, time.monotonic() - began


def _trash(settings: Config) -> Iterator[Finding]:
    """What is removed is renamed into the trash, which only works on one file system."""
    trash = nearest_folder(settings.paths.trash).stat().st_dev
    wrong = False
    for key in ("raw", "cosmology"):
        if nearest_folder(getattr(settings.paths, key)).stat().st_dev != trash:
            wrong = True
            seen = (
                f"{settings.paths.trash} is on another file system than paths.{key}: nothing can be moved there from it"
            )
            remedy = f"Set paths.trash to a folder on the file system of {getattr(settings.paths, key)}"
            yield Finding(SECTION, "trash", "warning", seen, remedy)
    if not wrong:
        yield Finding(SECTION, "trash", "ok", f"{settings.paths.trash}, on the file system of raw and cosmology")
