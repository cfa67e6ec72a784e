"""Averaging of channels: the mean of the samples that are not flagged, as CASA's mstransform makes it."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(
    "Tuple((c8[:, :, ::1], b1[:, :, ::1], f4[:, ::1]))(c8[:, :, ::1], b1[:, :, ::1], i8)", cache=True, nogil=True
)
def average_block(data: np.ndarray, flag: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Average each `factor` neighbouring channels of a block of rows.

    Parameters
    ----------
    data : (n_rows, n_channels, n_correlations) complex64
    flag : like data, bool
    factor : int
        Must divide the number of channels.

    Returns
    -------
    mean : (n_rows, n_channels / factor, n_correlations) complex64
        Of the samples that are not flagged; of all of them where all are flagged.
    flag : like mean, bool
        Where all are flagged.
    weight : (n_rows, n_correlations) float32
        Samples that are not flagged in an averaged channel, in the mean of those channels that have any: what the
        input's WEIGHT, which is that of one sample, is to be multiplied with. 0 where all are flagged.
    """
    n_rows, n_channels, n_correlations = data.shape
    n_out = n_channels // factor
    mean = np.empty((n_rows, n_out, n_correlations), np.complex64)
    empty = np.empty((n_rows, n_out, n_correlations), np.bool_)
    weight = np.empty((n_rows, n_correlations), np.float32)
    for row in range(n_rows):
        for k in range(n_correlations):
            used = channels = 0
            for out in range(n_out):
                good = every = np.complex64(0)
                n = 0
                for channel in range(out * factor, (out + 1) * factor):
                    value = data[row, channel, k]
                    every += value
                    if not flag[row, channel, k]:
                        good += value
                        n += 1
                used += n
                channels += n > 0
                mean[row, out, k] = good / np.float32(n) if n else every / np.float32(factor)
                empty[row, out, k] = n == 0
            weight[row, k] = used / channels if channels else 0
    return mean, empty, weight
