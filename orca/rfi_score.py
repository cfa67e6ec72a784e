"""How much RFI a strategy finds, and how much that is none: simulated baselines with RFI of known place and strength.

The background is a smooth bandpass of amplitude 2 in XX and YY, a tenth of it in
XY and YX, with noise of 1 in the real and in the imaginary part of each sample, in 24 integrations x 192 channels.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from orca.flagging import Flagger
from orca.telescope import N_ANTENNAS, N_CHANNELS

INTEGRATIONS = 24
STRENGTHS = (3.0, 6.0, 12.0)
"""Amplitudes of RFI, in units of the noise."""
_ROWS = N_ANTENNAS * (N_ANTENNAS + 1) // 2


@dataclass(frozen=True)
class Detection:
    """How one kind of RFI of one strength is found.

    Attributes
    ----------
    kind : str
    strength : float
        Amplitude in units of the noise.
    linear : bool
        Whether it is linearly polarized, at a random angle, its strongest correlation of that strength; else all
        correlations have that strength with phases of their own.
    found, false : float
        Shares: of the samples with RFI, and of those without it, that were flagged.
    """

    kind: str
    strength: float
    linear: bool
    found: float
    false: float


@dataclass(frozen=True)
class Score:
    """What a strategy is worth.

    Attributes
    ----------
    detections : tuple of Detection
    false_alone : float
        Share of a background without RFI that was flagged.
    cpu_seconds : float
        Of flagging, for a Measurement Set of the whole array in a block of 24.
    """

    detections: tuple[Detection, ...]
    false_alone: float
    cpu_seconds: float


def score(
    strategy: Path,
    baselines: int = 60,
    strengths: tuple[float, ...] = STRENGTHS,
    integrations: int = INTEGRATIONS,
    told: Callable[[str], None] = lambda _: None,
) -> Score:
    """Measure a strategy.

    Parameters
    ----------
    strategy : Path
    baselines : int
        How many are simulated for each kind of RFI.
    strengths : tuple of float
    integrations : int
        Flagged together.
    told : callable
        Told what is measured now.
    """
    flagger = Flagger(strategy, integrations, N_CHANNELS, 4)
    told("noise")
    data = background(np.random.default_rng(1), baselines, integrations)
    begin = time.process_time()
    alone = _flagged(flagger, data)
    cpu = (time.process_time() - begin) / baselines
    detections = []
    for linear in (False, True):
        for kind, place in KINDS.items():
            for strength in strengths:
                told(f"{kind}, {strength:g} times the noise")
                rng = np.random.default_rng(2)
                noisy, where = background(rng, baselines, integrations), []
                for row in range(baselines):
                    where.append(place(rng, integrations))
                    inject(noisy[:, row], where[-1], strength, linear, rng)
                rfi, flags = np.stack(where, axis=1), _flagged(flagger, noisy)
                detections.append(
                    Detection(kind, strength, linear, float(flags[rfi].mean()), float(flags[~rfi].mean()))
                )
    return Score(tuple(detections), float(alone.mean()), cpu * _ROWS / integrations)


def background(rng: np.random.Generator, baselines: int, integrations: int) -> np.ndarray:
    """Noise on a smooth bandpass; (integrations, baselines, N_CHANNELS, 4) complex64."""
    shape = (integrations, baselines, N_CHANNELS, 4)
    channel = np.linspace(0, 1, N_CHANNELS)
    turn, ripple, drift, delay = rng.uniform(-1, 1, (4, baselines))
    amplitude = 2 + 0.4 * np.sin(2 * np.pi * np.abs(ripple)[:, None] * channel + np.pi * turn[:, None])
    steady = np.pi * turn[:, None] + 3 * delay[:, None] * channel
    moving = 0.02 * drift * np.arange(integrations)[:, None]
    signal = amplitude * np.exp(1j * (steady + moving[:, :, None]))
    noise = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    return (noise + signal[..., None] * [1, 0.1, 0.1, 1]).astype(np.complex64)


def inject(data: np.ndarray, where: np.ndarray, strength: float, linear: bool, rng: np.random.Generator) -> None:
    """Add RFI to one baseline (integrations, N_CHANNELS, 4) in place, where a mask (integrations, N_CHANNELS) says."""
    if linear:
        angle = rng.uniform(0, np.pi)
        x, y = np.cos(angle), np.sin(angle)
        of = np.array([x * x, x * y, x * y, y * y])
        of = of / of.max() * np.exp(2j * np.pi * rng.uniform())
    else:
        of = np.exp(2j * np.pi * rng.uniform(size=4))
    data[where] += (strength * of).astype(np.complex64)


def _line(rng: np.random.Generator, integrations: int) -> np.ndarray:
    where = np.zeros((integrations, N_CHANNELS), bool)
    where[:, rng.integers(4, N_CHANNELS - 4)] = True
    return where


def _broad(rng: np.random.Generator, integrations: int) -> np.ndarray:
    where = np.zeros((integrations, N_CHANNELS), bool)
    where[rng.integers(integrations)] = True
    return where


def _burst(rng: np.random.Generator, integrations: int) -> np.ndarray:
    where = np.zeros((integrations, N_CHANNELS), bool)
    first, channel = rng.integers(max(integrations - 1, 1)), rng.integers(N_CHANNELS - 16)
    where[first : first + 2, channel : channel + 16] = True
    return where


def _drift(rng: np.random.Generator, integrations: int) -> np.ndarray:
    where = np.zeros((integrations, N_CHANNELS), bool)
    first, speed = rng.integers(40, N_CHANNELS - 40), rng.choice([-1, 1]) * rng.uniform(0.3, 1.2)
    where[np.arange(integrations), np.round(first + speed * np.arange(integrations)).astype(int)] = True
    return where


KINDS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "narrow line": _line,
    "broad-band, one integration": _broad,
    "burst, 2 x 16": _burst,
    "drifting line": _drift,
}
"""Each with a function that says where it is, (integrations, N_CHANNELS) bool."""


def _flagged(flagger: Flagger, data: np.ndarray) -> np.ndarray:
    """What the strategy flags, (integrations, baselines, N_CHANNELS) bool."""
    flags = np.zeros(data.shape, bool)
    flagger.flag(data, flags, list(range(data.shape[1])))
    return flags[..., 0]
