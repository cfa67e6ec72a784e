"""Gains from sums over the data, by alternating least squares: StefCal of Salvini & Wijnholds 2014, A&A 571, A97.

For one channel and polarization, with A_pq = sum V M* and B_pq = sum |M|^2, the gain of antenna p that fits best when
all others are held is sum_q A_pq g_q / sum_q B_pq |g_q|^2. All antennas are solved so at once, and every second step is
the mean of the last two, which makes it converge.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

import numba
import numpy as np

CHANNELS_TOGETHER = 4
"""Channels that one thread solves one after the other: a line of the processor's cache holds four of a baseline."""
LEAST_TOLERANCE = 1e-7
"""Solutions in single precision do not come to rest more closely than this."""
_CHECK_EVERY = 2


@dataclass(frozen=True)
class Gains:
    """Gains of one subband before anything is flagged or referenced.

    Attributes
    ----------
    values : (n_antennas, n_channels, 2) complex64
        0 where there is none.
    errors : like values, float32
        Standard error of the real and of the imaginary part, from the scatter of the data about the fit; with phases
        relative to the whole array. A phase relative to antenna r has the error
        sqrt((e_p / abs(g_p))^2 + (e_r / abs(g_r))^2), but neither the phase of r nor its error is in the products
        g_p g_q*, which are what calibrates data.
    baselines : like values, int32
        Number of baselines that the solution rests on.
    iterations : (n_channels, 2) int32
    converged : (n_channels, 2) bool
    """

    values: np.ndarray
    errors: np.ndarray
    baselines: np.ndarray
    iterations: np.ndarray
    converged: np.ndarray


def solve(
    first: np.ndarray,
    second: np.ndarray,
    vm: np.ndarray,
    mm: np.ndarray,
    use: np.ndarray,
    *,
    min_baselines: int,
    max_iterations: int,
    tolerance: float,
    threads: int = 1,
) -> Gains:
    """Solve each channel and polarization.

    Parameters
    ----------
    first, second, vm, mm
        As in `orca.calibration.accumulate.Sums`.
    use : (n_antennas, n_channels, 2) bool
        Antennas, channels and polarizations that take part.
    min_baselines : int
        Antennas with fewer to others that take part get no solution.
    max_iterations, tolerance
        A channel has converged when the solution changes by less than `tolerance`, relative to its norm, in two steps;
        below `LEAST_TOLERANCE` is taken for that.
    threads : int
        Channels are shared among so many.
    """
    shape = use.shape
    result = Gains(
        np.zeros(shape, np.complex64),
        np.zeros(shape, np.float32),
        np.zeros(shape, np.int32),
        np.zeros(shape[1:], np.int32),
        np.zeros(shape[1:], bool),
    )
    arrays = (result.values, result.errors, result.baselines, result.iterations, result.converged)
    starts = range(0, shape[1], CHANNELS_TOGETHER)
    spaces: SimpleQueue[np.ndarray] = SimpleQueue()  # one for each thread, since memory is dear when it is new
    for _ in range(threads):
        spaces.put(np.empty((3, 2 * CHANNELS_TOGETHER, shape[0], shape[0]), np.float32))

    def some(start: int) -> None:
        stop = min(start + CHANNELS_TOGETHER, shape[1])
        limits = (min_baselines, max_iterations, max(float(tolerance), LEAST_TOLERANCE))
        space = spaces.get()
        _solve_channels(start, stop, first, second, vm, mm, use, *limits, *space, *arrays)
        spaces.put(space)

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(some, starts):
            pass
    return result


@numba.njit(cache=True, nogil=True)
def _thin_out(real: np.ndarray, imag: np.ndarray, weight: np.ndarray, min_baselines: int) -> np.ndarray:
    """Take out antennas with too few baselines until all that are left have enough; returns how many each has."""
    n = weight.shape[0]
    counts = np.zeros(n, np.int32)
    for p in range(n):
        for q in range(n):
            counts[p] += weight[p, q] > 0
    changed = True
    while changed:
        changed = False
        for p in range(n):
            if 0 < counts[p] < min_baselines:
                changed = True
                for q in range(n):
                    if weight[p, q] > 0:
                        real[p, q], real[q, p], imag[p, q], imag[q, p] = 0, 0, 0, 0
                        weight[p, q], weight[q, p] = 0, 0
                        counts[q] -= 1
                counts[p] = 0
    return counts


@numba.njit(cache=True, nogil=True, fastmath=True)
def _project(
    real: np.ndarray, imag: np.ndarray, weight: np.ndarray, x: np.ndarray, y: np.ndarray, norms: np.ndarray
) -> tuple:
    """Sums over q of A_pq g_q (real and imaginary part) and of B_pq |g_q|^2."""
    above_x, above_y, below = np.float32(0), np.float32(0), np.float32(0)
    for q in range(x.size):
        above_x += real[q] * x[q] - imag[q] * y[q]
        above_y += real[q] * y[q] + imag[q] * x[q]
        below += weight[q] * norms[q]
    return above_x, above_y, below


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _iterate(
    real: np.ndarray,
    imag: np.ndarray,
    weight: np.ndarray,
    counts: np.ndarray,
    guess: np.ndarray,
    max_iterations: int,
    tolerance: float,
) -> tuple:
    """Gains of one channel and polarization: number of steps, whether they converged, gains."""
    n = weight.shape[0]
    strength, model = 0.0, 0.0
    for p in range(n):
        for q in range(p + 1, n):
            strength += np.hypot(real[p, q], imag[p, q])
            model += weight[p, q]
    level = np.float32(np.sqrt(strength / model))
    x, y = np.zeros(n, np.float32), np.zeros(n, np.float32)  # real and imaginary parts apart: so the loops vectorize
    for p in range(n):
        if counts[p] > 0:
            x[p], y[p] = guess[p].real, guess[p].imag
            if x[p] == 0 and y[p] == 0:
                x[p] = level
    x_old, y_old = x.copy(), y.copy()
    x_new, y_new, norms = x.copy(), y.copy(), np.empty(n, np.float32)
    step, done = 0, False
    while step < max_iterations and not done:
        for q in range(n):
            norms[q] = x[q] * x[q] + y[q] * y[q]
        for p in range(n):
            if counts[p] > 0:
                above_x, above_y, below = _project(real[p], imag[p], weight[p], x, y, norms)
                x_new[p] = above_x / below if below > 0 else np.float32(0)
                y_new[p] = above_y / below if below > 0 else np.float32(0)
        step += 1
        if step % _CHECK_EVERY:
            x[:], y[:] = x_new, y_new
            continue
        moved, size = 0.0, 0.0
        for p in range(n):
            x[p], y[p] = (x[p] + x_new[p]) / np.float32(2), (y[p] + y_new[p]) / np.float32(2)
            moved += (x[p] - x_old[p]) ** 2 + (y[p] - y_old[p]) ** 2
            size += x[p] ** 2 + y[p] ** 2
            x_old[p], y_old[p] = x[p], y[p]
        done = moved <= tolerance * tolerance * size
    gains = np.empty(n, np.complex64)
    for p in range(n):
        gains[p] = np.complex64(complex(x[p], y[p]))
    return step, done, gains


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _variances(
    real: np.ndarray, imag: np.ndarray, weight: np.ndarray, gains: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """Variance of each complex gain.

    A_pq / B_pq scatters about g_p g_q* with the variance sigma^2 / B_pq; sigma^2 is taken from all baselines of the
    antenna. Of each baseline the fit used up a share for either antenna: the baseline's part of what that one's gain
    rests on.
    """
    n = gains.size
    below, result = np.zeros(n), np.zeros(n)
    for p in range(n):
        for q in range(n):
            below[p] += weight[p, q] * (gains[q].real ** 2 + gains[q].imag ** 2)
    for p in range(n):
        if counts[p] == 0 or not below[p] > 0:
            continue
        residual, used_up = 0.0, 1.0
        norm = gains[p].real ** 2 + gains[p].imag ** 2
        for q in range(n):
            if weight[p, q] > 0:
                fit = gains[p] * np.conj(gains[q]) * weight[p, q]
                residual += ((real[p, q] - fit.real) ** 2 + (imag[p, q] - fit.imag) ** 2) / weight[p, q]
                if below[q] > 0:
                    used_up += weight[p, q] * norm / below[q]
        result[p] = residual / max(counts[p] - used_up, 1.0) / below[p]
    return result


@numba.njit(
    "void(i8, i8, i4[::1], i4[::1], c8[:, :, ::1], f4[:, :, ::1], b1[:, :, ::1], i8, i8, f8, f4[:, :, ::1],"
    " f4[:, :, ::1], f4[:, :, ::1], c8[:, :, ::1], f4[:, :, ::1], i4[:, :, ::1], i4[:, ::1], b1[:, ::1])",
    cache=True,
    nogil=True,
    error_model="numpy",
)
def _solve_channels(
    start: int,
    stop: int,
    first: np.ndarray,
    second: np.ndarray,
    vm: np.ndarray,
    mm: np.ndarray,
    use: np.ndarray,
    min_baselines: int,
    max_iterations: int,
    tolerance: float,
    real: np.ndarray,
    imag: np.ndarray,
    weight: np.ndarray,
    values: np.ndarray,
    errors: np.ndarray,
    baselines: np.ndarray,
    iterations: np.ndarray,
    converged: np.ndarray,
) -> None:
    """Solve some neighbouring channels; each starts from the solution of the one before.

    `real`, `imag` and `weight`, (channels and polarizations, n_antennas, n_antennas), are room to work in.
    """
    n = use.shape[0]
    real[:], imag[:], weight[:] = 0, 0, 0
    for i in range(first.size):
        p, q = first[i], second[i]
        for c in range(start, stop):
            for k in range(2):
                if mm[i, c, k] > 0 and use[p, c, k] and use[q, c, k]:
                    j, a = (c - start) * 2 + k, vm[i, c, k]
                    real[j, p, q], real[j, q, p] = a.real, a.real
                    imag[j, p, q], imag[j, q, p] = a.imag, -a.imag
                    weight[j, p, q], weight[j, q, p] = mm[i, c, k], mm[i, c, k]
    guess = np.zeros((2, n), np.complex64)
    for c in range(start, stop):
        for k in range(2):
            j = (c - start) * 2 + k
            counts = _thin_out(real[j], imag[j], weight[j], min_baselines)
            if counts.max() == 0:
                continue
            last, done, gains = _iterate(real[j], imag[j], weight[j], counts, guess[k], max_iterations, tolerance)
            iterations[c, k], converged[c, k] = last, done
            variance = _variances(real[j], imag[j], weight[j], gains, counts)
            for p in range(n):
                values[p, c, k] = gains[p]
                errors[p, c, k] = np.sqrt(variance[p] / 2)
                baselines[p, c, k] = counts[p]
            if done:
                guess[k] = gains
