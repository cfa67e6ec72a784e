"""Sums over data that were never recorded, of gains that are known; and their least squares in double precision."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from orca import telescope
from orca.calibration.accumulate import Sums
from orca.ms import synthetic
from orca.ms.info import MsInfo


def an_info(antennas: int = 24, channels: int = 16, band: int = 73) -> MsInfo:
    """What `inspect` says of a simulated Measurement Set, with as many channels as one likes."""
    array = synthetic.antennas(antennas)
    subband = telescope.subband(band)
    return MsInfo(
        path=Path("/nowhere/20260110_203100_73MHz.ms"),
        n_rows=antennas * (antennas + 1) // 2,
        n_antennas=antennas,
        n_channels=channels,
        n_correlations=4,
        antenna_names=array.names,
        positions_m=array.itrf_m,
        freq_hz=subband.first_channel_hz + telescope.CHANNEL_WIDTH_HZ * np.arange(channels),
        channel_width_hz=telescope.CHANNEL_WIDTH_HZ,
        receptors=np.array([[0, 0], [0, 1], [1, 0], [1, 1]]),
        subband=subband.name,
        time_s=np.array([5.275e9]),
        start_s=5.275e9 - 5,
        interval_s=telescope.INTEGRATION_S,
        phase_centre_rad=(5.0, 0.65),
        fill_level=1.0,
        zero_share=0.0,
        nonfinite_share=0.0,
        columns=("DATA",),
    )


@dataclass
class Made:
    """Sums and the gains (n_antennas, n_channels, 2) that are in them."""

    sums: Sums
    gains: np.ndarray


def some_sums(
    antennas: int = 24,
    channels: int = 16,
    *,
    noise: float = 0.0,
    gains: np.ndarray | None = None,
    same_weights: bool = False,
    seed: int = 1,
) -> Made:
    """Sums over one integration in which sum |M|^2 is 0.5 to 2, and the noise of a visibility of unit model `noise`.

    `noise` is the standard deviation of the real and of the imaginary part; `gains` are random if not given; with
    `same_weights`, sum |M|^2 is the same in all channels.
    """
    rng = np.random.default_rng(seed)
    info = an_info(antennas, channels)
    first, second = (axis.astype(np.int32) for axis in np.triu_indices(antennas, 1))
    shape = (antennas, channels, 2)
    if gains is None:
        gains = rng.uniform(0.7, 1.4, (antennas, 1, 2)) * np.exp(2j * np.pi * rng.uniform(0, 1, shape))
    mm = rng.uniform(0.5, 2, (first.size, channels, 2)).astype(np.float32)
    if same_weights:
        mm[:] = mm[:, :1]
    scatter = rng.standard_normal(mm.shape) + 1j * rng.standard_normal(mm.shape)
    vm = gains[first] * gains[second].conj() * mm + noise * np.sqrt(mm) * scatter
    power, samples = np.full(shape, 100.0), np.ones(shape)
    return Made(Sums(first, second, vm.astype(np.complex64), mm, power, samples, info, [5.275e9]), gains)


def exact_gains(first: np.ndarray, second: np.ndarray, vm: np.ndarray, mm: np.ndarray, n_antennas: int) -> np.ndarray:
    """Gains (n_antennas,) that minimize sum |A - B g_p g_q*|^2 / B: Gauss-Newton with dense matrices, in float64.

    `vm` and `mm` are those of one channel and polarization; the phase of antenna 0 is free.
    """
    use = mm > 0
    p, q, b = first[use], second[use], mm[use].astype(float)
    data = vm[use].astype(complex) / np.sqrt(b)
    matrix = np.zeros((n_antennas, n_antennas), complex)
    matrix[p, q], matrix[q, p] = vm[use] / b, vm[use].conj() / b
    values, vectors = np.linalg.eigh(matrix)
    g = vectors[:, -1] * np.sqrt(values[-1])
    rows = np.arange(p.size)
    for _ in range(100):
        rest = data - np.sqrt(b) * g[p] * g[q].conj()
        jacobian = np.zeros((p.size, n_antennas, 2), complex)
        jacobian[rows, p, 0] = np.sqrt(b) * g[q].conj()
        jacobian[rows, p, 1] = 1j * np.sqrt(b) * g[q].conj()
        jacobian[rows, q, 0] = np.sqrt(b) * g[p]
        jacobian[rows, q, 1] = -1j * np.sqrt(b) * g[p]
        flat = jacobian.reshape(p.size, -1)
        real = np.concatenate([flat.real, flat.imag])
        step = np.linalg.lstsq(real, np.concatenate([rest.real, rest.imag]), rcond=1e-10)[0].reshape(-1, 2)
        g = g + step[:, 0] + 1j * step[:, 1]
        if np.abs(step).max() < 1e-13:
            return g
    raise ArithmeticError("the least squares of the test did not converge")


def aligned(gains: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Gains with the common phase (over the first axis) that brings them closest to others."""
    return gains * np.exp(1j * np.angle((like * gains.conj()).sum(0)))[None]
