"""What the quality of a calibration is measured by: robust statistics of gains and delays, without any limit.

Everywhere, not a number stands for "no solution", and the medians step over it. Robust standard deviation means
1.4826 times the median absolute deviation, which is the standard deviation of normal noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from orca.antennas import antenna_key
from orca.calibration.tables import Solutions

BOARD_SIZE = 32
"""Antennas of one digitizer board, neighbours by correlator number."""
MIN_ON_BOARD = 4
"""Antennas that a board must have, besides those left out, before anything is said about it."""
NORMAL = 1.4826
"""Standard deviation of normal noise over its median absolute deviation."""
_OFFSETS = (-2, -1, 1, 2)
_NEIGHBOURS_NOISE = 1.139
"""Standard deviation of unit noise minus the median of four others: sqrt(1 + 0.298)."""
_ERROR_OF_MEDIAN = 1.2533
"""Error of the median of n normal numbers, times sqrt(n): sqrt(pi / 2)."""

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Scatter(NamedTuple):
    """From channel to channel, (n_antennas, 2): relative amplitude, and phase in degrees."""

    amplitude: Floats
    phase_deg: Floats


class BoardCount(NamedTuple):
    """How many of the antennas of a board are bad."""

    board: int
    bad: int
    antennas: int


def median(values: np.ndarray, axis: int | None = None) -> Floats:
    """Median of what is a number; not a number where nothing is.

    (`numpy.nanmedian` says the same, twenty times slower on short axes, and warns about what is no trouble here.)
    """
    flat = np.asarray(values, float).ravel() if axis is None else np.asarray(values, float)
    axis = 0 if axis is None else axis
    if flat.shape[axis] == 0:
        return np.full(np.delete(flat.shape, axis), np.nan)
    ordered = np.sort(flat, axis=axis)  # not a number comes last
    count = np.expand_dims((~np.isnan(flat)).sum(axis=axis), axis)
    low = np.take_along_axis(ordered, np.maximum(count - 1, 0) // 2, axis)
    high = np.take_along_axis(ordered, count // 2, axis)
    return np.where(count > 0, (low + high) / 2, np.nan).squeeze(axis)


def spread(values: np.ndarray, axis: int | None = None) -> Floats:
    """Robust standard deviation of what is a number."""
    middle = median(values, axis)
    away = values - (middle if axis is None else np.expand_dims(middle, axis))
    return NORMAL * median(np.abs(away), axis)


def usable(solutions: Solutions) -> np.ndarray:
    """Values of the last time, (n_antennas, n_channels, 2) complex128 or float64; not a number where there is none.

    There is none where it is flagged, not finite, or a gain of zero.
    """
    values = solutions.values[-1]
    values = values.astype(np.complex128 if np.iscomplexobj(values) else np.float64)
    return np.where(solutions.flags[-1] | _unfit(values), np.nan, values)


def count_unfit(solutions: Solutions) -> int:
    """How many solutions are not flagged though they are not finite, or gains of zero."""
    return int((~solutions.flags & _unfit(solutions.values)).sum())


def _unfit(values: np.ndarray) -> Bools:
    unfit = ~np.isfinite(values)
    return unfit | (values == 0) if np.iscomplexobj(values) else unfit


def channel_scatter(gains: np.ndarray) -> Scatter:
    """How far each gain is from the median of its four neighbours, as standard deviation of the noise of one channel.

    A delay and a smooth bandpass drop out.

    Parameters
    ----------
    gains : (n_antennas, n_channels, 2) complex
    """
    amplitude = np.abs(gains)
    relative = amplitude / np.expand_dims(median(amplitude, 1), 1)
    # The phase is made flat before it is looked at, so that it does not wrap.
    phase = np.angle(gains)
    slope = median(_wrapped(np.diff(phase, axis=1)), 1)
    flat = phase - slope[:, None, :] * np.arange(gains.shape[1])[None, :, None]
    mean = np.arctan2(np.nansum(np.sin(flat), 1, keepdims=True), np.nansum(np.cos(flat), 1, keepdims=True))
    return Scatter(_roughness(relative), np.degrees(_roughness(_wrapped(flat - mean))))


def _wrapped(phase_rad: Floats) -> Floats:
    """The same phase between -pi and pi."""
    return phase_rad - 2 * np.pi * np.round(phase_rad / (2 * np.pi))


def _roughness(values: Floats) -> Floats:
    """Noise of one channel, (n_antennas, 2), of (n_antennas, n_channels, 2); at least two neighbours must be there."""
    reach = max(_OFFSETS)
    padded = np.pad(values, ((0, 0), (reach, reach), (0, 0)), constant_values=np.nan)
    n = values.shape[1]
    around = np.stack([padded[:, reach + k : reach + k + n] for k in _OFFSETS])
    enough = (~np.isnan(around)).sum(axis=0) >= 2
    away = np.where(enough, np.abs(values - median(around, 0)), np.nan)
    return NORMAL / _NEIGHBOURS_NOISE * median(away, 1)


def amplitudes_like(solutions: Solutions, previous: Solutions) -> Floats:
    """Amplitudes of a previous table on the antennas and channels of this one, (n_antennas, n_channels, 2).

    Antennas are matched by name, channels by frequency: the nearest one, if its centre is inside the wider of the two.
    """
    here, there = _matched_antennas(solutions, previous)
    away = np.abs(solutions.frequency_hz[:, None] - previous.frequency_hz[None, :])
    nearest = away.argmin(axis=1)
    width = np.maximum(np.abs(solutions.channel_width_hz), np.abs(previous.channel_width_hz[nearest]))
    common = np.flatnonzero(away.min(axis=1) <= width / 2)
    found = np.full((len(solutions.antenna_names), len(solutions.frequency_hz), 2), np.nan)
    found[np.ix_(here, common)] = np.abs(usable(previous)[np.ix_(there, nearest[common])])
    return found


def amplitude_change(solutions: Solutions, previous: Solutions) -> Floats:
    """Median over the common channels of \\|amplitude / previous amplitude - 1\\|, (n_antennas, 2)."""
    return median(np.abs(np.abs(usable(solutions)) / amplitudes_like(solutions, previous) - 1), 1)


def delay_change_ns(solutions: Solutions, previous: Solutions) -> Floats:
    """Delay minus previous delay, (n_antennas, 2) in ns, antennas matched by name.

    The median of each polarization is taken off, since another reference antenna shifts all delays alike.
    """
    here, there = _matched_antennas(solutions, previous)
    change = np.full((len(solutions.antenna_names), 2), np.nan)
    change[here] = usable(solutions)[here, 0] - usable(previous)[there, 0]
    return change - median(change, 0)


def _matched_antennas(solutions: Solutions, previous: Solutions) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Numbers of the antennas that both have, in this one and in the previous one."""
    known = {antenna_key(name): k for k, name in enumerate(previous.antenna_names)}
    pairs = [(k, known[key]) for k, key in enumerate(map(antenna_key, solutions.antenna_names)) if key in known]
    here, there = np.array(pairs, np.intp).reshape(-1, 2).T
    return here, there


def board_slices(n_antennas: int) -> Iterator[tuple[int, slice]]:
    """Number of each board, and its antennas; the last one may have fewer."""
    for first in range(0, n_antennas, BOARD_SIZE):
        yield first // BOARD_SIZE, slice(first, min(first + BOARD_SIZE, n_antennas))


def bad_boards(bad: Bools, counted: Bools) -> list[BoardCount]:
    """Boards of which more than half of the antennas are bad, while at most half of the other boards' are."""
    found = []
    for board, here in board_slices(bad.size):
        on_board = np.zeros(bad.size, bool)
        on_board[here] = True
        own, others = on_board & counted, ~on_board & counted
        if own.sum() < MIN_ON_BOARD or not others.any():
            continue
        if bad[own].mean() > 0.5 and bad[others].mean() <= 0.5:
            found.append(BoardCount(board, int(bad[own].sum()), int(own.sum())))
    return found


def shifted_boards(values: Floats, counted: Bools, n_sigma: float, least: float) -> list[tuple[int, float]]:
    """Boards whose antennas are off together: number, and by how much the median differs from the other boards'.

    Parameters
    ----------
    values : (n_antennas, 2)
    counted : (n_antennas,) bool
    n_sigma : float
        A board is off by more than this many errors of its median, as the scatter of the other antennas gives it.
    least : float
        It is off by more than this.
    """
    found = []
    for board, here in board_slices(counted.size):
        on_board = np.zeros(counted.size, bool)
        on_board[here] = True
        own, others = values[on_board & counted], values[~on_board & counted]
        n = int((~np.isnan(own)).any(axis=1).sum())
        if n < MIN_ON_BOARD or np.isnan(others).all():
            continue
        shift = float(median(own) - median(others))
        error = _ERROR_OF_MEDIAN * float(spread(others)) / np.sqrt(n)
        if abs(shift) > max(n_sigma * error, least):
            found.append((board, shift))
    return found
