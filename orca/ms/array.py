"""Antennas and channels of a recording, read without looking at anything else in it."""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

from casacore import tables as ct

from orca.errors import InvalidDataError


def antenna_names(source: Path) -> tuple[str, ...]:
    """Names of the antennas of a Measurement Set, or of one in a tar, by correlator number.

    Raises
    ------
    InvalidDataError
        They cannot be read.
    """
    return tuple(_column(source, "ANTENNA", "NAME"))


def channel_count(source: Path) -> int:
    """Number of channels of a Measurement Set, or of one in a tar.

    Raises
    ------
    InvalidDataError
        It cannot be read.
    """
    return int(_column(source, "SPECTRAL_WINDOW", "NUM_CHAN")[0])


def _column(source: Path, subtable: str, column: str) -> Any:
    """A column of a subtable; of a tar only this subtable is unpacked, into a temporary folder."""
    try:
        if source.suffix != ".tar":
            return _read(source / subtable, column)
        with tempfile.TemporaryDirectory(prefix="orca-array-") as folder, tarfile.open(source, "r:") as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                if member.isreg() and path.parent.name == subtable:
                    member.name = path.name
                    archive.extract(member, folder, filter="data")
            return _read(Path(folder), column)
    except (OSError, RuntimeError, IndexError, tarfile.TarError, EOFError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InvalidDataError(f"its subtable {subtable} cannot be read: {reason}", source) from error


def _read(subtable: Path, column: str) -> Any:
    with ct.table(str(subtable), ack=False, lockoptions="usernoread") as table:
        return table.getcol(column)
