"""Raw integrations into one Measurement Set that is ready to be imaged, in one pass over their rows.

Unpacking, checking, calibrating, flagging, rephasing to one direction and writing happen block by block, so memory does
not grow with the data. A full disk makes casacore abort the process: call `stage` in a child (`orca.isolation`).
"""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
from casacore import tables as ct

from orca.calibration.apply import Corrections, correct_block, jones
from orca.errors import DeadDataError, InputError, MismatchError
from orca.ms.acceptance import Acceptance
from orca.ms.archive import unpack
from orca.ms.blocks import blocks, cache_small_columns, open_table
from orca.ms.create import BULKY_COLUMNS, create_like
from orca.ms.growth import settled
from orca.ms.inspect import MsInfo, inspect
from orca.ms.rephase import rephase_block, rotation


@dataclass(frozen=True)
class Staged:
    """What `stage` wrote.

    Attributes
    ----------
    path : Path
    subband : str or None
    start_s, time_s : float
        Start of the first integration, and the middle of all, MJD seconds UTC.
    duration_s : float
    phase_centre_rad : (ra, dec)
    frequency_hz : (first, last) channel centre
    n_antennas, n_rows : int
    flagged_share, zero_share : float
        Of all samples written.
    seconds, cpu_seconds : float
    peak_memory_bytes : int
        Of the process.
    """

    path: Path
    subband: str | None
    start_s: float
    time_s: float
    duration_s: float
    phase_centre_rad: tuple[float, float]
    frequency_hz: tuple[float, float]
    n_antennas: int
    n_rows: int
    flagged_share: float
    zero_share: float
    seconds: float
    cpu_seconds: float
    peak_memory_bytes: int


def stage(
    sources: Sequence[Path],
    destination: Path,
    *,
    tables: Sequence[Path] = (),
    flag_antennas: Sequence[int | str] = (),
    acceptance: Acceptance | None = None,
) -> Staged:
    """Write the integrations `sources` as one calibrated, flagged Measurement Set.

    Parameters
    ----------
    sources : paths
        Measurement Sets or tars of them, of the same antennas and channels. Several are rephased to the phase centre
        of the middle one.
    destination : Path
        Must not exist; its folder takes what has to be unpacked.
    tables : paths
        CASA calibration tables to apply, in any order.
    flag_antennas : numbers or names
        Antennas of which everything is flagged.

    Raises
    ------
    DataError
        One of its kinds, for the first source or table that is not what it should be.
    InputError
        An antenna to flag that the array does not have.
    """
    begin, begin_cpu = time.perf_counter(), time.process_time()
    accept = acceptance or Acceptance()
    with ExitStack() as watched:  # each source until all work is done: one that changes meanwhile is refused
        for source in sources:
            watched.enter_context(settled(Path(source), accept.settle_s))
        opened = [open_source(Path(source), destination.parent, accept) for source in sources]
        infos = sorted(opened, key=lambda info: info.start_s)
        _check_same_array(infos)
        middle = infos[len(infos) // 2]
        counts = _write(infos, middle, destination, tables, middle.antenna_numbers(flag_antennas))

    samples, zeros, flagged = (int(n) for n in counts)
    if zeros >= accept.max_zero_share * samples:
        raise DeadDataError(f"{zeros / samples:.0%} of the samples are zero", sources[0], "Leave this subband out.")
    return Staged(
        path=destination,
        subband=middle.subband,
        start_s=infos[0].start_s,
        time_s=float(np.mean([info.time_s.mean() for info in infos])),
        duration_s=float(sum(info.interval_s * len(info.time_s) for info in infos)),
        phase_centre_rad=middle.phase_centre_rad,
        frequency_hz=(float(middle.freq_hz[0]), float(middle.freq_hz[-1])),
        n_antennas=middle.n_antennas,
        n_rows=sum(info.n_rows for info in infos),
        flagged_share=flagged / samples,
        zero_share=zeros / samples,
        seconds=time.perf_counter() - begin,
        cpu_seconds=time.process_time() - begin_cpu,
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def open_source(source: Path, folder: Path, accept: Acceptance) -> MsInfo:
    """Check a source, which is watched already; a tar is unpacked first."""
    if source.name.endswith(".tar"):
        source = unpack(source, folder / f"{source.name}.unpacked", settle_s=0)
    return inspect(
        source,
        settle_s=0,
        min_fill_level=accept.min_fill_level,
        max_zero_share=accept.max_zero_share,
    )


def _check_same_array(infos: Sequence[MsInfo]) -> None:
    if not infos:
        raise InputError("no Measurement Set given")
    first = infos[0]
    for other in infos[1:]:
        same_channels = len(other.freq_hz) == len(first.freq_hz) and np.allclose(
            other.freq_hz, first.freq_hz, rtol=1e-9
        )
        if other.antenna_names != first.antenna_names or not same_channels:
            raise MismatchError(
                f"has other antennas or channels than {first.path.name}",
                other.path,
                "Combine only integrations of one subband and array.",
            )


def _write(
    infos: Sequence[MsInfo], middle: MsInfo, destination: Path, tables: Sequence[Path], dead: Sequence[int]
) -> np.ndarray:
    """Write all integrations into a new Measurement Set; returns the numbers of samples, zeros and flags."""
    counts = np.zeros(3, np.int64)
    with ExitStack() as stack:
        held = stack.enter_context(open_table(middle.path))  # casacore shares what it has read with those that follow
        cache_small_columns(held)
        output = stack.enter_context(create_like(middle.path, destination, n_rows=sum(info.n_rows for info in infos)))
        first_row = 0
        for info in infos:
            with open_table(info.path) as table:
                if len(infos) > 1:
                    _append_metadata(table, output, first_row, info, middle.phase_centre_rad)
                solved = jones(tables, info.antenna_names, info.freq_hz, info.channel_width_hz, float(info.time_s[0]))
                corrections = solved.corrections(info.receptors, dead)
                counts += _copy_rows(table, output, first_row, info, corrections, middle.phase_centre_rad)
            first_row += info.n_rows
    return counts


def _append_metadata(
    table: ct.table, output: ct.table, first_row: int, info: MsInfo, centre_rad: tuple[float, float]
) -> None:
    """Small columns of one of several integrations, with UVW for the common phase centre."""
    for name in set(table.colnames()) - BULKY_COLUMNS - {"UVW"}:
        if table.isscalarcol(name) or table.iscelldefined(name, 0):
            output.putcol(name, table.getcol(name), first_row, info.n_rows)
    turn = rotation(float(info.time_s[0]), info.phase_centre_rad, centre_rad)
    output.putcol("UVW", table.getcol("UVW") @ turn.T, first_row, info.n_rows)


def _copy_rows(
    table: ct.table,
    output: ct.table,
    first_row: int,
    info: MsInfo,
    corrections: Corrections,
    centre_rad: tuple[float, float],
) -> np.ndarray:
    """Copy DATA and FLAG, calibrated; returns the numbers of samples, zeros and flags."""
    antenna1, antenna2 = table.getcol("ANTENNA1"), table.getcol("ANTENNA2")
    delta_w = None
    if info.phase_centre_rad != centre_rad:
        old_uvw = table.getcol("UVW")
        delta_w = old_uvw[:, 2] - old_uvw @ rotation(float(info.time_s[0]), info.phase_centre_rad, centre_rad)[2]
    step_hz = float(info.freq_hz[1] - info.freq_hz[0]) if len(info.freq_hz) > 1 else 0.0
    counts = np.zeros(3, np.int64)

    def calculate(start: int, n: int, data: np.ndarray, flag: np.ndarray) -> None:
        rows, samples = slice(start, start + n), (data.reshape(n, -1), flag.reshape(n, -1))
        counts[:] += treat_block(*samples, antenna1[rows], antenna2[rows], *corrections)
        if delta_w is not None:
            rephase_block(data, delta_w[rows], float(info.freq_hz[0]), step_hz)

    def write(done: Future[None], start: int, n: int, data: np.ndarray, flag: np.ndarray) -> None:
        done.result()
        output.putcol("DATA", data, first_row + start, n)
        output.putcol("FLAG", flag, first_row + start, n)

    # casacore holds the interpreter's lock, the kernels do not: one block is calculated while another one is written.
    with ThreadPoolExecutor(1) as calculator:
        previous = None
        for block in blocks(table, ("DATA", "FLAG"), in_flight=2):
            current = (calculator.submit(calculate, *block), *block)
            time.sleep(0)  # hands the lock over, so that the calculation begins before the writing
            if previous is not None:
                write(*previous)
            previous = current
        if previous is not None:
            write(*previous)
    return counts


_ROWS = "c8[:, ::1], b1[:, ::1]"
_CORRECTIONS = "i4[::1], i4[::1], c8[:, ::1], c8[:, ::1], b1[:, ::1], b1[:, ::1], b1[::1]"


@numba.njit(f"i8[:]({_ROWS})", cache=True, nogil=True)
def screen_block(data: np.ndarray, flag: np.ndarray) -> np.ndarray:
    """Flag what cannot be a visibility: samples that are exactly zero or not finite (these become zero).

    Parameters
    ----------
    data : (n_rows, n_samples) complex64
    flag : like data, bool

    Returns
    -------
    (2,) int
        Samples, and zeros.
    """
    zeros = 0
    for row in range(data.shape[0]):
        for i in range(data.shape[1]):
            value = data[row, i]
            if value == 0:
                zeros += 1
                flag[row, i] = True
            elif not (np.isfinite(value.real) and np.isfinite(value.imag)):
                data[row, i] = 0
                flag[row, i] = True
    return np.array([data.size, zeros])


@numba.njit(f"i8[:]({_ROWS}, {_CORRECTIONS})", cache=True, nogil=True)
def treat_block(
    data: np.ndarray,
    flag: np.ndarray,
    antenna1: np.ndarray,
    antenna2: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    left_flag: np.ndarray,
    right_flag: np.ndarray,
    touched: np.ndarray,
) -> np.ndarray:
    """Screen a block of rows and calibrate it, in one call without the interpreter's lock.

    Parameters
    ----------
    data, flag
        As in `screen_block`.
    antenna1, antenna2, left, right, left_flag, right_flag, touched
        As in `correct_block`.

    Returns
    -------
    (3,) int
        Samples, zeros, and flags.
    """
    samples, zeros = screen_block(data, flag)
    correct_block(data, flag, antenna1, antenna2, left, right, left_flag, right_flag, touched)
    return np.array([samples, zeros, np.count_nonzero(flag)])
