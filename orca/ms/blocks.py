"""Reading columns of a Measurement Set: a whole one, or in blocks of rows into buffers that are used again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from casacore import tables as ct

from orca.errors import MissingDataError, TruncatedDataError

DTYPES = {
    "bool": np.bool_,
    "boolean": np.bool_,
    "uchar": np.uint8,
    "short": np.int16,
    "int": np.int32,
    "uint": np.uint32,
    "int64": np.int64,
    "float": np.float32,
    "double": np.float64,
    "complex": np.complex64,
    "dcomplex": np.complex128,
}
"""Types of casacore's columns."""
CACHE_BYTES = 32 << 20
_BEYOND_THE_END = re.compile(r"(?:incorrect number of bytes read for file|FiledesIO::write -) (\S+)")
"""What casacore says of a file that ends within a bucket, or before it: then it wants to make one there."""


def open_table(path: Path | str) -> ct.table:
    """Open a table for reading without touching it: no lock is asked for, so its folder may be read-only.

    Raises
    ------
    MissingDataError
        There is no such table.
    TruncatedDataError
        casacore cannot open it.
    """
    if not Path(path, "table.dat").is_file():
        raise MissingDataError("there is no such table", path, "Check the name, or copy the file again.")
    try:
        return ct.table(str(path), ack=False, lockoptions="usernoread")
    except RuntimeError as error:
        raise unreadable(path, error) from error


def cache_small_columns(table: ct.table) -> None:
    """Let casacore keep what it has read of a StandardStMan, up to 32 MB.

    The recorder has all small columns in one StandardStMan, row by row, so that reading any of them reads the whole
    file, and casacore's cache holds two of its 1942 buckets. With this, twenty columns take as long as three.
    """
    for manager in table.getdminfo().values():
        if manager["TYPE"] == "StandardStMan":
            buckets = CACHE_BYTES // max(int(manager["SPEC"]["BUCKETSIZE"]), 1)
            table.setdmprop(manager["NAME"], {"MaxCacheSize": max(buckets, 2)}, False)


def unreadable(path: Path | str, error: Exception) -> TruncatedDataError:
    """What to raise when casacore cannot read a table, with its reason in one line."""
    reason = " ".join(str(error).replace(f"{Path(path).absolute()}/", "").split()) or "no reason given"
    if short_file := _BEYOND_THE_END.search(reason):
        reason = f"its file {Path(short_file[1]).name} ends too early"
    return TruncatedDataError(
        f"cannot be read to its end ({_short(reason)})", path, "Copy or record it again, or leave it out."
    )


def _short(text: str, limit: int = 160) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


def read_column(table: ct.table, name: str, start: int = 0, n: int = -1) -> Any:
    """Read a column, or `n` rows of it, as casacore's `getcol`: an array, or a list of strings.

    Raises
    ------
    TruncatedDataError
        The file ends too early; the error names it.
    """
    try:
        return table.getcol(name, start, n)
    except RuntimeError as error:
        raise unreadable(table.name(), error) from error


def read_cell(table: ct.table, name: str, row: int) -> Any:
    """Read one cell; raises as `read_column`."""
    try:
        return table.getcell(name, row)
    except RuntimeError as error:
        raise unreadable(table.name(), error) from error


def make_buffer(table: ct.table, column: str, rows: int) -> np.ndarray:
    """An empty array for `rows` cells of a column that all have the shape of the first one."""
    dtype = DTYPES[table.coldatatype(column)]
    shape = () if table.isscalarcol(column) else np.shape(read_cell(table, column, 0))
    return np.empty((rows, *shape), dtype)


class Ring:
    """Buffers for blocks of rows, used in turn: by one table, or by several that are read one after the other.

    Parameters
    ----------
    in_flight : int
        How many blocks the caller may hold at the same time.
    rows : int
        Rows in a block; 512 rows of 192 channels are 3 MB of DATA.
    """

    def __init__(self, in_flight: int = 1, rows: int = 512) -> None:
        self.in_flight, self.rows = in_flight, rows
        self._buffers: list[list[np.ndarray]] = []
        self._turn = 0

    def fit(self, table: ct.table, columns: Sequence[str]) -> None:
        """Make room for blocks of a table; what there is stays if its cells are alike."""
        needed = [make_buffer(table, column, min(self.rows, table.nrows())) for column in columns]
        layout = [(buffer.dtype, buffer.shape) for buffer in needed]
        if not self._buffers or [(buffer.dtype, buffer.shape) for buffer in self._buffers[0]] != layout:
            self._buffers = [needed, *([np.empty_like(b) for b in needed] for _ in range(self.in_flight - 1))]

    def next(self) -> list[np.ndarray]:
        """The buffers that were used longest ago."""
        self._turn += 1
        return self._buffers[self._turn % self.in_flight]


def blocks(
    table: ct.table, columns: Sequence[str], rows: int = 512, in_flight: int = 1, ring: Ring | None = None
) -> Iterator[tuple[Any, ...]]:
    """Read columns in blocks of rows.

    Parameters
    ----------
    table : casacore table
    columns : names
        Of numbers or booleans, with cells of equal shape.
    rows : int
        Rows in a block; 512 rows of 192 channels are 3 MB of DATA.
    in_flight : int
        How many blocks the caller may hold at the same time.
    ring : Ring, optional
        Buffers, which then say how many rows and blocks.

    Yields
    ------
    start, n, buffer, ... : int, int, arrays
        First row, number of rows, and for each column an array (n, ...). They are overwritten `in_flight` blocks
        later; the caller may change them.

    Raises
    ------
    TruncatedDataError
        The file ends too early, or its cells change their shape; the error names it.
    """
    n_rows = table.nrows()
    if n_rows == 0:
        return
    ring = ring or Ring(in_flight, rows)
    ring.fit(table, columns)
    for start in range(0, n_rows, ring.rows):
        n = min(ring.rows, n_rows - start)
        parts = [buffer[:n] for buffer in ring.next()]
        try:
            for column, part in zip(columns, parts, strict=True):
                table.getcolnp(column, part, start, n)
        except RuntimeError as error:
            raise unreadable(table.name(), error) from error
        yield start, n, *parts
