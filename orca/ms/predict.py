"""Visibilities of points and noise, baseline by baseline: the numba kernel of the simulator."""

from __future__ import annotations

import numba
import numpy as np

from orca.ms.rephase import SPEED_OF_LIGHT_M_S


@numba.njit(cache=True, nogil=True, error_model="numpy")
def fill_block(
    data: np.ndarray,
    antenna1: np.ndarray,
    antenna2: np.ndarray,
    uvw_m: np.ndarray,
    frequency_hz: np.ndarray,
    cosines: np.ndarray,
    flux_jy: np.ndarray,
    voltage: np.ndarray,
    alive: np.ndarray,
    sefd_jy: np.ndarray,
    noise_jy: np.ndarray,
    line: np.ndarray,
    rfi: np.ndarray,
) -> None:
    """Turn unit noise into visibilities, in place.

    Parameters
    ----------
    data : (n_rows, n_channels, 4) complex64
        Normal deviates of unit variance in the real and in the imaginary part.
    antenna1, antenna2 : (n_rows,) int32
    uvw_m : (n_antennas, 3) float64
    frequency_hz : (n_channels,) float64
        Evenly spaced: the phase of a source advances by the same turn from channel to channel.
    cosines : (n_sources, 3) float64
        l, m, n - 1.
    flux_jy : (n_sources, n_channels, 2) float64
        What X and Y see of each source.
    voltage, alive, sefd_jy : see `orca.ms.simulate.Instrument`
    noise_jy : (n_channels,) float32
    line, rfi : see `orca.ms.synthetic.Interference`
    """
    n_channels = data.shape[1]
    step_hz = frequency_hz[1] - frequency_hz[0] if n_channels > 1 else 0.0
    model = np.empty((n_channels, 2), np.complex128)
    for row in range(data.shape[0]):
        p, q = antenna1[row], antenna2[row]
        model[:] = 0
        for s in range(cosines.shape[0]):
            path_m = 0.0
            for axis in range(3):
                path_m += (uvw_m[q, axis] - uvw_m[p, axis]) * cosines[s, axis]
            turn = 2j * np.pi * path_m / SPEED_OF_LIGHT_M_S
            phasor, step = np.exp(turn * frequency_hz[0]), np.exp(turn * step_hz)
            for c in range(n_channels):
                model[c, 0] += flux_jy[s, c, 0] * phasor
                model[c, 1] += flux_jy[s, c, 1] * phasor
                phasor *= step
        heard_x, heard_y = alive[p, 0] * alive[q, 0], alive[p, 1] * alive[q, 1]
        for c in range(n_channels):
            xx, xy = data[row, c, 0] * noise_jy[c], data[row, c, 1] * noise_jy[c]
            yx, yy = data[row, c, 2] * noise_jy[c], data[row, c, 3] * noise_jy[c]
            if p == q:  # powers are real, and twice as uncertain as a component of a cross correlation
                root = np.float32(np.sqrt(2.0))
                xx = np.complex64(sefd_jy[c] + root * xx.real)
                yy = np.complex64(sefd_jy[c] + root * yy.real)
                yx = np.conj(xy)
            xx += np.complex64(model[c, 0]) * heard_x
            yy += np.complex64(model[c, 1]) * heard_y
            if line[c] >= 0:
                here, there = rfi[line[c], p] * alive[p], np.conj(rfi[line[c], q]) * alive[q]
                xx += here[0] * there[0]
                xy += here[0] * there[1]
                yx += here[1] * there[0]
                yy += here[1] * there[1]
            px, py = voltage[p, c, 0], voltage[p, c, 1]
            qx, qy = np.conj(voltage[q, c, 0]), np.conj(voltage[q, c, 1])
            data[row, c, 0] = px * xx * qx
            data[row, c, 1] = px * xy * qy
            data[row, c, 2] = py * yx * qx
            data[row, c, 3] = py * yy * qy
