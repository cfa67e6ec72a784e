"""The antennas of a recording, read without looking at anything else in it."""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from casacore import tables as ct

from orca.errors import InvalidDataError

_SUBTABLE = "ANTENNA"


def antenna_names(source: Path) -> tuple[str, ...]:
    """Names of the antennas of a Measurement Set, or of one in a tar, by correlator number.

    Of a tar only this subtable is unpacked, into a temporary folder.

    Raises
    ------
    InvalidDataError
        They cannot be read.
    """
    try:
        if source.suffix != ".tar":
            return _names(source / _SUBTABLE)
        with tempfile.TemporaryDirectory(prefix="orca-antennas-") as folder, tarfile.open(source, "r:") as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                if member.isreg() and path.parent.name == _SUBTABLE:
                    member.name = path.name
                    archive.extract(member, folder, filter="data")
            return _names(Path(folder))
    except (OSError, RuntimeError, tarfile.TarError, EOFError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InvalidDataError(f"its antennas cannot be read: {reason}", source) from error


def _names(subtable: Path) -> tuple[str, ...]:
    with ct.table(str(subtable), ack=False, lockoptions="usernoread") as antennas:
        return tuple(antennas.getcol("NAME"))
