"""The simulated instrument: antenna positions and names, delays, gains, sensitivity, interference.

Everything here is drawn for the whole array of 352 antennas and then picked, so an antenna has the same place, delay
and gain in a small array as in the full one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from orca import telescope

N_CORE = 243
CORE_RADIUS_M = 98.0
SHORTEST_BASELINE_M = 4.9
LONGEST_BASELINE_M = 2366.0
OUTRIGGER_RADIUS_M = (157.0, 1250.0)
OUTRIGGER_SPREAD = 0.71
"""Power of a uniform deviate that spreads the outriggers so that half of all baselines are below 243 m."""
OUTRIGGER_SPACING_M = 25.0
CORRELATOR_NUMBERS = {114: 202, 253: 283}
"""Antennas whose correlator number is known, because they serve as reference: LWA-114 and LWA-253."""
FIRST_CHOICE = (114, 253, 128, 286, 160, 333, 48, 266, 51, 18, 237, 65, 94)
"""Antennas that a small array has first: those that people name."""

ARRAY_SEFD_JY = 5070.0
SEFD_FREQUENCY_HZ = 55e6
SEFD_INDEX = -2.55
"""Spectral index of the galactic background temperature, which is the noise of this telescope."""
DELAY_RMS_NS = 15.0
PHASE_FREQUENCY_HZ = 63.93e6
"""Where the delays turn no phase; one for all subbands, so that the phase of an antenna is continuous over the band."""
CURVATURE_RMS_RAD = 0.15
LOWEST_DELAY_SUBBAND_HZ = 40e6
"""Delays are measured in the subbands above; there the curvature of the phase is orthogonal to a straight line."""
DEAD_NOISE = 0.05
"""Voltage of an antenna that hears nothing, its receiver's own noise, as a share of a good one's."""

_LAYOUT_SEED = 352
_DELAY_STREAM, _AMPLITUDE_STREAM, _RFI_STREAM, _PHASE_STREAM = 1, 2, 3, 5  # 4 is the noise


@dataclass(frozen=True)
class Antennas:
    """The antennas of a simulated array, in the order of their correlator numbers.

    Attributes
    ----------
    names : tuple of str
        As the recorder writes them: `LWA266`.
    index : (n,) int
        Which of the 352 antennas these are.
    enu_m, itrf_m : (n, 3) float
        Positions relative to the array's centre (east, north, up), and geocentric (ITRF).
    """

    names: tuple[str, ...]
    index: np.ndarray
    enu_m: np.ndarray
    itrf_m: np.ndarray


@cache
def _full_layout() -> np.ndarray:
    """East, north, up in metres of LWA001 to LWA352: the core first, then the outriggers.

    A random arrangement with the telescope's figures: 243 antennas inside 200 m, the shortest baseline 4.9 m, the
    longest 2366 m, half of the baselines below about 243 m.
    """
    rng = np.random.default_rng(_LAYOUT_SEED)
    core: list[np.ndarray] = []
    while len(core) < N_CORE:
        place = rng.uniform(-CORE_RADIUS_M, CORE_RADIUS_M, 2)
        if np.hypot(*place) < CORE_RADIUS_M and all(np.hypot(*(place - p)) > SHORTEST_BASELINE_M for p in core):
            core.append(place)
    outriggers: list[np.ndarray] = []
    low, high = OUTRIGGER_RADIUS_M
    while len(outriggers) < telescope.N_ANTENNAS - N_CORE:
        radius, azimuth = low + (high - low) * rng.uniform() ** OUTRIGGER_SPREAD, rng.uniform(0, 2 * np.pi)
        place = radius * np.array([np.sin(azimuth), np.cos(azimuth)])
        if all(np.hypot(*(place - p)) > OUTRIGGER_SPACING_M for p in outriggers):
            outriggers.append(place)
    inner, outer = np.array(core), np.array(outriggers)
    inner *= SHORTEST_BASELINE_M / _distances(inner).min()
    outer *= LONGEST_BASELINE_M / _distances(outer).max()
    height = np.concatenate([rng.normal(0, 0.1, N_CORE), rng.normal(0, 3.0, len(outer))])
    return np.column_stack([np.concatenate([inner, outer]), height])


def _distances(places: np.ndarray) -> np.ndarray:
    first, second = np.triu_indices(len(places), 1)
    return np.hypot(*(places[first] - places[second]).T)


@cache
def _correlator_order() -> np.ndarray:
    """Which antenna (0 to 351) has each correlator number."""
    order = np.random.default_rng(_LAYOUT_SEED + 1).permutation(telescope.N_ANTENNAS)
    for number, row in CORRELATOR_NUMBERS.items():
        here = int(np.flatnonzero(order == number - 1)[0])
        order[[here, row]] = order[[row, here]]
    return order


def antennas(count: int) -> Antennas:
    """An array of `count` of the 352 antennas, core and outriggers in the telescope's proportion.

    A larger array contains every smaller one of the same proportion; the longest baselines are among the first.
    """
    places = _full_layout()
    wanted = [number - 1 for number in FIRST_CHOICE]
    far = np.argsort(-np.hypot(*places[:, :2].T))[:2]
    rest = np.random.default_rng(_LAYOUT_SEED + 2).permutation(telescope.N_ANTENNAS)
    ranked = list(dict.fromkeys([*wanted[:2], *(int(i) for i in far), *wanted[2:], *(int(i) for i in rest)]))
    n_core = round(count * N_CORE / telescope.N_ANTENNAS)
    chosen = [i for i in ranked if i < N_CORE][:n_core] + [i for i in ranked if i >= N_CORE][: count - n_core]
    order = _correlator_order()
    index = order[np.isin(order, chosen)]
    enu = places[index]
    return Antennas(tuple(f"LWA{i + 1:03d}" for i in index), index, enu, telescope.enu_to_itrf(enu))


def delays_ns(index: np.ndarray, seed: int) -> np.ndarray:
    """Delay of each antenna and polarization, (n_antennas, 2) in ns; one for all subbands and times."""
    rng = np.random.default_rng([seed, _DELAY_STREAM])
    return rng.normal(0, DELAY_RMS_NS, (telescope.N_ANTENNAS, 2))[index]


def gains(index: np.ndarray, subband: telescope.Subband, frequency_hz: np.ndarray, seed: int) -> np.ndarray:
    """Complex gain of each antenna with its delay, (n_antennas, n_channels, 2) complex128.

    Parameters
    ----------
    index : (n_antennas,) int
        Which of the 352 antennas.
    subband : Subband
    frequency_hz : (n_channels,) float
        Its first channels.
    seed : int
    """
    delay_s = 1e-9 * delays_ns(index, seed)[:, None, :]
    turns = delay_s * (frequency_hz - PHASE_FREQUENCY_HZ)[None, :, None]
    return _amplitudes(index, subband, frequency_hz, seed) * np.exp(
        2j * np.pi * turns + 1j * _phases(index, frequency_hz, seed)
    )


def _amplitudes(index: np.ndarray, subband: telescope.Subband, frequency_hz: np.ndarray, seed: int) -> np.ndarray:
    """A random level, slope and ripple, smooth over the subband; another one in each subband."""
    rng = np.random.default_rng([seed, _AMPLITUDE_STREAM, subband.index])
    span = telescope.N_CHANNELS * telescope.CHANNEL_WIDTH_HZ
    x = ((frequency_hz - subband.first_channel_hz) / span - 0.5)[None, :, None]
    shape = (telescope.N_ANTENNAS, 2)
    level, slope = (rng.normal(0, width, shape)[index][:, None, :] for width in (0.15, 0.1))
    ripple = rng.uniform(0, 1, shape)[index][:, None, :]
    return np.clip(1 + level + slope * x + 0.05 * np.sin(2 * np.pi * (2 * x + ripple)), 0.3, None)


def _phases(index: np.ndarray, frequency_hz: np.ndarray, seed: int) -> np.ndarray:
    """Phase without the delay's, in radians: one offset and one smooth bend for the whole band, (n, n_channels, 2)."""
    rng = np.random.default_rng([seed, _PHASE_STREAM])
    shape = (telescope.N_ANTENNAS, 2)
    offset, bend = rng.uniform(0, 2 * np.pi, shape)[index], rng.normal(0, CURVATURE_RMS_RAD, shape)[index]
    return offset[:, None, :] + bend[:, None, :] * _curvature(frequency_hz)[None, :, None]


def _curvature(frequency_hz: np.ndarray) -> np.ndarray:
    """A parabola of unit rms that has no offset and no slope over the channels in which delays are measured.

    With all channels that is the second Legendre polynomial from 40.95 to 86.91 MHz, times the root of 5. With only the
    first few of each subband their own parabola is taken: else the fit of a delay to them would be off by 0.7 ns.
    """
    bands = [band for band in telescope.SUBBANDS if band.first_channel_hz > LOWEST_DELAY_SUBBAND_HZ]
    low, high = bands[0].edges_hz[0], bands[-1].edges_hz[1]

    def scaled(frequency: np.ndarray) -> np.ndarray:
        return (2 * frequency - low - high) / (high - low)

    comb = scaled(np.concatenate([band.frequencies_hz(len(frequency_hz)) for band in bands]))
    line = np.polynomial.Polynomial.fit(comb, comb**2, 1)
    rms = np.sqrt(np.mean((comb**2 - line(comb)) ** 2))
    x = scaled(frequency_hz)
    return (x**2 - line(x)) / rms


def antenna_sefd_jy(frequency_hz: np.ndarray) -> np.ndarray:
    """System equivalent flux density of one antenna and polarization.

    The array's is about 5070 Jy at 55 MHz (TELESCOPE: "system equivalent flux density"). An array of N equal antennas
    is N times as sensitive as one of them, so one antenna has 352 times as much, 1.8 MJy; it follows the galactic
    background, frequency ** -2.55.
    """
    return ARRAY_SEFD_JY * telescope.N_ANTENNAS * (np.asarray(frequency_hz) / SEFD_FREQUENCY_HZ) ** SEFD_INDEX


def noise_jy(sefd_jy: np.ndarray) -> np.ndarray:
    """Standard deviation of the real and of the imaginary part of a visibility: SEFD / sqrt(2 bandwidth time)."""
    samples = telescope.CHANNEL_WIDTH_HZ * telescope.INTEGRATION_S
    return (sefd_jy / np.sqrt(2 * samples)).astype(np.float32)


@dataclass(frozen=True)
class Interference:
    """Narrow lines of terrestrial transmitters.

    Attributes
    ----------
    line : (n_channels,) int32
        Which line is in a channel; -1 for none.
    voltage : (n_lines, n_antennas, 2) complex64
        What each antenna receives, in square roots of Jy.
    """

    line: np.ndarray
    voltage: np.ndarray


def interference(
    lines: int, n_antennas: int, n_channels: int, subband_index: int, time_s: float, seed: int
) -> Interference:
    """`lines` narrow lines at channels that stay the same in time, with strengths and phases that do not."""
    rng = np.random.default_rng([seed, _RFI_STREAM, subband_index])
    channels = rng.choice(n_channels, min(lines, n_channels), replace=False)
    rng = np.random.default_rng([seed, _RFI_STREAM, subband_index, round(time_s)])
    shape = (len(channels), n_antennas, 2)
    strength = 10 ** rng.uniform(2.0, 3.5, (len(channels), 1, 1)) * rng.lognormal(0, 0.5, shape)
    line = np.full(n_channels, -1, np.int32)
    line[channels] = np.arange(len(channels))
    return Interference(line, (strength * np.exp(2j * np.pi * rng.uniform(0, 1, shape))).astype(np.complex64))
