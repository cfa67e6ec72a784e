"""Which solutions are not to be used: those that are off what all antennas have in common, and what remains alone."""

from __future__ import annotations

import numpy as np

DEAD_LEVEL = 0.1
"""An antenna with less than this share of the median amplitude hears nothing of the sky."""
SMOOTH_CHANNELS = 9
"""Channels of the running median that the common bandpass is compared with; receivers do not change faster."""
_MAD_TO_SIGMA = 1.4826


def screen(
    values: np.ndarray, flags: np.ndarray, *, sigma: float = 7.0, max_missing_share: float = 0.5
) -> tuple[np.ndarray, dict[int, str]]:
    """Flag dead antennas, solutions off the median template, and channels and antennas that are hardly left.

    The template of a polarization is the median over antennas of the amplitudes, each divided by the antenna's own
    median. A channel in which the template itself leaves its neighbours is interference in all antennas.

    Parameters
    ----------
    values : (n_antennas, n_channels, 2) complex
        Gains.
    flags : like values, bool
        Where there is no solution.
    sigma : float
        How far from the template a solution may be, in robust standard deviations of all of them.
    max_missing_share : float
        A channel (or an antenna) that more antennas (or channels) than this share lack is flagged altogether.
        Antennas without any solution do not count.

    Returns
    -------
    flags : like values, bool
        With those of the input.
    dead : dict of antenna number to reason
        Antennas that lost all solutions of a polarization here.
    """
    flags = flags.copy()
    dead: dict[int, str] = {}
    for k in range(2):
        amplitude = np.where(flags[:, :, k], np.nan, np.abs(values[:, :, k]))
        level = _median(amplitude, 1)
        usual = _median(level, 0)
        silent = level < DEAD_LEVEL * usual
        for p in np.flatnonzero(silent):
            dead[int(p)] = f"its amplitude in {'XY'[k]} is {level[p] / usual:.0%} of the median"
        amplitude[silent] = np.nan
        _flag_off_template(amplitude / level[:, None], flags[:, :, k], sigma)
        flags[silent, :, k] = True
        _flag_remnants(flags[:, :, k], max_missing_share)
    return flags, dead


def _flag_off_template(relative: np.ndarray, flags: np.ndarray, sigma: float) -> None:
    """Flag in place what is off, by the amplitudes (n_antennas, n_channels) relative to those of the antenna."""
    template = _median(relative, 0)
    excess = template / _running_median(template) - 1
    flags |= (np.abs(excess) > sigma * _spread(excess))[None, :]
    deviation = np.where(flags, np.nan, relative / template - 1)
    flags |= np.abs(deviation) > sigma * _spread(deviation)


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


def _running_median(line: np.ndarray) -> np.ndarray:
    half = min(SMOOTH_CHANNELS // 2, (line.size - 1) // 2)
    padded = np.pad(line, half, mode="reflect") if half else line
    return _median(np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1), 1)


def _spread(array: np.ndarray) -> float:
    """Robust standard deviation of what is no NaN; not below what rounding makes."""
    finite = array[np.isfinite(array)]
    if finite.size == 0:
        return np.inf
    middle = np.median(finite)
    return max(float(_MAD_TO_SIGMA * np.median(np.abs(finite - middle))), 1e-4)
