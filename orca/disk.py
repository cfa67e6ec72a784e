"""Files and folders on disks that may be full, read-only or shared: errors that say so, and nothing else."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from orca.errors import StorageError

_log = logging.getLogger(__name__)


@contextmanager
def storage_errors(path: Path, need_bytes: int | None = None) -> Iterator[None]:
    """Turn what the operating system says about a disk into a StorageError."""
    try:
        yield
    except OSError as error:
        # copytree gathers errors as text, without a number
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error):
            sizes = "" if need_bytes is None else f": {readable(need_bytes)} needed"
            problem = f"no space left{sizes}, {readable(free_bytes(path))} free"
            raise StorageError(problem, path, "Free some space and run again") from error
        problem = f"cannot be written ({error.strerror or error})"
        raise StorageError(problem, path, "Choose another folder, or change its permissions") from error


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, unless it is there; see that it can be written.

    Raises
    ------
    StorageError
        It cannot.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError("folder cannot be written", folder, "Choose another folder, or change its permissions")


def remove(path: Path) -> None:
    """Remove a file or a folder; others may be removing it, too. What cannot be removed is logged."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, onerror=_unless_vanished)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("%s could not be removed: %s", path, error)


def _unless_vanished(_function: Callable[..., Any], _path: str, info: tuple[Any, BaseException, Any]) -> None:
    if not isinstance(info[1], FileNotFoundError):
        raise info[1]


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, written to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot sync folders
            raise
    finally:
        os.close(descriptor)


def free_bytes(folder: Path) -> int:
    """Free space for this user; `folder` itself need not exist yet."""
    for path in (folder.absolute(), *folder.absolute().parents):
        with suppress(FileNotFoundError, NotADirectoryError):
            state = os.statvfs(path)
            return state.f_bavail * state.f_frsize
    return 0


def size_bytes(path: Path) -> int:
    """What a file, or all of a folder, takes on its disk; what vanishes or cannot be read counts nothing."""
    total = 0
    with suppress(OSError):
        total += path.lstat().st_blocks * 512
        if path.is_dir() and not path.is_symlink():
            for folder, folders, files in os.walk(path):
                for name in (*folders, *files):
                    with suppress(OSError):
                        total += os.lstat(os.path.join(folder, name)).st_blocks * 512  # noqa: PTH118 - thousands
    return total


def nearest_folder(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there (which may be a file)."""
    return next(path for path in (folder, *folder.parents) if os.access(path, os.F_OK))


def not_writable(folder: Path) -> str | None:
    """Return why nothing can be made in a folder: by trying, since rights tell nothing about a network's disks."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return (error.strerror or "error").lower()


def readable(n_bytes: float) -> str:
    """A size in decimal units, such as ``1.5 GB``."""
    for unit in ("bytes", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.4g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.4g} GB"
