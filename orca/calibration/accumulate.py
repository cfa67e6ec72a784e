"""What a calibration needs to know of the data: for each baseline, channel and polarization sum V M* and sum |M|^2.

These are all that least squares for gains needs, so each Measurement Set is read once, with the sky of its own moment
and phase centre, and memory does not grow with their number.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from time import sleep
from typing import Any

import numba
import numpy as np

from orca.errors import InvalidDataError, MismatchError
from orca.ms.blocks import Ring, blocks, cache_small_columns, open_table, read_column
from orca.ms.info import MsInfo
from orca.ms.rephase import SPEED_OF_LIGHT_M_S
from orca.sky import SkyModel
from orca.telescope import lmn

UNEVEN = 1e-3
"""Steps from channel to channel may differ by this share of their width."""
_LANES = 8
_AHEAD = 32
"""Blocks that may wait to be added, 4 MB each: as many as are added while the next set is opened."""


@dataclass
class Sums:
    """Sums over integrations of one subband and array.

    Attributes
    ----------
    first, second : (n_baselines,) int32
        Antennas of each baseline, `first` < `second`.
    vm : (n_baselines, n_channels, 2) complex64
        Sum of V conj(M) for XX and YY.
    mm : (n_baselines, n_channels, 2) float32
        Sum of abs(M)^2; 0 where there are no data.
    power, samples : (n_antennas, n_channels, 2) float64
        Sum and number of the autocorrelations.
    like : MsInfo
        The first integration.
    time_s : list of float
        Middle of each integration, MJD seconds UTC.
    """

    first: np.ndarray
    second: np.ndarray
    vm: np.ndarray
    mm: np.ndarray
    power: np.ndarray
    samples: np.ndarray
    like: MsInfo
    time_s: list[float] = field(default_factory=list)

    @property
    def autocorrelation(self) -> np.ndarray:
        """Mean autocorrelations, (n_antennas, n_channels, 2); NaN where there are none."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.power / self.samples)


def empty_sums(like: MsInfo) -> Sums:
    """Sums over nothing, for the array and channels of `like`."""
    first, second = (axis.astype(np.int32) for axis in np.triu_indices(like.n_antennas, 1))
    shape, per_antenna = (first.size, like.n_channels, 2), (like.n_antennas, like.n_channels, 2)
    # Not np.zeros: NumPy gets huge pages for np.empty alone. In two threads: it is the time that new memory takes.
    vm, mm = np.empty(shape, np.complex64), np.empty(shape, np.float32)
    share = vm.shape[0] * 3 // 4
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda part: part.fill(0), (vm[:share], vm[share:], mm)))
    return Sums(
        first,
        second,
        vm,
        mm,
        np.zeros(per_antenna),
        np.zeros(per_antenna),
        like,
    )


class Accumulator:
    """Adds Measurement Sets to sums: what was read is added while the next rows, or the next set, are read.

    casacore holds the interpreter's lock while it reads, the kernel that adds does not. The sums are complete when the
    context ends.

    Parameters
    ----------
    sums : Sums
    """

    def __init__(self, sums: Sums) -> None:
        self.sums = sums
        self._calculator = ThreadPoolExecutor(1)
        self._ring = Ring(_AHEAD + 1)
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> Accumulator:
        return self

    def __exit__(self, *_: object) -> None:
        with self._calculator:
            while self._pending:
                self._pending.popleft().result()

    def add(self, info: MsInfo, sky: SkyModel, uv_range_lambda: tuple[float, float]) -> None:
        """Read a Measurement Set once and add it.

        Flagged samples, and samples that are zero or not finite, do not count. When this raises, the sums hold a part
        of the set and must not be used.

        Parameters
        ----------
        info : MsInfo
            Of the Measurement Set.
        sky : SkyModel
            For its time and channels.
        uv_range_lambda : (float, float)
            Baselines whose length in the plane of u and v, in wavelengths of the middle of the band, is outside are
            left out.

        Raises
        ------
        MismatchError
            It has another array or other channels than the sums, which do not change.
        DataError
            It cannot be read to its end, lacks XX or YY, or has channels that are not evenly spaced.
        """
        sums, like = self.sums, self.sums.like
        if info.antenna_names != like.antenna_names or not np.array_equal(info.freq_hz, like.freq_hz):
            raise MismatchError(
                f"has other antennas or channels than {like.path.name}", info.path, "Calibrate one subband and array."
            )
        centre = info.phase_centre_rad
        cosines = np.stack(lmn(sky.ra_rad, sky.dec_rad, *centre), -1) - (0.0, 0.0, 1.0)
        flux_jy = np.ascontiguousarray(sky.flux_jy.transpose(0, 2, 1), np.float64)
        sky_of_rows = (cosines, flux_jy, float(info.freq_hz[0]), _step_hz(info))
        columns = _parallel_hands(info)
        with open_table(info.path) as table:
            first, second, uvw, used = _baselines(table, info, uv_range_lambda)

            def add(start: int, n: int, data: np.ndarray, flag: np.ndarray) -> None:
                rows = slice(start, start + n)
                baselines = (first[rows], second[rows], used[rows], uvw[rows])
                _add_block(data, flag, columns, *baselines, *sky_of_rows, sums.vm, sums.mm, sums.power, sums.samples)

            for block in blocks(table, ("DATA", "FLAG"), ring=self._ring):
                self._pending.append(self._calculator.submit(add, *block))
                if len(self._pending) > _AHEAD:
                    self._pending.popleft().result()
                sleep(0)  # hands the lock over, so that the calculation begins before the reading
        sums.time_s.append(float(info.time_s.mean()))


def _baselines(table: Any, info: MsInfo, uv_range_lambda: tuple[float, float]) -> tuple[np.ndarray, ...]:
    """Antennas, UVW in m, and whether the row counts, of all rows."""
    cache_small_columns(table)
    first, second = read_column(table, "ANTENNA1"), read_column(table, "ANTENNA2")
    uvw = np.ascontiguousarray(read_column(table, "UVW"), np.float64)
    lengths = np.hypot(uvw[:, 0], uvw[:, 1]) * info.freq_hz.mean() / SPEED_OF_LIGHT_M_S
    low, high = uv_range_lambda
    used = (first == second) | ((lengths > low) & (lengths < high))
    if "FLAG_ROW" in info.columns:
        used &= ~np.asarray(read_column(table, "FLAG_ROW"), bool)
    return first, second, uvw, used


def _step_hz(info: MsInfo) -> float:
    """From one channel to the next, which must be one step for all: the kernel turns phases by it."""
    if info.n_channels == 1:
        return 0.0
    steps = np.diff(info.freq_hz)
    if np.ptp(steps) > UNEVEN * info.channel_width_hz:
        raise InvalidDataError("has channels that are not evenly spaced", info.path, "Take data with all channels.")
    return float(info.freq_hz[-1] - info.freq_hz[0]) / steps.size


def _parallel_hands(info: MsInfo) -> np.ndarray:
    """Which correlations are XX and YY."""
    found = [np.flatnonzero((info.receptors == k).all(1)) for k in (0, 1)]
    if any(hand.size != 1 for hand in found):
        raise InvalidDataError("lacks XX or YY", info.path, "Calibrate data that have both.")
    return np.array([int(hand[0]) for hand in found])


@numba.njit("void(f8[::1], f8[:, :, ::1], f8, f8, f4[:, :, ::1])", cache=True, nogil=True, error_model="numpy")
def _predict(path_m: np.ndarray, flux_jy: np.ndarray, first_hz: float, step_hz: float, model: np.ndarray) -> None:
    """Visibilities of one baseline.

    Parameters
    ----------
    path_m : (n_sources,) float
        u l + v m + w (n - 1).
    flux_jy : (n_sources, 2, n_channels) float
    first_hz, step_hz : float
    model : (2, 2, n_channels) float32
        Overwritten: polarization; real and imaginary part.
    """
    n_channels = model.shape[2]
    real, imag = np.empty(n_channels), np.empty(n_channels)
    model[:] = 0
    for s in range(path_m.size):
        turn = 2 * np.pi * path_m[s] / SPEED_OF_LIGHT_M_S
        for c in range(min(_LANES, n_channels)):
            real[c], imag[c] = np.cos(turn * (first_hz + c * step_hz)), np.sin(turn * (first_hz + c * step_hz))
        step_real, step_imag = np.cos(turn * step_hz * _LANES), np.sin(turn * step_hz * _LANES)
        for c in range(_LANES, n_channels):  # so that neighbours do not wait for each other
            real[c] = real[c - _LANES] * step_real - imag[c - _LANES] * step_imag
            imag[c] = real[c - _LANES] * step_imag + imag[c - _LANES] * step_real
        for k in range(2):
            for c in range(n_channels):
                model[k, 0, c] += np.float32(flux_jy[s, k, c] * real[c])
                model[k, 1, c] += np.float32(flux_jy[s, k, c] * imag[c])


@numba.njit(
    "void(c8[:, :, ::1], b1[:, :, ::1], i8[::1], i4[::1], i4[::1], b1[::1], f8[:, ::1], f8[:, ::1], f8[:, :, ::1],"
    " f8, f8, c8[:, :, ::1], f4[:, :, ::1], f8[:, :, ::1], f8[:, :, ::1])",
    cache=True,
    nogil=True,
    error_model="numpy",
)
def _add_block(
    data: np.ndarray,
    flag: np.ndarray,
    columns: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    used: np.ndarray,
    uvw_m: np.ndarray,
    cosines: np.ndarray,
    flux_jy: np.ndarray,
    first_hz: float,
    step_hz: float,
    vm: np.ndarray,
    mm: np.ndarray,
    power: np.ndarray,
    samples: np.ndarray,
) -> None:
    """Predict a block of rows and add it to the sums.

    Parameters
    ----------
    data, flag : (n_rows, n_channels, n_correlations)
    columns : (2,) int
        Which correlations are XX and YY.
    first, second, used : (n_rows,)
        Antennas, and whether the row counts.
    uvw_m : (n_rows, 3) float
    cosines : (n_sources, 3) float
        l, m, n - 1.
    flux_jy : (n_sources, 2, n_channels) float
    first_hz, step_hz : float
        Channels are evenly spaced: the phase of a source advances by the same turn from one to the next.
    vm, mm, power, samples
        Of `Sums`.
    """
    n_channels, n_sources = data.shape[1], cosines.shape[0]
    n_antennas = power.shape[0]
    model, path_m = np.empty((2, 2, n_channels), np.float32), np.empty(n_sources)
    for row in range(data.shape[0]):
        p, q = first[row], second[row]
        if not used[row]:
            continue
        if p == q:
            for c in range(n_channels):
                for k in range(2):
                    value = data[row, c, columns[k]].real
                    if not flag[row, c, columns[k]] and value != 0 and np.isfinite(value):
                        power[p, c, k] += value
                        samples[p, c, k] += 1
            continue
        for s in range(n_sources):
            path_m[s] = 0.0
            for axis in range(3):
                path_m[s] += uvw_m[row, axis] * cosines[s, axis]
        _predict(path_m, flux_jy, first_hz, step_hz, model)
        sign = np.float32(-1) if p > q else np.float32(1)  # V_qp is the conjugate of V_pq
        low, high = min(p, q), max(p, q)
        baseline = low * (2 * n_antennas - low - 1) // 2 + high - low - 1
        for k in range(2):
            for c in range(n_channels):
                value = data[row, c, columns[k]]
                x, y = value.real, value.imag
                if flag[row, c, columns[k]] or (x == 0 and y == 0) or not (np.isfinite(x) and np.isfinite(y)):
                    continue
                m_x, m_y = model[k, 0, c], model[k, 1, c]
                vm[baseline, c, k] += complex(x * m_x + y * m_y, (y * m_x - x * m_y) * sign)
                mm[baseline, c, k] += m_x * m_x + m_y * m_y
