"""The delay of each antenna and polarization from the phases of its gains, over all subbands at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orca.calibration.tables import Solutions
from orca.errors import InvalidDataError, MismatchError

MIN_CHANNELS = 24
MIN_COHERENCE = 0.5
"""Share of the gains that must add up in phase once the delay is taken out."""
MAX_CHANCE = 1e-3
"""How likely random phases may add up as well: of few channels, more of them must."""
_PAD = 4
_NEARLY, _MOST_PEAKS = 0.9, 16
_FIT_STEPS = 5


@dataclass(frozen=True)
class Delays:
    """Delays relative to the reference antenna.

    Attributes
    ----------
    values_ns, errors_ns : (n_antennas, 2) float
        A delay tau turns the phase by 2 pi tau nu; the error is from the scatter of the phases about the line, which
        is that of the reference antenna's phases, too.
    coherence : (n_antennas, 2) float
        Length of the mean of the gains' phase factors after the fit, 1 for a perfect line.
    flags : (n_antennas, 2) bool
        Where there is none: too few channels, or no line in them that is more than chance.
    frequency_hz : (n_channels,) float
        Channels that took part.
    """

    values_ns: np.ndarray
    errors_ns: np.ndarray
    coherence: np.ndarray
    flags: np.ndarray
    frequency_hz: np.ndarray


def fit_delays(windows: Sequence[Solutions], min_coherence: float = MIN_COHERENCE) -> Delays:
    """Find the delay with which the phases of an antenna turn along the frequency.

    A Fourier transform over the channels of all subbands, zero where there are none, shows the delay as a peak; a
    straight line through the phases that are left without it refines it, and of several peaks the most coherent line
    counts. An offset of phase is free, one for all subbands.

    Parameters
    ----------
    windows : sequence of Solutions
        Gains (B Jones) of one subband each and of one time, referred to the same antenna.
    min_coherence : float
        See `Delays.coherence`.

    Raises
    ------
    InvalidDataError, MismatchError
        There are none, or they are of different arrays or reference antennas.
    """
    if not windows:
        raise InvalidDataError("no solutions to find delays in")
    if any(w.antenna_names != windows[0].antenna_names for w in windows):
        raise MismatchError("the solutions are of different arrays")
    if any(w.reference_antenna != windows[0].reference_antenna for w in windows):
        raise MismatchError("the solutions are referred to different antennas")
    frequency = np.concatenate([w.frequency_hz for w in windows])
    gains = np.concatenate([w.values[0] for w in windows], axis=1)
    good = np.concatenate([~w.flags[0] for w in windows], axis=1) & (gains != 0)
    step_hz = float(min(w.channel_width_hz.min() for w in windows))
    slot = np.rint((frequency - frequency.min()) / step_hz).astype(int)
    size = 1 << int(np.ceil(np.log2(_PAD * (slot.max() + 1))))

    shape = (gains.shape[0], 2)
    values, errors, coherence, flags = np.zeros(shape), np.zeros(shape), np.zeros(shape), np.ones(shape, bool)
    for p in range(shape[0]):
        for k in range(2):
            use = good[p, :, k]
            if use.sum() >= MIN_CHANNELS:
                phasor = gains[p, use, k] / np.abs(gains[p, use, k])
                starts = _peaks(phasor, slot[use], size) / step_hz
                found = max((_line(phasor, frequency[use], start) for start in starts), key=lambda line: line[2])
                values[p, k], errors[p, k], coherence[p, k] = found
                flags[p, k] = coherence[p, k] < max(min_coherence, _by_chance(size, phasor.size))
    values[flags] = errors[flags] = 0
    return Delays(values * 1e9, errors * 1e9, coherence, flags, frequency)


def _by_chance(n_tried: int, n_channels: int) -> float:
    """What the most coherent of `n_tried` delays of random phases seldom exceeds: each is above c in exp(-n c^2)."""
    return float(np.sqrt(np.log(n_tried / MAX_CHANCE) / n_channels))


def _peaks(phasor: np.ndarray, slot: np.ndarray, size: int) -> np.ndarray:
    """Turns from one channel to the next, -0.5 to 0.5, of the strongest wave and of those that are nearly as strong.

    There are several where channels are missing in a regular pattern. The transform sees the strength of a wave that
    is between two of its own a few percent too low, so it cannot tell which one is the strongest.
    """
    grid = np.zeros(size, np.complex64)
    grid[slot] = phasor
    strength = np.abs(np.fft.fft(grid))
    top = (
        (strength >= np.roll(strength, 1)) & (strength > np.roll(strength, -1)) & (strength > _NEARLY * strength.max())
    )
    best = np.flatnonzero(top)
    best = best[np.argsort(-strength[best], kind="stable")][:_MOST_PEAKS]
    return np.asarray(np.where(best > size // 2, best - size, best) / size)


def _line(phasor: np.ndarray, frequency: np.ndarray, start_s: float) -> tuple[float, float, float]:
    """Delay in s, its error, and the coherence, from a line through the phases near `start_s`."""
    x = frequency - frequency.mean()
    spread = float(np.sum(x * x))
    delay, phase = start_s, np.zeros_like(x)
    for _ in range(_FIT_STEPS):
        rest = phasor * np.exp(-2j * np.pi * delay * x)
        phase = np.angle(rest * np.exp(-1j * np.angle(rest.sum())))
        delay += float(np.sum(x * (phase - phase.mean()))) / spread / (2 * np.pi)
    rest = phasor * np.exp(-2j * np.pi * delay * x)
    phase = np.angle(rest * np.exp(-1j * np.angle(rest.sum())))
    error = float(np.sqrt(np.mean(phase**2) * x.size / max(x.size - 2, 1) / spread)) / (2 * np.pi)
    return delay, error, float(np.abs(rest.mean()))
