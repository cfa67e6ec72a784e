"""Turning visibilities from one phase centre to another.

The phase centre of the telescope is the zenith of each integration, so integrations that are to be combined must
first be rephased to one direction.
"""

from __future__ import annotations

import numba
import numpy as np

from orca import geometry

SPEED_OF_LIGHT_M_S = 299_792_458.0


def rotation(time_s: float, old_rad: tuple[float, float], new_rad: tuple[float, float]) -> np.ndarray:
    """The (3, 3) matrix that turns the UVW of one phase centre into those of another at the same moment.

    Parameters
    ----------
    time_s : float
        Centre of the integration, MJD seconds UTC.
    old_rad, new_rad : (ra, dec)
        Phase centres, ICRS.
    """
    unit = geometry.array_position_itrf_m() + np.eye(3)
    old, new = (geometry.uvw_m(unit, *centre, time_s).T for centre in (old_rad, new_rad))
    return new @ old.T


@numba.njit("void(c8[:, :, ::1], f8[::1], f8, f8)", cache=True, nogil=True, error_model="numpy")
def rephase_block(data: np.ndarray, delta_w_m: np.ndarray, first_hz: float, step_hz: float) -> None:
    """Multiply visibilities in place by exp(2 pi i (w_old - w_new) nu / c).

    V = exp(+2 pi i (u l + v m + w (n - 1)) / lambda) is made of the geometric delay without that of the phase centre,
    exp(+2 pi i w / lambda): so the old one is put back and the new one taken out.

    Parameters
    ----------
    data : (n_rows, n_channels, n_correlations) complex64
    delta_w_m : (n_rows,) float
        w_old - w_new of each row.
    first_hz, step_hz : float
        Frequency of the first channel, and from one channel to the next.
    """
    n_rows, n_channels, n_correlations = data.shape
    for row in range(n_rows):
        turns = delta_w_m[row] / SPEED_OF_LIGHT_M_S
        phasor = np.exp(2j * np.pi * turns * first_hz)
        step = np.exp(2j * np.pi * turns * step_hz)
        for channel in range(n_channels):
            factor = np.complex64(phasor)
            for k in range(n_correlations):
                data[row, channel, k] *= factor
            phasor *= step
