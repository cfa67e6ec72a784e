"""The reference antenna: whose phase is zero in every channel, and which one steps in when it cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from orca.calibration.tables import Solutions

MAX_FLAGGED_SHARE = 0.5
"""A reference antenna may lack at most this share of the channels in which there are solutions at all."""


def choose_reference(flags: np.ndarray, positions_m: np.ndarray, wanted: int | None) -> int | None:
    """The wanted antenna, or the one that is nearest to the middle of those with the fewest flags.

    Parameters
    ----------
    flags : (n_antennas, n_channels, 2) bool
    positions_m : (n_antennas, 3) float
    wanted : int or None
        Antenna number; None if the array does not have the wanted one.

    Returns
    -------
    int or None
        None when no antenna has solutions in both polarizations (in all polarizations that anybody has any in).
    """
    open_channels = ~np.asarray(flags.all(0))
    missing = np.array([np.asarray(antenna)[open_channels].mean() if open_channels.any() else 1.0 for antenna in flags])
    one_dead = np.asarray((flags | ~open_channels).all(1))[:, open_channels.any(0)].any(1)
    missing[one_dead] = 1.0
    if wanted is not None and missing[wanted] <= MAX_FLAGGED_SHARE:
        return wanted
    if missing.min() >= 1.0:
        return None
    candidates = np.flatnonzero(missing <= missing.min() + 0.01)
    middle = np.median(positions_m[~one_dead], axis=0)
    return int(candidates[np.argmin(np.linalg.norm(positions_m[candidates] - middle, axis=1))])


def refer(values: np.ndarray, flags: np.ndarray, reference: int) -> np.ndarray:
    """Turn all gains so that those of the reference antenna are real and positive, in each channel and polarization.

    In a channel that the reference antenna lacks, the phases of all others are aligned with the nearest channel that
    it has.

    Parameters
    ----------
    values : (n_antennas, n_channels, 2) complex
    flags : like values, bool
    reference : int

    Returns
    -------
    array like values
    """
    result = values.copy()
    for k in range(2):
        had = np.flatnonzero(~flags[reference, :, k])
        if had.size == 0:
            continue
        result[:, had, k] *= np.exp(-1j * np.angle(values[reference, had, k]))[None, :]
        for c in np.flatnonzero(flags[reference, :, k]):
            near = had[np.argmin(np.abs(had - c))]
            both = ~flags[:, c, k] & ~flags[:, near, k]
            turn = np.angle(np.sum(result[both, c, k] * result[both, near, k].conj()))
            result[:, c, k] *= np.exp(-1j * turn)
    return result


def common_reference(
    windows: Sequence[Solutions], positions_m: np.ndarray, wanted: int
) -> tuple[int, list[Solutions]] | None:
    """Refer the solutions of all windows (of one time) to one antenna that has solutions in each of them.

    Returns
    -------
    int, list of Solutions
        The antenna, chosen as by `choose_reference`, and the windows; None when there is no such antenna.
    """
    flags = [window.flags[0] for window in windows]
    absent = np.any([f.all(1)[:, ~f.all((0, 1))].any(1) for f in flags], axis=0)
    everywhere = np.concatenate(flags, axis=1)
    everywhere[absent] = True
    common = choose_reference(everywhere, positions_m, wanted)
    if common is None:
        return None
    referred = [refer(window.values[0], flag, common)[None] for window, flag in zip(windows, flags, strict=True)]
    return common, [
        replace(window, values=values, reference_antenna=common)
        for window, values in zip(windows, referred, strict=True)
    ]


def not_connected(first: np.ndarray, second: np.ndarray, joined: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """Antennas that no chain of baselines connects with the largest group: their phase has no reference.

    Parameters
    ----------
    first, second : (n_baselines,) int
    joined : (n_baselines,) bool
        Baselines with data.
    alive : (n_antennas,) bool
        Antennas that count; the others connect nothing.

    Returns
    -------
    antenna numbers
    """
    if not alive.any():
        return np.array([], int)
    use = joined & alive[first] & alive[second]
    label = np.arange(alive.size)
    while True:
        lowest = label.copy()
        np.minimum.at(lowest, first[use], label[second[use]])
        np.minimum.at(lowest, second[use], label[first[use]])
        lowest = lowest[lowest]
        if np.array_equal(lowest, label):
            break
        label = lowest
    largest = np.bincount(label[alive]).argmax()
    return np.flatnonzero(alive & (label != largest))
