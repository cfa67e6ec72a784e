"""Bandpasses and delays as the solver would find them in simulated data: the truth and noise."""

from __future__ import annotations

import numpy as np

from orca import telescope
from orca.calibration.tables import Solutions, make_solutions
from orca.ms import synthetic

LEVEL = 40.0
TIME_S = 5.275e9


def a_bandpass(
    antennas: int = 24, channels: int = 16, noise: float = 0.01, seed: int = 1, band: int = 73, average: int = 1
) -> Solutions:
    """Gains of about `LEVEL`, with relative noise of that standard deviation in the real and in the imaginary part."""
    array = synthetic.antennas(antennas)
    subband = telescope.subband(band)
    frequency = subband.frequencies_hz(channels * average, average)
    rng = np.random.default_rng(seed)
    values = LEVEL * synthetic.gains(array.index, subband, frequency, 0)
    values *= 1 + noise * (rng.standard_normal(values.shape) + 1j * rng.standard_normal(values.shape))
    return make_solutions(
        "B Jones",
        values,
        time_s=TIME_S,
        antenna_names=array.names,
        frequency_hz=frequency,
        channel_width_hz=average * telescope.CHANNEL_WIDTH_HZ,
        snr=np.full(values.shape, 1 / noise),
        reference_antenna=0,
    )


def some_delays(antennas: int = 24, noise_ns: float = 0.1, seed: int = 1) -> Solutions:
    """The simulator's delays, relative to antenna 0."""
    array = synthetic.antennas(antennas)
    values = synthetic.delays_ns(array.index, 0)
    values = values - values[:1] + noise_ns * np.random.default_rng(seed).standard_normal(values.shape)
    return make_solutions(
        "K Jones",
        values[:, None, :],
        time_s=TIME_S,
        antenna_names=array.names,
        frequency_hz=telescope.subband(73).frequencies_hz(),
        channel_width_hz=telescope.CHANNEL_WIDTH_HZ,
        errors=np.full((antennas, 1, 2), noise_ns),
        reference_antenna=0,
    )
