"""What calibration tables do to visibilities: Jones matrices from solutions, and their inverse in one numba pass.

V_pq = g_p M g_q* (p = ANTENNA1, q = ANTENNA2), so the corrected visibility is V_pq / (g_p g_q*). A delay of tau ns
is the gain exp(+2 pi i tau (nu - nu0)). All Jones matrices here are diagonal: one gain for each polarization.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np

from orca.antennas import antenna_key
from orca.calibration.tables import Solutions, read_table
from orca.errors import MismatchError

MIN_OVERLAP = 0.5
"""Share of the channels of an observation that a table must cover to be its table."""


@dataclass(frozen=True)
class Jones:
    """Diagonal Jones matrices of every antenna.

    Attributes
    ----------
    gains : (n_antennas, n_channels, 2) complex64
        Product of all tables; 1 where there is no solution.
    flags : (n_antennas, n_channels, 2) bool
        True where any table has no solution.
    """

    gains: np.ndarray
    flags: np.ndarray

    def corrections(self, receptors: np.ndarray, dead: Sequence[int] = ()) -> Corrections:
        """What `correct_block` multiplies and flags.

        Parameters
        ----------
        receptors : (n_correlations, 2) int
            Polarization of ANTENNA1 and of ANTENNA2 in each correlation (CORR_PRODUCT): XX is (0, 0), XY (0, 1).
        dead : antenna numbers
            Antennas of which everything is flagged.
        """
        inverse, flags = (1 / self.gains).astype(np.complex64), self.flags.copy()
        flags[list(dead)] = True

        def samples(array: np.ndarray, side: int) -> np.ndarray:
            return np.ascontiguousarray(array[:, :, receptors[:, side]].reshape(array.shape[0], -1))

        return Corrections(
            left=samples(inverse, 0),
            right=samples(inverse.conj(), 1),
            left_flag=samples(flags, 0),
            right_flag=samples(flags, 1),
            touched=np.asarray(flags.any((1, 2))),
        )


class Corrections(NamedTuple):
    """Factors and flags of every antenna as the first (left) and as the second (right) of a baseline.

    `left` and `right` are (n_antennas, n_samples) complex64, n_samples = n_channels * n_correlations; `left_flag` and
    `right_flag` the same, bool; `touched` (n_antennas,) bool tells which antennas have any flag.
    """

    left: np.ndarray
    right: np.ndarray
    left_flag: np.ndarray
    right_flag: np.ndarray
    touched: np.ndarray


def jones(
    tables: Sequence[Path],
    antenna_names: Sequence[str],
    frequency_hz: np.ndarray,
    channel_width_hz: float,
    time_s: float,
) -> Jones:
    """The Jones matrices of a chain of tables for the antennas and channels of an observation.

    Antennas are matched by name, spectral windows by overlap in frequency, channels by frequency (a channel that is
    wider than the table's takes the mean of the solutions inside it), times by the nearest solution. A delay table with
    a single window serves all frequencies.

    Raises
    ------
    MismatchError
        A table has other antennas, or covers less than half of the channels.
    """
    shape = (len(antenna_names), len(frequency_hz), 2)
    gains, flags = np.ones(shape, np.complex128), np.zeros(shape, bool)
    for path in tables:
        windows = read_table(Path(path))
        window = _matching_window(windows, Path(path), frequency_hz, channel_width_hz)
        order = _antenna_order(window, Path(path), antenna_names)
        nearest = int(np.argmin(np.abs(window.time_s - time_s)))
        gain, flag = _on_channels(window, nearest, frequency_hz, channel_width_hz)
        gains *= gain[order]
        flags |= flag[order]
    gains[flags] = 1
    return Jones(gains.astype(np.complex64), flags)


def _matching_window(
    windows: Sequence[Solutions], path: Path, frequency_hz: np.ndarray, channel_width_hz: float
) -> Solutions:
    def overlap(window: Solutions) -> float:
        low = (window.frequency_hz - window.channel_width_hz / 2).min()
        high = (window.frequency_hz + window.channel_width_hz / 2).max()
        slack = 0.01 * channel_width_hz
        return float(np.mean((frequency_hz > low - slack) & (frequency_hz < high + slack)))

    best = max(windows, key=overlap)
    if best.kind == "K Jones" and len(windows) == 1:  # a delay is one for all subbands
        return best
    if overlap(best) < MIN_OVERLAP:
        has = ", ".join(f"{w.frequency_hz.min() / 1e6:.3f}-{w.frequency_hz.max() / 1e6:.3f}" for w in windows)
        needed = f"{frequency_hz.min() / 1e6:.3f}-{frequency_hz.max() / 1e6:.3f} MHz"
        raise MismatchError(
            f"is of another subband: it covers {has} MHz, the observation {needed}",
            path,
            "Give the table of this subband.",
        )
    return best


def _antenna_order(window: Solutions, path: Path, antenna_names: Sequence[str]) -> np.ndarray:
    """Index into the table's antennas for each antenna of the observation."""
    where = {antenna_key(name): i for i, name in enumerate(window.antenna_names)}
    missing = [name for name in antenna_names if antenna_key(name) not in where]
    if missing or len(where) != len(antenna_names):
        detail = f" ({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''} not in the table)" if missing else ""
        raise MismatchError(
            f"has {len(window.antenna_names)} antennas, the observation {len(antenna_names)}{detail}",
            path,
            "Give a table made with the same array.",
        )
    return np.array([where[antenna_key(name)] for name in antenna_names])


def _on_channels(
    window: Solutions, slot: int, frequency_hz: np.ndarray, channel_width_hz: float
) -> tuple[np.ndarray, np.ndarray]:
    """Gains and flags (n_antennas, n_channels, 2) of one time of a window on the channels of an observation."""
    values, flags = window.values[slot], window.flags[slot]
    if window.kind == "K Jones":
        turns = values[:, :1].astype(np.float64) * 1e-9 * (frequency_hz - window.reference_frequency_hz)[None, :, None]
        return np.exp(2j * np.pi * turns), np.broadcast_to(flags[:, :1], turns.shape)
    if values.shape[1] == 1:
        shape = (values.shape[0], len(frequency_hz), 2)
        return np.broadcast_to(values, shape), np.broadcast_to(flags, shape)
    if len(frequency_hz) == len(window.frequency_hz) and np.allclose(
        frequency_hz, window.frequency_hz, rtol=0, atol=1e-3 * channel_width_hz
    ):
        return np.where(flags, 1, values), flags | (values == 0)
    gain = np.ones((values.shape[0], len(frequency_hz), 2), np.complex128)
    flag = np.ones(gain.shape, bool)
    reach = np.maximum(channel_width_hz, window.channel_width_hz) / 2 * 1.001
    for channel, centre in enumerate(frequency_hz):
        inside = np.flatnonzero(np.abs(window.frequency_hz - centre) < reach)
        good = ~flags[:, inside]
        count = good.sum(1)
        total = np.where(good, values[:, inside], 0).sum(1, dtype=np.complex128)
        flag[:, channel] = (count == 0) | (total == 0)
        gain[:, channel] = np.where(flag[:, channel], 1, total / np.maximum(count, 1))
    return gain, flag


# The signature makes numba compile, or load, at import: a child that is forked then has it already.
@numba.njit(
    "void(c8[:, ::1], b1[:, ::1], i4[::1], i4[::1], c8[:, ::1], c8[:, ::1], b1[:, ::1], b1[:, ::1], b1[::1])",
    cache=True,
    nogil=True,
    error_model="numpy",
    fastmath=True,
)
def correct_block(
    data: np.ndarray,
    flag: np.ndarray,
    antenna1: np.ndarray,
    antenna2: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    left_flag: np.ndarray,
    right_flag: np.ndarray,
    touched: np.ndarray,
) -> None:
    """Calibrate a block of rows in place: `data *= left[p] * right[q]`, `flag |= left_flag[p] | right_flag[q]`.

    Parameters
    ----------
    data : (n_rows, n_samples) complex64
        Visibilities, n_samples = n_channels * n_correlations.
    flag : like data, bool
    antenna1, antenna2 : (n_rows,) int
    left, right, left_flag, right_flag, touched
        The fields of `Corrections`.
    """
    for row in range(data.shape[0]):
        p, q = antenna1[row], antenna2[row]
        samples, factor_p, factor_q = data[row], left[p], right[q]
        for i in range(samples.size):
            samples[i] *= factor_p[i] * factor_q[i]
        if touched[p] or touched[q]:
            for i in range(samples.size):
                flag[row, i] |= left_flag[p, i] | right_flag[q, i]
