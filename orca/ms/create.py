"""A new Measurement Set like another one, its data columns in tiles of 64 rows.

Why 64 rows: writing and reading in the order of rows costs the same as with large tiles (with 32, a tenth more), the
rows of one antenna come several times faster, and tiles of a single row are written five times slower. Creating one
must cost little, since a stage makes one for each integration: scalar columns that never change are one value in an
IncrementalStMan.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from casacore import tables as ct

from orca.errors import InputError, InvalidDataError
from orca.ms.blocks import cache_small_columns, open_table, read_cell, read_column

TILED_COLUMNS = ("DATA", "FLAG")
BULKY_COLUMNS = frozenset(
    {"DATA", "FLAG", "FLAG_CATEGORY", "MODEL_DATA", "CORRECTED_DATA", "WEIGHT_SPECTRUM", "SIGMA_SPECTRUM"}
)
"""Columns that are not copied. FLAG_CATEGORY is made, and stays empty: WSClean refuses an MS without it."""
PER_CORRELATION = ("WEIGHT", "SIGMA")
_EMPTY = {"FLAG": (False, "bool"), "WEIGHT_SPECTRUM": (0.0, "float"), "SIGMA_SPECTRUM": (0.0, "float")}
"""Value and type of data columns that are not complex."""
_BUCKET_BYTES = 1 << 17
_FIXED_DIRECT = 5
"""casacore's ColumnDesc options: fixed shape, stored in the row itself."""
_FIXED = 4


def create_like(
    source: Path,
    destination: Path,
    *,
    n_rows: int | None = None,
    n_channels: int | None = None,
    correlations: Sequence[int] | None = None,
    tile_rows: int = 64,
    columns: Sequence[str] = TILED_COLUMNS,
) -> ct.table:
    """Make a Measurement Set with the antennas, times, baselines and subtables of another one.

    Parameters
    ----------
    source : Path
        The Measurement Set to follow; it is only read.
    destination : Path
        Must not exist. A write to a full disk aborts the process: check the space first.
    n_rows : int, optional
        Number of rows if it is another one. Then columns that are the same in all rows of `source` are filled in all
        of the new rows, and the others are left to the caller.
    n_channels : int, optional
        Number of channels; must divide that of `source`. SPECTRAL_WINDOW is averaged to it.
    correlations : indices, optional
        Which correlations to keep, (0, 3) for XX and YY; POLARIZATION, WEIGHT and SIGMA follow.
    tile_rows : int
        Rows in a tile of the data columns.
    columns : names
        Data columns to make, of complex64; FLAG of bool, WEIGHT_SPECTRUM and SIGMA_SPECTRUM of float32.

    Returns
    -------
    casacore table
        Open for writing. The caller writes the data columns, (n_channels, n_correlations) a row, in the order of rows,
        and closes it.

    Raises
    ------
    DataError
        `source` cannot be read.
    InputError
        `destination` exists, or channels or correlations do not fit.
    """
    if destination.exists():
        raise InputError("exists already", destination, "Give a new name.")
    with open_table(source) as old:
        if old.nrows() == 0:
            raise InvalidDataError("has no rows", source, "Leave it out.")
        shape = np.shape(read_cell(old, "DATA", 0))
        if len(shape) != 2:
            raise InvalidDataError(f"DATA has cells of shape {shape}", source, "Expected are channels x correlations.")
        keep = list(range(shape[1])) if correlations is None else [int(k) for k in correlations]
        channels = shape[0] if n_channels is None else n_channels
        _check_selection(source, shape, channels, keep)
        cache_small_columns(old)
        small = _read_small(old, keep)
        subtables = _subtables(old, source)
        description, managers = _describe(old, small, columns, (channels, len(keep)), tile_rows, subtables)
        rows, info = old.nrows() if n_rows is None else n_rows, old.info()
    new = ct.table(str(destination), tabledesc=description, nrow=1, dminfo=managers, ack=False)
    try:
        _fill(new, small, managers["*1"]["COLUMNS"], rows)
        _copy_subtables(source, destination, new, subtables)
        new.putinfo(info | {"readme": info["readme"].rstrip("\n")})  # casacore adds a line end
        if channels != shape[0]:
            _average_windows(destination, channels)
        if correlations is not None:
            _select_correlations(destination, keep)
    except BaseException:
        new.close()
        shutil.rmtree(destination, ignore_errors=True)
        raise
    return new


def _check_selection(source: Path, shape: tuple[int, ...], channels: int, keep: list[int]) -> None:
    if channels < 1 or shape[0] % channels:
        raise InputError(f"{shape[0]} channels cannot be averaged to {channels}", source, "Give a divisor.")
    if not keep or min(keep) < 0 or max(keep) >= shape[1]:
        raise InputError(f"has correlations 0 to {shape[1] - 1}, not {keep}", source)


def _subtables(old: ct.table, source: Path) -> list[str]:
    names = [k for k, v in old.getkeywords().items() if isinstance(v, str) and v.startswith("Table: ")]
    missing = [name for name in names if not (source / name / "table.dat").is_file()]
    if missing:
        raise InvalidDataError(f"lacks the subtable {missing[0]}", source, "Copy or record it again, or leave it out.")
    return names


def _constant(values: np.ndarray) -> bool:
    return bool((values == values[0]).all())


def _read_small(old: ct.table, keep: list[int]) -> dict[str, np.ndarray]:
    """All columns but the bulky ones; those that have no values (undefined cells) are left out."""
    small = {}
    for name in old.colnames():
        if name not in BULKY_COLUMNS and (old.isscalarcol(name) or old.iscelldefined(name, 0)):
            values = np.asarray(read_column(old, name))
            small[name] = values[:, keep] if name in PER_CORRELATION else values
    return small


def _fill(new: ct.table, small: dict[str, np.ndarray], constant: list[str], rows: int) -> None:
    """Fill the small columns of a table of one row, and give it all its rows.

    Columns of an IncrementalStMan take a new row's value from the row before: so the constant ones come first.
    """
    for name in constant:
        new.putcell(name, 0, small[name][0])
    new.addrows(rows - 1)
    for name in sorted(set(small) - set(constant)):
        values = small[name]
        if rows == len(values):
            new.putcol(name, values)
        elif _constant(values):
            new.putcol(name, np.broadcast_to(values[0], (rows, *values.shape[1:])).copy())


def _describe(
    old: ct.table,
    small: dict[str, np.ndarray],
    columns: Sequence[str],
    cell: tuple[int, int],
    tile_rows: int,
    subtables: list[str],
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Description and data managers of the new table."""
    description = old.getdesc()
    keywords = description.get("_keywords_", {})
    description["_keywords_"] = {k: v for k, v in keywords.items() if k not in subtables}
    description.pop("_define_hypercolumn_", None)
    for name in BULKY_COLUMNS - {"FLAG_CATEGORY", *columns}:
        description.pop(name, None)
    constant = [name for name, values in small.items() if values.ndim == 1 and _constant(values)]
    others = [n for n in description if not n.startswith("_") and n not in {*constant, *columns}]
    for name in set(small) & set(others):
        if small[name].ndim > 1:  # in the row itself: an array file costs a seek for each cell
            fixed = ct.makearrcoldesc(name, 0, shape=list(small[name].shape[1:]), options=_FIXED_DIRECT)["desc"]
            description[name] |= {key: fixed[key] for key in ("ndim", "shape", "option")}
    if "FLAG_CATEGORY" not in description:
        bare = ct.makearrcoldesc("FLAG_CATEGORY", False, ndim=3, keywords={"CATEGORY": []})
        description |= ct.maketabdesc([bare])
        others.append("FLAG_CATEGORY")
    for name in columns:
        empty = _EMPTY.get(name, (0j, "complex"))
        made = ct.makearrcoldesc(name, empty[0], valuetype=empty[1], shape=list(cell), options=_FIXED)
        made["desc"]["keywords"] = old.getcolkeywords(name) if name in old.colnames() else {}
        description |= ct.maketabdesc([made])
    managers = {
        "*1": {"NAME": "Constant", "TYPE": "IncrementalStMan", "SPEC": {}, "COLUMNS": constant},
        "*2": {"NAME": "Rows", "TYPE": "StandardStMan", "SPEC": {"BUCKETSIZE": _BUCKET_BYTES}, "COLUMNS": others},
    }
    tile = {"DEFAULTTILESHAPE": np.array([cell[1], cell[0], tile_rows], np.int32)}
    for i, name in enumerate(columns, 3):
        managers[f"*{i}"] = {"NAME": f"Tiled{name}", "TYPE": "TiledColumnStMan", "SPEC": tile, "COLUMNS": [name]}
    for manager in managers.values():
        for name in manager["COLUMNS"]:
            description[name] |= {"dataManagerType": manager["TYPE"], "dataManagerGroup": manager["NAME"]}
    return description, managers


def _copy_subtables(source: Path, destination: Path, new: ct.table, names: list[str]) -> None:
    target = destination.absolute()
    for name in names:
        shutil.copytree(source / name, target / name, copy_function=shutil.copyfile)
        new.putkeyword(name, f"Table: {target / name}")


def _average_windows(path: Path, channels: int) -> None:
    with ct.table(f"{path}/SPECTRAL_WINDOW", readonly=False, ack=False) as windows:
        for row in range(windows.nrows()):
            frequency = windows.getcell("CHAN_FREQ", row).reshape(channels, -1).mean(1)
            windows.putcell("CHAN_FREQ", row, frequency)
            windows.putcell("NUM_CHAN", row, channels)
            windows.putcell("REF_FREQUENCY", row, float(frequency[channels // 2]))
            for name in ("CHAN_WIDTH", "EFFECTIVE_BW", "RESOLUTION"):
                windows.putcell(name, row, windows.getcell(name, row).reshape(channels, -1).sum(1))


def _select_correlations(path: Path, keep: list[int]) -> None:
    with ct.table(f"{path}/POLARIZATION", readonly=False, ack=False) as polarizations:
        for row in range(polarizations.nrows()):
            polarizations.putcell("CORR_TYPE", row, polarizations.getcell("CORR_TYPE", row)[keep])
            polarizations.putcell("CORR_PRODUCT", row, polarizations.getcell("CORR_PRODUCT", row)[keep])
            polarizations.putcell("NUM_CORR", row, len(keep))
