"""One averaged integration on disk: how it is written, taken back, and read back.

A full disk makes casacore abort the process: call these in a child (`orca.isolation`).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from casacore import tables as ct

from orca.averaging import average_block
from orca.disk import remove
from orca.errors import InvalidDataError
from orca.ms.archive import pack, unpack
from orca.ms.blocks import blocks, open_table
from orca.ms.create import create_like
from orca.ms.members import Member


@dataclass(frozen=True)
class Reduced:
    """One integration that was reduced.

    Attributes
    ----------
    source : Path
    averaged, flagmeta : Path
        As written: the Measurement Set or a tar of it, and its flags at full resolution.
    level : float
        Median amplitude of XX and YY of cross correlations, as recorded.
    zero_share, flagged_share : float
        Of the samples at full resolution.
    checksums : dict of int by name
        CRC-32 of DATA, FLAG and the flags at full resolution, as they were when they were written.
    """

    source: Path
    averaged: Path
    flagmeta: Path
    level: float
    zero_share: float
    flagged_share: float
    checksums: dict[str, int]


class Averaged:
    """A member's averaged Measurement Set and its flags at full resolution, while they are written.

    Parameters
    ----------
    member : Member
    factor : int
        Channels that become one.
    """

    def __init__(self, member: Member, factor: int) -> None:
        self._member, self._factor = member, factor
        self._stack = ExitStack()
        self._table: ct.table
        self._flags: BinaryIO
        self._weight: np.ndarray

    def __enter__(self) -> Averaged:
        info = self._member.info
        new = create_like(info.path, self._member.averaged, n_channels=info.n_channels // self._factor)
        self._table = self._stack.enter_context(new)
        self._flags = self._stack.enter_context(self._member.flagmeta.open("wb"))
        self._weight = self._table.getcol("WEIGHT")
        return self

    def __exit__(self, *exc: Any) -> None:
        if exc[0] is None:
            self._table.putcol("WEIGHT", self._weight)
            with np.errstate(divide="ignore"):
                sigma = np.where(self._weight > 0, 1 / np.sqrt(self._weight), 0)
            self._table.putcol("SIGMA", sigma.astype(np.float32))
        self._stack.close()

    def write(self, start: int, data: np.ndarray, flag: np.ndarray) -> None:
        """Average and write some rows; (n_rows, n_channels, n_correlations)."""
        mean, empty, weight = average_block(data, flag, self._factor)
        packed = np.packbits(flag)
        self._weight[start : start + len(data)] *= weight
        self._table.putcol("DATA", mean, start, len(mean))
        self._table.putcol("FLAG", empty, start, len(mean))
        self._flags.write(packed.tobytes())
        self._member.flagged += int(np.count_nonzero(flag))
        for name, array in (("DATA", mean), ("FLAG", empty), ("flagmeta", packed)):
            self._member.count(name, array)


def finish(member: Member, tar: bool, samples: int) -> Reduced:
    """What was written of a member, packed if so wished.

    Parameters
    ----------
    member : Member
    tar : bool
    samples : int
        At full resolution.
    """
    return Reduced(
        source=member.source,
        averaged=pack(member.averaged) if tar else member.averaged,
        flagmeta=member.flagmeta,
        level=member.level,
        zero_share=member.zeros / samples,
        flagged_share=member.flagged / samples,
        checksums=member.checksums,
    )


def discard(member: Member) -> None:
    """Remove what was written of a member."""
    for path in (member.averaged, member.flagmeta):
        remove(path)


def check_reduced(checksums: Mapping[str, int], averaged: Path, flagmeta: Path, scratch: Path) -> None:
    """Read a product back, and compare it with what was written.

    Parameters
    ----------
    checksums : dict of int by name
        `Reduced.checksums`.
    averaged, flagmeta : Path
        Where they were published.
    scratch : Path
        Takes what has to be unpacked.

    Raises
    ------
    DataError
        They differ, or cannot be read.
    """
    found = {"flagmeta": zlib.crc32(flagmeta.read_bytes()) if flagmeta.is_file() else -1, "DATA": 0, "FLAG": 0}
    ms = averaged
    if averaged.suffix == ".tar":
        ms = unpack(averaged, scratch / f"{averaged.name}.read-back", settle_s=0)
    with open_table(ms) as table:
        for _, _, data, flag in blocks(table, ("DATA", "FLAG"), rows=512):
            found["DATA"] = zlib.crc32(data, found["DATA"])
            found["FLAG"] = zlib.crc32(flag, found["FLAG"])
    wrong = [name for name, value in checksums.items() if found[name] != value]
    if wrong:
        what = " and ".join(wrong)
        raise InvalidDataError(f"{what} differ from what was written", averaged, "Reduce it again.")
