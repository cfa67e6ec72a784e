"""The reference antenna: whose phase is zero in every channel, and which one steps in when it cannot."""

from __future__ import annotations

import numpy as np

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
        None when no antenna has solutions in both polarizations.
    """
    open_channels = ~np.asarray(flags.all(0))
    missing = np.array([np.asarray(antenna)[open_channels].mean() if open_channels.any() else 1.0 for antenna in flags])
    one_dead = (flags | ~open_channels).all(1)[:, open_channels.any(0)].any(1)
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
