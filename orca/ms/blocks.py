"""Reading columns of a Measurement Set: a whole one, or in blocks of rows into buffers that are used again."""

from __future__ import annotations

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


def blocks(table: ct.table, columns: Sequence[str], rows: int = 512, in_flight: int = 1) -> Iterator[tuple[Any, ...]]:
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
    buffers = [[make_buffer(table, column, min(rows, n_rows)) for column in columns] for _ in range(in_flight)]
    for turn, start in enumerate(range(0, n_rows, rows)):
        n = min(rows, n_rows - start)
        parts = [buffer[:n] for buffer in buffers[turn % in_flight]]
        try:
            for column, part in zip(columns, parts, strict=True):
                table.getcolnp(column, part, start, n)
        except RuntimeError as error:
            raise unreadable(table.name(), error) from error
        yield start, n, *parts
