"""What must be true of a Measurement Set before it is worked on, one check after the other, the cheap ones first."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from casacore import tables as ct

from orca import telescope
from orca.errors import DataError, InvalidDataError, TruncatedDataError
from orca.ms.blocks import cache_small_columns, open_table, read_cell, read_column, unreadable
from orca.ms.info import MsInfo

SUBTABLES = (
    "ANTENNA", "DATA_DESCRIPTION", "FEED", "FIELD", "FLAG_CMD", "HISTORY", "OBSERVATION", "POINTING", "POLARIZATION",
    "PROCESSOR", "SPECTRAL_WINDOW", "STATE",
)  # fmt: skip
"""Those without which casacore, and so WSClean, does not take a folder for a Measurement Set."""
COLUMNS = (
    "ANTENNA1", "ANTENNA2", "DATA", "DATA_DESC_ID", "FIELD_ID", "FLAG", "INTERVAL", "TIME", "TIME_CENTROID", "UVW",
    "WEIGHT", "SIGMA",
)  # fmt: skip
SAMPLED_ROWS = 64
MAX_NONFINITE_SHARE = 0.1
_RERECORD = "Copy or record it again, or leave it out."
_BROKEN = (RuntimeError, MemoryError, ValueError, OverflowError, IndexError)
"""What python-casacore makes of the exceptions of casacore and of the C++ library."""


def check(path: Path) -> MsInfo:
    """Make all checks that need no clock; see `orca.ms.inspect.inspect`.

    Raises
    ------
    InvalidDataError, TruncatedDataError
        For the first thing that is wrong.
    """
    _check_folder(path)
    try:
        with open_table(path) as table:
            _check_kind(table, path)
            _check_subtables(table, path)
            cache_small_columns(table)
            return _read(table, path)
    except DataError:
        raise
    except _BROKEN as error:
        raise unreadable(path, error) from error


def _check_folder(path: Path) -> None:
    if not path.is_dir():
        remedy = "Unpack it first." if path.name.endswith(".tar") else "Give the folder of a Measurement Set."
        raise InvalidDataError("is a file, not a Measurement Set", path, remedy)
    if not (path / "table.dat").is_file():
        what = "an empty folder" if not any(path.iterdir()) else "a folder without a casacore table (table.dat)"
        raise InvalidDataError(f"is {what}", path, "Give the folder of a Measurement Set.")
    for part in (path, *(path / name for name in SUBTABLES)):
        file = part / "table.dat"
        if file.is_file() and file.stat().st_size == 0:
            raise TruncatedDataError(f"{file.relative_to(path)} is empty", path, _RERECORD)


def _check_kind(table: ct.table, path: Path) -> None:
    names, keywords = set(table.colnames()), set(table.keywordnames())
    if "MS_VERSION" not in keywords:
        kind = "a calibration table" if "VisCal" in keywords else "another casacore table"
        raise InvalidDataError(f"is {kind}, not a Measurement Set", path, "Give the folder of a Measurement Set.")
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        plural = "s" if len(missing) > 1 else ""
        raise InvalidDataError(f"lacks the column{plural} {', '.join(missing)}", path, _RERECORD)
    if table.nrows() == 0:
        raise InvalidDataError("has no rows", path, "Leave it out.")


def _check_subtables(table: ct.table, path: Path) -> None:
    named = set(table.keywordnames())
    missing = [name for name in SUBTABLES if name not in named or not (path / name / "table.dat").is_file()]
    if missing:
        plural = "s" if len(missing) > 1 else ""
        raise InvalidDataError(f"lacks the subtable{plural} {', '.join(missing)}", path, _RERECORD)


def _read(table: ct.table, path: Path) -> MsInfo:
    names, positions = _antennas(path)
    first, second = read_column(table, "ANTENNA1"), read_column(table, "ANTENNA2")
    _check_antennas(path, first, second, len(names))
    start, centroid = read_column(table, "TIME"), read_column(table, "TIME_CENTROID")
    interval = read_column(table, "INTERVAL")
    if not (np.isfinite(start).all() and np.isfinite(centroid).all() and np.isfinite(interval).all()):
        raise InvalidDataError("has times that are not finite", path, _RERECORD)
    if interval.min() <= 0:
        raise InvalidDataError("has integrations without length (INTERVAL)", path, _RERECORD)
    if not np.isfinite(read_column(table, "UVW")).all():
        raise InvalidDataError("has UVW that are not finite", path, _RERECORD)
    times = np.unique(centroid)
    _check_baselines(path, first, second, centroid, times, len(names))
    window, polarization = _data_description(table, path)
    frequency, width = _window(path, window)
    receptors = _polarization(path, polarization)
    shape = (frequency.size, len(receptors))
    _check_size(table, path, shape)
    _check_cells(table, path, shape)
    zero_share, nonfinite_share = _sample(table, first, second)
    if nonfinite_share > MAX_NONFINITE_SHARE:
        raise InvalidDataError(f"{nonfinite_share:.0%} of the visibilities are not finite", path, _RERECORD)
    band = telescope.subband_of(frequency)
    fill_level = table.getkeyword("FILL_LEVEL_0") if "FILL_LEVEL_0" in table.keywordnames() else None
    return MsInfo(
        path=path,
        n_rows=table.nrows(),
        n_antennas=len(names),
        n_channels=shape[0],
        n_correlations=shape[1],
        antenna_names=names,
        positions_m=positions,
        freq_hz=frequency,
        channel_width_hz=width,
        receptors=receptors,
        subband=None if band is None else band.name,
        time_s=times,
        start_s=float(start.min()),
        interval_s=float(np.median(interval)),
        phase_centre_rad=_phase_centre(table, path),
        fill_level=None if fill_level is None else float(fill_level),
        zero_share=zero_share,
        nonfinite_share=nonfinite_share,
        columns=tuple(table.colnames()),
    )


def _antennas(path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    with open_table(path / "ANTENNA") as antennas:
        if antennas.nrows() == 0:
            raise _no_row(path, "ANTENNA", 0)
        names, positions = tuple(read_column(antennas, "NAME")), np.asarray(read_column(antennas, "POSITION"))
    if not np.isfinite(positions).all():
        raise InvalidDataError("has antennas whose positions are not finite", path, _RERECORD)
    return names, positions


def _check_antennas(path: Path, first: np.ndarray, second: np.ndarray, n_antennas: int) -> None:
    low, high = min(first.min(), second.min()), max(first.max(), second.max())
    if low < 0 or high >= n_antennas:
        number = low if low < 0 else high
        raise InvalidDataError(f"has rows of antenna {number}, but lists {n_antennas} antennas", path, _RERECORD)


def _check_baselines(
    path: Path, first: np.ndarray, second: np.ndarray, centroid: np.ndarray, times: np.ndarray, n_antennas: int
) -> None:
    """Every integration must have every baseline of the antennas in use once, with or without autocorrelations."""
    counts = np.bincount(first.astype(np.int64) * n_antennas + second, minlength=n_antennas**2)
    used = counts[counts > 0]
    m = len(np.union1d(first, second))
    per_time = np.bincount(np.searchsorted(times, centroid))
    complete = used.size in (m * (m + 1) // 2, m * (m - 1) // 2)
    if not complete or (used != times.size).any() or (per_time != used.size).any():
        expected = f"{times.size} integration{'s' if times.size > 1 else ''} of {m} antennas"
        raise InvalidDataError(f"has {first.size} rows, which are not {expected}", path, _RERECORD)


def _data_description(table: ct.table, path: Path) -> tuple[int, int]:
    """Rows of SPECTRAL_WINDOW and POLARIZATION, of which there must be one each."""
    used = np.unique(read_column(table, "DATA_DESC_ID"))
    with open_table(path / "DATA_DESCRIPTION") as descriptions:
        if used.size > 1:
            raise InvalidDataError(f"has {used.size} spectral windows", path, "Split it: one is expected.")
        if not 0 <= used[0] < descriptions.nrows():
            raise _no_row(path, "DATA_DESCRIPTION", int(used[0]))
        row = int(used[0])
        return tuple(int(read_cell(descriptions, name, row)) for name in ("SPECTRAL_WINDOW_ID", "POLARIZATION_ID"))  # type: ignore[return-value]


def _no_row(path: Path, name: str, row: int) -> InvalidDataError:
    remedy = "Copy it again with its table.lock files (they hold the number of rows), or leave it out."
    return InvalidDataError(f"lacks row {row} of {name}", path, remedy)


def _row_of(subtable: ct.table, path: Path, row: int) -> int:
    if not 0 <= row < subtable.nrows():
        raise _no_row(path, Path(subtable.name()).name, row)
    return row


def _window(path: Path, row: int) -> tuple[np.ndarray, float]:
    with open_table(path / "SPECTRAL_WINDOW") as windows:
        row = _row_of(windows, path, row)
        frequency = np.asarray(read_cell(windows, "CHAN_FREQ", row), float)
        width = np.abs(np.asarray(read_cell(windows, "CHAN_WIDTH", row), float))
        number = int(read_cell(windows, "NUM_CHAN", row))
    if frequency.ndim != 1 or not frequency.size == width.size == number:
        raise InvalidDataError(f"lists {frequency.size} frequencies for {number} channels", path, _RERECORD)
    if not (np.isfinite(frequency).all() and np.isfinite(width).all() and (frequency > 0).all() and (width > 0).all()):
        raise InvalidDataError("has frequencies that are not positive numbers", path, _RERECORD)
    if (np.diff(frequency) <= 0).any():
        raise InvalidDataError("has frequencies that do not increase", path, _RERECORD)
    return frequency, float(width[0])


def _polarization(path: Path, row: int) -> np.ndarray:
    with open_table(path / "POLARIZATION") as polarizations:
        row = _row_of(polarizations, path, row)
        receptors = np.asarray(read_cell(polarizations, "CORR_PRODUCT", row))
        number = int(read_cell(polarizations, "NUM_CORR", row))
    if receptors.shape != (number, 2):
        raise InvalidDataError(f"lists {len(receptors)} products for {number} correlations", path, _RERECORD)
    return receptors


def _phase_centre(table: ct.table, path: Path) -> tuple[float, float]:
    field = int(read_cell(table, "FIELD_ID", 0))
    with open_table(path / "FIELD") as fields:
        direction = np.asarray(read_cell(fields, "PHASE_DIR", _row_of(fields, path, field)), float).reshape(-1)
    if direction.size < 2 or not np.isfinite(direction[:2]).all():
        raise InvalidDataError("has no phase centre", path, _RERECORD)
    return float(direction[0]), float(direction[1])


def _check_size(table: ct.table, path: Path, shape: tuple[int, int]) -> None:
    """The files are long enough for DATA, as far as its storage manager does not compress."""
    manager = next(m for m in table.getdminfo().values() if "DATA" in m["COLUMNS"])
    if manager["TYPE"] == "StandardStMan" or manager["TYPE"].startswith("Tiled"):
        needed = table.nrows() * shape[0] * shape[1] * 8
        ours = re.compile(rf"table\.f{manager['SEQNR']}(i|_TSM\d+)?")
        present = sum(file.stat().st_size for file in path.glob("table.f*") if ours.fullmatch(file.name))
        if present < needed:
            what = f"has {present / 1e6:.2f} MB for DATA, its {table.nrows()} rows need {needed / 1e6:.2f} MB"
            raise TruncatedDataError(what, path, _RERECORD)


def _check_cells(table: ct.table, path: Path, shape: tuple[int, int]) -> None:
    """Cells in the first, middle and last rows can be read and have the right shape."""
    n_rows = table.nrows()
    expected: dict[str, tuple[int, ...]] = {"DATA": shape, "FLAG": shape, "WEIGHT": shape[1:], "SIGMA": shape[1:]}
    for row in sorted({0, n_rows // 2, n_rows - 1}):
        for name, wanted in expected.items():
            found = np.shape(read_cell(table, name, row))
            if found != wanted:
                what = f"{name} of row {row} has the shape {found}, expected is {wanted} (channels, correlations)"
                raise InvalidDataError(what, path, _RERECORD)


def _sample(table: ct.table, first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Share of zeros, and of samples that are not finite, in some rows spread over the file."""
    rows = np.flatnonzero(first != second)
    if rows.size == 0:
        rows = np.arange(first.size)
    rows = rows[np.unique(np.linspace(0, rows.size - 1, SAMPLED_ROWS).astype(int))]
    cells: list[Any] = [read_cell(table, "DATA", int(row)) for row in rows]
    zeros = sum(np.count_nonzero(cell == 0) for cell in cells)
    nonfinite = sum(np.count_nonzero(~np.isfinite(cell)) for cell in cells)
    size = sum(cell.size for cell in cells)
    return zeros / size, nonfinite / size
