"""A trash with undo: what is removed is moved, and can be restored."""

from __future__ import annotations

import json
import logging
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orca.disk import make_folder, remove, storage_errors, sync
from orca.errors import InputError, InvalidDataError, MissingDataError, StorageError
from orca.products import write_text

_log = logging.getLogger(__name__)
_SIDECAR = ".trash.json"
_LEAVING = ".leaving"


@dataclass(frozen=True)
class Trashed:
    """A file or folder in the trash: where it lies, where it came from, and since when (UTC, ISO 8601)."""

    path: Path
    original: Path
    since: str


def trash(path: Path, trash_root: Path, beside: Path | None = None) -> Path:
    """Move a file or folder to the trash, where `restore` finds it; nothing is copied.

    It keeps its name, in a folder of its own below `trash_root`, beside a small file that holds its original path.

    Parameters
    ----------
    path, trash_root : Path
    beside : Path, optional
        Where something lies in this trash that it belongs to: they share a folder.

    Returns
    -------
    path
        Where it lies now.

    Raises
    ------
    MissingDataError
        There is no such file.
    StorageError
        The trash is on another file system, or cannot be written.
    """
    path = path.absolute()
    gone = MissingDataError("no such file or folder", path)
    if not os.path.lexists(path):
        raise gone
    make_folder(trash_root)
    if path.lstat().st_dev != trash_root.stat().st_dev:
        raise StorageError(
            "is on another file system than the trash, to which files are moved and never copied",
            path,
            f"Set a trash folder on its file system instead of {trash_root}",
        )
    now = datetime.now(UTC)
    place = trash_root.absolute() / f"{now:%Y%m%dT%H%M%S.%f}-{secrets.token_hex(6)}"
    if beside is not None and not os.path.lexists(beside.with_name(path.name)):
        place = beside.parent
    make_folder(place)
    trashed = place / path.name
    sidecar = _sidecar(trashed)
    try:
        write_text(sidecar, json.dumps({"original": str(path), "since": now.isoformat(timespec="seconds")}) + "\n")
        with storage_errors(path):
            sync(trash_root)
            try:
                path.rename(trashed)
            except FileNotFoundError as error:  # somebody else was faster
                raise gone from error
    finally:
        if not os.path.lexists(trashed):
            remove(sidecar)
            with suppress(OSError):  # something else lies there
                place.rmdir()
    return trashed


def restore(trashed: Path) -> Path:
    """Move a file or folder from the trash back to where it was; return that path.

    Raises
    ------
    MissingDataError, InvalidDataError
        It is not in the trash, or its original path is lost.
    InputError
        Something is there already; nothing is overwritten.
    """
    trashed = trashed.absolute()
    original = _read_sidecar(trashed).original
    if not os.path.lexists(trashed):
        raise MissingDataError("is not in the trash", trashed)
    taken = InputError("exists, and is not overwritten by what comes back from the trash", original, "Move it away")
    if os.path.lexists(original):
        raise taken
    make_folder(original.parent)
    with storage_errors(original):
        if trashed.is_dir() and not trashed.is_symlink():
            trashed.rename(original)  # fails on a folder that is not empty
        else:
            try:
                os.link(trashed, original, follow_symlinks=False)  # unlike rename, fails when there is a file
            except FileExistsError as error:
                raise taken from error
            trashed.unlink()
    _sidecar(trashed).unlink(missing_ok=True)
    with suppress(OSError):
        trashed.parent.rmdir()
    return original


def discard(trashed: Path) -> bool:
    """Remove something in the trash for good; whether it is gone.

    It is renamed first, so that what is half removed never passes for something that can be restored: see `sweep`.
    """
    trashed = trashed.absolute()
    leaving = trashed.with_name(f".{trashed.name}{_LEAVING}")
    try:
        trashed.rename(leaving)
    except FileNotFoundError:  # somebody else was faster
        return True
    except OSError as error:
        _log.warning("%s could not be removed: %s", trashed, error)
        return False
    _sidecar(trashed).unlink(missing_ok=True)
    _remove_with_folder(leaving)
    return not os.path.lexists(leaving)


def sweep(trash_root: Path) -> None:
    """Remove what an interrupted `discard` has left."""
    for leaving in trash_root.glob(f"*/.*{_LEAVING}"):
        _sidecar(leaving.with_name(leaving.name[1:].removesuffix(_LEAVING))).unlink(missing_ok=True)
        _remove_with_folder(leaving)


def _remove_with_folder(path: Path) -> None:
    remove(path)
    with suppress(OSError):  # something else lies there
        path.parent.rmdir()


def trash_folders(trash_root: Path, calibration: Path) -> list[Path]:
    """All places of trash: the common one, and that of calibrations, which may lie on another disk."""
    return list(dict.fromkeys([trash_root, calibration / "trash"]))


def list_trash(trash_root: Path) -> list[Trashed]:
    """Return what lies in the trash, oldest first. An entry whose sidecar is broken is logged and left out."""
    found = []
    for sidecar in sorted(trash_root.glob(f"*/*{_SIDECAR}")):
        path = sidecar.with_name(sidecar.name.removesuffix(_SIDECAR))
        try:
            if os.path.lexists(path):
                found.append(_read_sidecar(path))
        except (MissingDataError, InvalidDataError) as error:
            _log.warning("%s", error)
    return found


def _sidecar(trashed: Path) -> Path:
    return trashed.with_name(trashed.name + _SIDECAR)


def _read_sidecar(trashed: Path) -> Trashed:
    sidecar = _sidecar(trashed)
    try:
        content = json.loads(sidecar.read_text())
        since = datetime.fromisoformat(content["since"]).astimezone(UTC)
        return Trashed(trashed, Path(content["original"]), since.isoformat(timespec="seconds"))
    except FileNotFoundError as error:
        raise MissingDataError("is not in the trash", trashed) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidDataError("does not tell where the file came from", sidecar, "Move it by hand") from error
