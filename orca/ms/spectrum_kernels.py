"""Sums over the rows of a block, without the interpreter's lock: amplitudes, and Stokes I and V towards a direction."""

from __future__ import annotations

import numba
import numpy as np

from orca.ms.rephase import SPEED_OF_LIGHT_M_S


# The signatures make numba compile, or load, at import: a child that is forked then has it already.
@numba.njit("void(c8[::1], b1[::1], f4[::1], f4[::1], f4[:, ::1])", cache=True, nogil=True, error_model="numpy")
def _add(data: np.ndarray, flag: np.ndarray, left: np.ndarray, right: np.ndarray, sums: np.ndarray) -> None:
    total, number = sums[0], sums[1]
    for i in range(data.size):
        value = data[i]
        amplitude = np.sqrt(value.real * value.real + value.imag * value.imag) * (left[i] * right[i])
        good = (not flag[i]) & (amplitude > 0) & (amplitude < np.inf)  # no sample is zero, nor not a number
        total[i] += amplitude if good else np.float32(0)
        number[i] += np.float32(1) if good else np.float32(0)


@numba.njit(
    "void(c8[:, ::1], b1[:, ::1], i4[::1], i4[::1], i4[:, ::1], f4[:, ::1], f4[:, ::1], f4[:, :, ::1])",
    cache=True,
    nogil=True,
    error_model="numpy",
)
def add_amplitudes(
    data: np.ndarray,
    flag: np.ndarray,
    antenna1: np.ndarray,
    antenna2: np.ndarray,
    wanted: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Add the calibrated amplitudes of a block of rows, and count them.

    Samples that are flagged, zero or not finite are left out, and so are those of which a factor is zero.

    Parameters
    ----------
    data : (n_rows, n_samples) complex64
        Visibilities, n_samples = n_channels * n_correlations.
    flag : like data, bool
    antenna1, antenna2 : (n_rows,) int32
    wanted : (n_antennas, n_antennas) int32
        Which of the sums, besides the first, a baseline belongs to; 0 for none.
    left, right : (n_antennas, n_samples) float32
        Absolute values of the factors of ANTENNA1 and ANTENNA2; 0 where there is no solution.
    sums : (n_sums, 2, n_samples) float32
        Amplitudes and their numbers are added here: the first of all cross correlations, others of single baselines.
        Numbers stay exact up to 2 ** 24.
    """
    for row in range(data.shape[0]):
        p, q = antenna1[row], antenna2[row]
        if p != q:
            _add(data[row], flag[row], left[p], right[q], sums[0])
        if wanted[p, q]:
            _add(data[row], flag[row], left[p], right[q], sums[wanted[p, q]])


@numba.njit(
    "void(c8[:, :, ::1], b1[:, :, ::1], i4[::1], i4[::1], c8[:, :, ::1], c8[:, :, ::1], f8[::1], f8, f8, i8[::1],"
    " f8[:, :, ::1])",
    cache=True,
    nogil=True,
    error_model="numpy",
)
def add_stokes(
    data: np.ndarray,
    flag: np.ndarray,
    antenna1: np.ndarray,
    antenna2: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    path_m: np.ndarray,
    first_hz: float,
    step_hz: float,
    products: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Add the real parts of Stokes I and V of a block of cross correlations, phased up towards a direction.

    I = (XX + YY) / 2 and V = (XY - YX) / 2i of V_pq exp(-2 pi i (u l + v m + w (n - 1)) nu / c); each where both of its
    correlations are good, in the meaning of `add_amplitudes`.

    Parameters
    ----------
    data : (n_rows, n_channels, n_correlations) complex64
    flag : like data, bool
    antenna1, antenna2 : (n_rows,) int32
    left, right : (n_antennas, n_channels, n_correlations) complex64
        Factors of ANTENNA1 and ANTENNA2; 0 where there is no solution.
    path_m : (n_rows,) float
        u l + v m + w (n - 1).
    first_hz, step_hz : float
        Frequency of the first channel, and from one channel to the next.
    products : (4,) int
        Where XX, YY, XY and YX are among the correlations; -1 for those that are not.
    sums : (2, 2, n_channels) float
        Of I and of V, each the sum and the number.
    """
    n_rows, n_channels, _ = data.shape
    for row in range(n_rows):
        p, q = antenna1[row], antenna2[row]
        if p == q:
            continue
        turns = -2j * np.pi * path_m[row] / SPEED_OF_LIGHT_M_S
        phasor, step = np.exp(turns * first_hz), np.exp(turns * step_hz)
        for channel in range(n_channels):
            for stokes in range(2):
                first, second = products[2 * stokes], products[2 * stokes + 1]
                if first < 0 or second < 0 or flag[row, channel, first] or flag[row, channel, second]:
                    continue
                one = data[row, channel, first] * left[p, channel, first] * right[q, channel, first]
                other = data[row, channel, second] * left[p, channel, second] * right[q, channel, second]
                if one == 0 or other == 0 or not (np.isfinite(one) and np.isfinite(other)):
                    continue
                value = 0.5 * (one + other) if stokes == 0 else -0.5j * (one - other)
                sums[stokes, 0, channel] += (value * phasor).real
                sums[stokes, 1, channel] += 1
            phasor *= step
