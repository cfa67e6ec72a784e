"""Measurement Sets in tars, as the recorder writes them: one MS folder in an uncompressed tar."""

from __future__ import annotations

import errno
import os
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from orca.disk import storage_errors
from orca.errors import (
    InputError,
    InvalidDataError,
    MissingDataError,
    OrcaError,
    StorageError,
    TruncatedDataError,
)
from orca.ms.growth import settled

_BLOCK = 512
_COPY_BYTES = 1 << 20
_RERECORD = "Copy or record it again, or leave it out."


def contents_size(path: Path) -> int:
    """Bytes that the files in a tar take when unpacked; reads the headers only.

    Raises
    ------
    DataError
        As `unpack`.
    """
    with _opened(Path(path)) as archive:
        return sum(member.size for member in _members(archive, Path(path)))


def unpack(path: Path, folder: Path, *, settle_s: float = 5.0) -> Path:
    """Unpack the Measurement Set in a tar.

    Only folders and plain files are written, below `folder` alone: a tar with absolute names, '..', links or devices
    is refused as a whole. Modes and owners in the tar are ignored.

    Parameters
    ----------
    path : Path
        The tar; it is only read.
    folder : Path
        Where to unpack; made if it is not there. What was written is removed when something goes wrong.
    settle_s : float
        A tar that changed within this time is watched for a moment; if it changes, it is still being written.

    Returns
    -------
    Path
        The Measurement Set, a folder in `folder`.

    Raises
    ------
    MissingDataError
        There is no such tar.
    InvalidDataError
        It is not a tar, not exactly one MS is in it, or it is unsafe.
    TruncatedDataError
        It ends too early.
    GrowingDataError
        It is still being written.
    StorageError
        The disk is full, or the folder cannot be written.
    """
    path, folder = Path(path), Path(folder)
    with settled(path, settle_s), _opened(path) as archive:
        members = _members(archive, path)
        name = _only_ms(members, path)
        target = folder / name
        if target.exists():
            raise InputError("exists already", target, "Unpack into another folder.")
        try:
            _extract(archive, members, folder, path)
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise
    return target


def pack(ms: Path) -> Path:
    """Pack a Measurement Set into an uncompressed tar beside it, as the recorder does, and remove the folder.

    Returns
    -------
    Path
        The tar, `<name>.ms.tar`.

    Raises
    ------
    StorageError
        The disk is full, or the folder cannot be written.
    """
    target = ms.with_name(f"{ms.name}.tar")
    with storage_errors(target):
        with tarfile.open(target, "x:") as archive:
            archive.add(ms, ms.name)
        shutil.rmtree(ms)
    return target


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        if not path.is_file() and path.exists():
            raise InvalidDataError("is not a tar", path, "Give a .ms.tar file.")
        if path.stat().st_size < 3 * _BLOCK:  # a header and the end mark
            raise TruncatedDataError("is too short for a tar", path, _RERECORD)
        with tarfile.open(path, "r:") as archive:
            yield archive
    except FileNotFoundError as error:
        raise MissingDataError("there is no such file", error.filename or path, "Check the name.") from error
    except (tarfile.TarError, EOFError) as error:
        raise InvalidDataError(f"is not an uncompressed tar ({error})", path, _RERECORD) from error
    except OSError as error:
        raise StorageError(f"cannot be read ({error.strerror or error})", path, "Check its disk.") from error


def _members(archive: tarfile.TarFile, path: Path) -> list[tarfile.TarInfo]:
    """All members; a tar that ends within one, or without the two empty blocks at its end, is truncated."""
    try:
        members = archive.getmembers()
    except (tarfile.ReadError, EOFError) as error:
        raise TruncatedDataError(f"ends too early or is broken ({error})", path, _RERECORD) from error
    size = path.stat().st_size
    # tarfile takes garbage after the first member for the end: so look for the end mark where the last member ends
    end = max((m.offset_data + -(-m.size // _BLOCK) * _BLOCK for m in members), default=0)
    with path.open("rb") as file:
        file.seek(end)
        mark = file.read(2 * _BLOCK)
    if end > size or len(mark) < 2 * _BLOCK:
        raise TruncatedDataError("ends too early", path, _RERECORD)
    if any(mark):
        raise InvalidDataError(f"is broken after {end} bytes", path, _RERECORD)
    return members


def _only_ms(members: list[tarfile.TarInfo], path: Path) -> str:
    """Name of the MS; all members must be plain and inside it."""
    for member in members:
        parts = PurePosixPath(member.name).parts
        if member.name.startswith("/") or ".." in parts or "\0" in member.name:
            raise InvalidDataError(f"would unpack to '{member.name}', outside of its folder", path, "Do not use it.")
        if not (member.isdir() or member.isreg()):
            raise InvalidDataError(f"holds a link or a device, '{member.name}'", path, "Do not use it.")
    tops = {PurePosixPath(m.name).parts[0] for m in members if PurePosixPath(m.name).parts}
    tables = {m.name for m in members if PurePosixPath(m.name).name == "table.dat" and m.isreg()}
    if len(tops) != 1 or not any(len(PurePosixPath(t).parts) == 2 for t in tables):
        found = ", ".join(sorted(tops)[:3]) or "nothing"
        raise InvalidDataError(f"must hold one Measurement Set, and holds {found}", path, _RERECORD)
    return tops.pop()


def _extract(archive: tarfile.TarFile, members: list[tarfile.TarInfo], folder: Path, path: Path) -> None:
    place = folder
    try:
        for member in members:
            place = folder / PurePosixPath(member.name)
            if member.isdir():
                place.mkdir(parents=True, exist_ok=True)
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            source = archive.extractfile(member)
            if source is None:
                raise InvalidDataError(f"'{member.name}' cannot be read", path, _RERECORD)
            with source, place.open("xb") as target:
                shutil.copyfileobj(source, target, _COPY_BYTES)
                if target.tell() != member.size:
                    raise TruncatedDataError(f"ends within '{member.name}'", path, _RERECORD)
            os.utime(place, (member.mtime, member.mtime))  # so that it counts as old as it is
    except OrcaError:
        raise
    except (tarfile.ReadError, EOFError) as error:
        raise TruncatedDataError(f"ends too early ({error})", path, _RERECORD) from error
    except FileExistsError as error:
        raise InvalidDataError(f"holds '{place.relative_to(folder)}' twice", path, _RERECORD) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                "no space left to unpack into", folder, "Free some space, or use another disk."
            ) from error
        raise StorageError(f"cannot be written ({error.strerror or error})", place, "Check its permissions.") from error
