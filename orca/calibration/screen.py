"""Which solutions are not to be used: those that are off what all antennas have in common, and what remains alone."""

from __future__ import annotations

import numpy as np

DEAD_LEVEL = 0.1
"""An antenna with less than this share of the median amplitude hears nothing of the sky."""
SMOOTH_CHANNELS = 9
"""Channels of the running median that the common bandpass is compared with; receivers do not change faster."""
RIPPLE = 1e-3
"""What a receiver's own band leaves of that median, as a share: no channel is suspect for so little."""
_ROUNDING = 1e-4
_MAD_TO_SIGMA = 1.4826
_MEDIAN_TO_MEAN = 1.2533
"""Error of a median over that of a mean: the square root of pi / 2."""


def screen(
    values: np.ndarray,
    flags: np.ndarray,
    errors: np.ndarray | None = None,
    *,
    sigma: float = 7.0,
    max_missing_share: float = 0.5,
) -> tuple[np.ndarray, dict[tuple[int, int], str]]:
    """Flag dead antennas, solutions off the median template, and channels and antennas that are hardly left.

    The template of a polarization is the median over antennas of the amplitudes, each divided by the antenna's own
    median. A channel in which the template itself leaves its neighbours is interference in all antennas.

    Parameters
    ----------
    values : (n_antennas, n_channels, 2) complex
        Gains.
    flags : like values, bool
        Where there is no solution. Where the value is zero or not finite, there is none either.
    errors : like values, float, optional
        Standard errors: the solutions of an antenna that is weaker than others may scatter more.
    sigma : float
        How far from the template a solution may be, in robust standard deviations of all of them, or in the antenna's
        usual relative errors where those are larger.
    max_missing_share : float
        A channel (or an antenna) that more antennas (or channels) than this share lack is flagged altogether.
        Antennas without any solution do not count.

    Returns
    -------
    flags : like values, bool
        With those of the input.
    dead : dict of antenna number and polarization (0, 1) to reason
        Those that lost all solutions here.
    """
    flags = flags | ~np.isfinite(values) | (values == 0)
    dead: dict[tuple[int, int], str] = {}
    for k in range(2):
        amplitude = np.where(flags[:, :, k], np.nan, np.abs(values[:, :, k]))
        level = _median(amplitude, 1)
        usual = _median(level, 0)
        silent = level < DEAD_LEVEL * usual
        for p in np.flatnonzero(silent):
            dead[int(p), k] = f"its amplitude is {level[p] / usual:.0%} of the median"
        amplitude[silent] = np.nan
        had = ~flags[:, :, k].all(1) & ~silent
        own = np.zeros(level.shape) if errors is None else _median(errors[:, :, k] / amplitude, 1)
        _flag_off_template(amplitude / level[:, None], flags[:, :, k], own, sigma)
        flags[silent, :, k] = True
        _flag_remnants(flags[:, :, k], max_missing_share)
        lost = had & flags[:, :, k].all(1)
        if not flags[:, :, k].all():  # else it is not the antennas' fault
            for p in np.flatnonzero(lost):
                dead[int(p), k] = "most of its solutions are missing, or off those of the others"
    return flags, dead


def _flag_off_template(relative: np.ndarray, flags: np.ndarray, own_errors: np.ndarray, sigma: float) -> None:
    """Flag in place what is off, by the amplitudes (n_antennas, n_channels) relative to those of the antenna."""
    template = _median(relative, 0)
    there = np.flatnonzero(np.isfinite(template))
    if there.size == 0:
        return
    excess = template[there] / _neighbours(there, template[there]) - 1
    deviation = np.where(flags, np.nan, relative / template - 1)
    # few channels say little about their own scatter: so that of the template from its antennas counts as well
    noise = _spread(np.diff(deviation, axis=1), _ROUNDING) / np.sqrt(2)
    expected = _MEDIAN_TO_MEAN * noise / np.sqrt(max((~flags.all(1)).sum(), 1))
    flags[:, there[np.abs(excess) > sigma * max(_spread(excess, RIPPLE), expected)]] = True
    deviation[flags] = np.nan
    # zeros are the medians themselves, a third of all antennas in an array of three: they say nothing about scatter
    scatter = _spread(deviation[deviation != 0], _ROUNDING)
    flags |= np.abs(deviation) > sigma * np.maximum(scatter, own_errors)[:, None]


def _flag_remnants(flags: np.ndarray, max_missing_share: float) -> None:
    """Flag in place the channels and the antennas of which most is flagged."""
    alive = ~flags.all(1)
    if alive.any():
        flags |= (flags[alive].mean(0) > max_missing_share)[None, :]
    left = ~flags.all(0)
    if left.any():
        flags |= (flags[:, left].mean(1) > max_missing_share)[:, None]


def _median(array: np.ndarray, axis: int) -> np.ndarray:
    """Median without the NaN; NaN where there is nothing else."""
    empty = np.isnan(array).all(axis)
    safe = np.where(np.expand_dims(empty, axis), 0.0, array)
    return np.asarray(np.where(empty, np.nan, np.nanmedian(safe, axis)))


def _neighbours(channel: np.ndarray, line: np.ndarray) -> np.ndarray:
    """What the channels about each one let expect of it.

    That is their median; at the ends, where all neighbours are on one side, the median of what a straight line of the
    median slope (Theil & Sen) makes of them.
    """
    half = min(SMOOTH_CHANNELS // 2, (line.size - 1) // 2)
    width = 2 * half + 1
    result = line.copy()
    result[half : line.size - half] = np.median(np.lib.stride_tricks.sliding_window_view(line, width), axis=1)
    low, high = np.triu_indices(width, 1)
    for near, ends in ((slice(width), range(half)), (slice(-width, None), range(line.size - half, line.size))):
        x, y = channel[near], line[near]
        for i in ends:
            slope = np.median((y[high] - y[low]) / (x[high] - x[low]))
            result[i] = np.median(y + slope * (channel[i] - x))
    return result


def _spread(array: np.ndarray, least: float) -> float:
    """Robust standard deviation of what is no NaN, not below `least`; infinite where there is nothing."""
    finite = array[np.isfinite(array)]
    if finite.size == 0:
        return np.inf
    middle = np.median(finite)
    return max(float(_MAD_TO_SIGMA * np.median(np.abs(finite - middle))), least)
