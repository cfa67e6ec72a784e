"""Calibration tables in CASA's own format: B Jones and G Jones (complex gains), K Jones (delays).

The layout is CASA's: one row for each time, spectral window and antenna, with CPARAM (complex) or FPARAM
(delays in ns) of shape (channels, 2 polarizations). CASA's applycal takes what `write_table` writes.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from casacore import tables as ct

from orca.errors import InputError, InvalidDataError, MissingDataError

KINDS = ("B Jones", "G Jones", "K Jones")
SAME_TIME_S = 0.5
"""Rows nearer in time than this belong to the same solution."""
CASA_VERSION = "6.7.0-31"
"""Written as CASA_Version: readers then take a delay's reference from the table's own spectral window."""


@dataclass(frozen=True)
class Solutions:
    """The solutions of one spectral window.

    Attributes
    ----------
    kind : str
        "B Jones", "G Jones" or "K Jones", as in the table's keyword VisCal.
    time_s : (n_time,) float
        Times of the solutions, MJD seconds UTC, increasing.
    antenna_names : tuple of n_antennas str
    frequency_hz, channel_width_hz : (n_channels,) float
    values : (n_time, n_antennas, n_channels, 2) complex64, or float32 delays in ns for K Jones
    flags : like values, bool
        True where there is no solution.
    snr : like values, float32
        |value| / error of B and G Jones.
    errors : like values, float32
        Standard error, of the real and of the imaginary part of a gain, or of a delay in ns; 0 where it is not known.
    reference_antenna : int
        -1 where there is none.
    reference_frequency_hz : float
        For K Jones: the frequency at which a delay turns no phase.
    path : Path or None
        The table that it was read from.
    """

    kind: str
    time_s: np.ndarray
    antenna_names: tuple[str, ...]
    frequency_hz: np.ndarray
    channel_width_hz: np.ndarray
    values: np.ndarray
    flags: np.ndarray
    snr: np.ndarray
    errors: np.ndarray
    reference_antenna: int
    reference_frequency_hz: float
    path: Path | None = None


def make_solutions(
    kind: str,
    values: np.ndarray,
    *,
    time_s: float,
    antenna_names: tuple[str, ...],
    frequency_hz: np.ndarray,
    channel_width_hz: float,
    flags: np.ndarray | None = None,
    snr: np.ndarray | None = None,
    errors: np.ndarray | None = None,
    reference_antenna: int = -1,
) -> Solutions:
    """Solutions of a single time from arrays of shape (n_antennas, n_channels, 2); for K Jones n_channels is 1.

    `frequency_hz` are the channels of the observation; a K table gets one channel in their middle, which is also the
    reference frequency of its delays.
    """
    frequency = np.asarray(frequency_hz, float)
    width = np.full(frequency.size, float(channel_width_hz))
    if kind == "K Jones":
        frequency, width = np.array([frequency.mean()]), np.array([width.sum()])
    dtype = np.float32 if kind == "K Jones" else np.complex64
    shape = (1, *values.shape)
    return Solutions(
        kind=kind,
        time_s=np.array([time_s], float),
        antenna_names=tuple(antenna_names),
        frequency_hz=frequency,
        channel_width_hz=width,
        values=np.asarray(values, dtype).reshape(shape),
        flags=np.zeros(shape, bool) if flags is None else np.asarray(flags, bool).reshape(shape),
        snr=np.full(shape, 100, np.float32) if snr is None else np.asarray(snr, np.float32).reshape(shape),
        errors=np.zeros(shape, np.float32) if errors is None else np.asarray(errors, np.float32).reshape(shape),
        reference_antenna=reference_antenna,
        reference_frequency_hz=float(frequency[0] if kind == "K Jones" else frequency[frequency.size // 2]),
    )


def read_table(path: Path) -> tuple[Solutions, ...]:
    """Read a calibration table of CASA's or ours: one `Solutions` for each spectral window that has rows.

    Raises
    ------
    MissingDataError, InvalidDataError
        There is no such table, it is not a calibration table, it is of a kind that is not understood, or it cannot
        be read to its end.
    """
    path = Path(path)
    with _opened(path) as table:
        kind = _kind_of(table, path)
        rows = {c: table.getcol(c) for c in ("TIME", "SPECTRAL_WINDOW_ID", "ANTENNA1", "ANTENNA2")}
        by_casa = "CASA_Version" in table.keywordnames()
        windows = np.unique(rows["SPECTRAL_WINDOW_ID"])
        return tuple(_read_window(table, path, kind, rows, int(w), by_casa) for w in windows)


def read_kind(path: Path) -> str:
    """Kind of a calibration table: B Jones, G Jones or K Jones. Raises as `read_table`."""
    with _opened(Path(path)) as table:
        return _kind_of(table, Path(path))


@contextmanager
def _opened(path: Path) -> Iterator[ct.table]:
    if not path.exists():
        raise MissingDataError("there is no such calibration table", path, "Check the name")
    if not (path / "table.dat").is_file():
        raise InvalidDataError("not a casacore table", path, "Give the folder of a CASA calibration table")
    try:
        with ct.table(str(path), ack=False, lockoptions="usernoread") as table:
            yield table
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise InvalidDataError(f"cannot be read: {reason}", path, "Make the table again") from error


def _kind_of(table: ct.table, path: Path) -> str:
    kind = str(table.getkeywords().get("VisCal", ""))
    if kind not in KINDS:
        what = f"a calibration table of kind '{kind}'" if kind else "not a calibration table"
        raise InvalidDataError(what, path, f"Understood are {', '.join(KINDS)}")
    return kind


def _read_window(
    table: ct.table, path: Path, kind: str, rows: dict[str, np.ndarray], window: int, by_casa: bool
) -> Solutions:
    with ct.table(f"{path}/ANTENNA", ack=False, lockoptions="usernoread") as antennas:
        names = tuple(antennas.getcol("NAME"))
    with ct.table(f"{path}/SPECTRAL_WINDOW", ack=False, lockoptions="usernoread") as windows:
        frequency = np.asarray(windows.getcell("CHAN_FREQ", window), float)
        width = np.abs(np.asarray(windows.getcell("CHAN_WIDTH", window), float))
        reference = float(frequency[0] if by_casa else windows.getcell("REF_FREQUENCY", window))

    chosen = np.flatnonzero(rows["SPECTRAL_WINDOW_ID"] == window)
    time = rows["TIME"][chosen]
    starts = np.sort(time)[np.concatenate([[True], np.diff(np.sort(time)) > SAME_TIME_S])]
    slot = np.searchsorted(starts, time, side="right") - 1
    antenna = rows["ANTENNA1"][chosen]
    if antenna.max() >= len(names) or antenna.min() < 0:
        raise InvalidDataError(f"row for antenna {antenna.max()}, but the table lists {len(names)} antennas", path)

    column = "FPARAM" if kind == "K Jones" else "CPARAM"
    n_channels = table.getcell(column, int(chosen[0])).shape[0]
    shape = (starts.size, len(names), n_channels, 2)
    values = np.zeros(shape, np.float32 if kind == "K Jones" else np.complex64)
    flags, snr, errors = np.ones(shape, bool), np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    with table.selectrows(chosen) as selection:
        values[slot, antenna] = selection.getcol(column)
        flags[slot, antenna] = selection.getcol("FLAG")
        snr[slot, antenna] = selection.getcol("SNR")
        errors[slot, antenna] = selection.getcol("PARAMERR")
    values[~np.isfinite(values)] = 0
    flags |= values == 0 if kind != "K Jones" else False
    return Solutions(
        kind=kind,
        time_s=np.array([time[slot == i].mean() for i in range(starts.size)]),
        antenna_names=names,
        frequency_hz=frequency,
        channel_width_hz=width,
        values=values,
        flags=flags,
        snr=snr,
        errors=errors,
        reference_antenna=int(rows["ANTENNA2"][chosen][0]),
        reference_frequency_hz=reference,
        path=path,
    )


def write_table(path: Path, solutions: Solutions | Sequence[Solutions], like_ms: Path) -> None:
    """Write a CASA calibration table whose antennas, field and observation are those of a Measurement Set.

    The table is written in place: give a scratch name and publish it (`orca.products`). Layout and keywords as
    CASA 6.7 writes them; its applycal accepts them.

    Parameters
    ----------
    path : Path
        What is there is replaced.
    solutions : Solutions, or several of one kind and array
        Each becomes a spectral window.
    like_ms : Path

    Raises
    ------
    InputError
        No solutions, some of another kind or array than the first, or another array in `like_ms`.
    """
    path, like_ms = Path(path), Path(like_ms)
    windows = (solutions,) if isinstance(solutions, Solutions) else tuple(solutions)
    if not windows:
        raise InputError("no solutions to write", path)
    first = windows[0]
    if any(w.kind != first.kind or w.antenna_names != first.antenna_names for w in windows):
        raise InputError("solutions of different kinds or arrays do not fit into one table", path)
    with ct.table(f"{like_ms}/ANTENNA", ack=False, lockoptions="usernoread") as antennas:
        if tuple(antennas.getcol("NAME")) != first.antenna_names:
            raise InputError("has other antennas than the solutions", like_ms, "Give a set of the same array.")
    complex_valued = first.kind != "K Jones"
    shutil.rmtree(path, ignore_errors=True)
    n_rows = sum(len(w.time_s) * len(w.antenna_names) for w in windows)
    table = ct.table(str(path), tabledesc=_description(complex_valued), nrow=n_rows, ack=False)
    try:
        for name in ("OBSERVATION", "ANTENNA", "FIELD", "SPECTRAL_WINDOW", "HISTORY"):
            shutil.copytree(like_ms / name, path / name)
            table.putkeyword(name, f"Table: {path.resolve() / name}")
        _write_windows(path / "SPECTRAL_WINDOW", windows)
        keywords = {
            "ParType": "Complex" if complex_valued else "Float",
            "MSName": like_ms.name,
            "VisCal": first.kind,
            "PolBasis": "unknown",
            "CASA_Version": CASA_VERSION,
        }
        for key, value in keywords.items():
            table.putkeyword(key, value)
        table.putinfo({"type": "Calibration", "subType": first.kind, "readme": ""})
        row = 0
        for number, window in enumerate(windows):
            row += _write_rows(table, row, number, window, complex_valued)
    finally:
        table.close()


def _description(complex_valued: bool) -> dict:
    scalars = {"TIME": 0.0, "FIELD_ID": 0, "SPECTRAL_WINDOW_ID": 0, "ANTENNA1": 0, "ANTENNA2": 0, "INTERVAL": 0.0}
    scalars |= {"SCAN_NUMBER": 0, "OBSERVATION_ID": 0}
    columns = [
        ct.makescacoldesc(name, value, valuetype="double" if isinstance(value, float) else "int")
        for name, value in scalars.items()
    ]
    parameter = ("CPARAM", 0j, "complex") if complex_valued else ("FPARAM", 0.0, "float")
    arrays = [parameter, ("PARAMERR", 0.0, "float"), ("FLAG", False, "bool"), ("SNR", 0.0, "float")]
    arrays.append(("WEIGHT", 0.0, "float"))
    columns += [ct.makearrcoldesc(name, value, valuetype=kind, ndim=-1) for name, value, kind in arrays]
    description = ct.maketabdesc(columns)
    description["TIME"]["keywords"] = {"QuantumUnits": ["s"], "MEASINFO": {"type": "epoch", "Ref": "UTC"}}
    description["INTERVAL"]["keywords"] = {"QuantumUnits": ["s"]}
    return description


def _write_windows(path: Path, windows: Sequence[Solutions]) -> None:
    with ct.table(str(path), readonly=False, ack=False) as table:
        table.removerows(range(1, table.nrows()))
        same = {name: table.getcell(name, 0) for name in table.colnames() if table.iscelldefined(name, 0)}
        table.addrows(len(windows) - 1)
        for row, window in enumerate(windows):
            width = window.channel_width_hz
            cells = same | {
                "CHAN_FREQ": window.frequency_hz,
                "CHAN_WIDTH": width,
                "EFFECTIVE_BW": width,
                "RESOLUTION": width,
                "NUM_CHAN": len(window.frequency_hz),
                "TOTAL_BANDWIDTH": float(width.sum()),
                "REF_FREQUENCY": window.reference_frequency_hz,
            }
            for column, value in cells.items():
                table.putcell(column, row, value)


def _write_rows(table: ct.table, row: int, number: int, window: Solutions, complex_valued: bool) -> int:
    """Write the rows of one window from `row` on; returns how many."""
    n_time, n_antennas = window.values.shape[:2]
    n_rows = n_time * n_antennas
    flat = (n_rows, *window.values.shape[2:])
    zero = np.zeros(n_rows, np.int32)
    columns = {
        "TIME": np.repeat(window.time_s, n_antennas),
        "INTERVAL": np.zeros(n_rows),
        "FIELD_ID": zero,
        "SPECTRAL_WINDOW_ID": zero + number,
        "SCAN_NUMBER": zero + 1,
        "OBSERVATION_ID": zero,
        "ANTENNA1": np.tile(np.arange(n_antennas, dtype=np.int32), n_time),
        "ANTENNA2": zero + window.reference_antenna,
        "CPARAM" if complex_valued else "FPARAM": window.values.reshape(flat),
        "PARAMERR": window.errors.reshape(flat),
        "FLAG": window.flags.reshape(flat),
        "SNR": window.snr.reshape(flat),
        "WEIGHT": np.ones(flat, np.float32),
    }
    for name, value in columns.items():
        table.putcol(name, value, row, n_rows)
    return n_rows
