"""The array: its numbers, its subbands, and what passes over it.

What has to do with time, place and direction alone is in `orca.geometry`; its public names are repeated here, so
that one import serves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import ArrayLike, NDArray

from orca.errors import InputError
from orca.geometry import (
    HEIGHT_M,
    LATITUDE_DEG,
    LONGITUDE_DEG,
    altaz_rad,
    array_position_itrf_m,
    datetime_of,
    enu_to_itrf,
    hour_angle_rad,
    itrf_to_enu,
    lmn,
    sidereal_time_h,
    time_s_of,
    utc_of,
    uvw_m,
    zenith_rad,
)

__all__ = [
    "CHANNEL_WIDTH_HZ",
    "CORE_RADIUS_M",
    "FIRST_CHANNEL_HZ",
    "HEIGHT_M",
    "INTEGRATION_S",
    "LATITUDE_DEG",
    "LONGITUDE_DEG",
    "N_ANTENNAS",
    "N_CHANNELS",
    "SIDEREAL_DAY_S",
    "SUBBANDS",
    "Subband",
    "altaz_rad",
    "array_position_itrf_m",
    "datetime_of",
    "enu_to_itrf",
    "hour_angle_rad",
    "itrf_to_enu",
    "lmn",
    "next_transit",
    "sidereal_time_h",
    "split_core",
    "subband",
    "subband_of",
    "time_s_of",
    "transits",
    "utc_of",
    "uvw_m",
    "zenith_rad",
]

N_ANTENNAS = 352
N_CHANNELS = 192
"""Channels of one subband, as recorded."""
CHANNEL_WIDTH_HZ = 196e6 / 8192
INTEGRATION_S = 240_000 * 8192 / 196e6
FIRST_CHANNEL_HZ = 13_398_437.5
"""Centre of the first channel of the first subband."""
SIDEREAL_DAY_S = 86164.0905
CORE_RADIUS_M = 130.0
"""Between the core (within 110 m of its own middle) and the nearest outrigger (157 m)."""


@dataclass(frozen=True)
class Subband:
    """192 neighbouring channels, recorded as one Measurement Set."""

    name: str
    """As in paths: "73MHz"."""
    index: int
    """0 to 15, upwards in frequency."""
    first_channel_hz: float
    """Centre of its lowest channel."""

    @property
    def edges_hz(self) -> tuple[float, float]:
        """Lower edge of its lowest channel, upper edge of its highest."""
        low = self.first_channel_hz - CHANNEL_WIDTH_HZ / 2
        return low, low + N_CHANNELS * CHANNEL_WIDTH_HZ

    def frequencies_hz(self, n_channels: int = N_CHANNELS, average: int = 1) -> NDArray[np.float64]:
        """Centres of its lowest `n_channels` recorded channels, or of groups of `average` of them.

        Raises
        ------
        InputError
            If there are no such channels, or `average` does not divide their number.
        """
        if not 1 <= n_channels <= N_CHANNELS or average < 1 or n_channels % average:
            raise InputError(
                f"{n_channels} channels averaged by {average} cannot be",
                remedy=f"A subband has {N_CHANNELS} channels, and the number must divide by the averaging",
            )
        recorded = self.first_channel_hz + np.arange(n_channels) * CHANNEL_WIDTH_HZ
        return recorded.reshape(-1, average).mean(axis=1)


def _make_subbands() -> tuple[Subband, ...]:
    firsts = (FIRST_CHANNEL_HZ + index * N_CHANNELS * CHANNEL_WIDTH_HZ for index in range(16))
    return tuple(Subband(f"{round(first / 1e6)}MHz", index, first) for index, first in enumerate(firsts))


SUBBANDS: tuple[Subband, ...] = _make_subbands()


def subband(name: str | int) -> Subband:
    """Subband of a name: "73MHz", "73" or 73.

    Raises
    ------
    InputError
        If there is none; it names the nearest one.
    """
    text = str(name).strip()
    number = text[:-3] if text.lower().endswith("mhz") else text
    for known in SUBBANDS:
        if number == known.name.removesuffix("MHz"):
            return known
    try:
        wanted_hz = float(number) * 1e6
        nearest = min(SUBBANDS, key=lambda known: abs(known.first_channel_hz - wanted_hz)) if wanted_hz > 0 else None
    except ValueError:
        nearest = None
    hint = f"The nearest is {nearest.name}; all are" if nearest else "The subbands are"
    raise InputError(
        f"there is no subband {text!r}",
        remedy=f"{hint} {', '.join(known.name.removesuffix('MHz') for known in SUBBANDS)} MHz",
    )


def subband_of(freq_hz: ArrayLike) -> Subband | None:
    """Subband in which channels lie.

    Parameters
    ----------
    freq_hz : float or array
        Channel centres, averaged or not, in any order.

    Returns
    -------
    Subband or None
        The one that holds more than half of the channels; None if none does, as for a concatenated band.
    """
    freq = np.atleast_1d(np.asarray(freq_hz, float))
    index = np.floor((freq - SUBBANDS[0].edges_hz[0]) / (N_CHANNELS * CHANNEL_WIDTH_HZ))
    inside = index[(index >= 0) & (index < len(SUBBANDS))].astype(int)
    if inside.size == 0:
        return None
    counts = np.bincount(inside)
    return SUBBANDS[int(counts.argmax())] if 2 * counts.max() > freq.size else None


def split_core(
    positions_m: ArrayLike, radius_m: float = CORE_RADIUS_M, outriggers: Sequence[int] | None = None
) -> NDArray[np.bool_]:
    """Which antennas stand in the core.

    If `outriggers` are given, all others do. Else the core is what lies within `radius_m` of its own median position:
    the median of all antennas starts, which the many core antennas hold near the core, then the median of those inside
    is taken until nothing changes. So a list with antennas missing, or in another frame, splits the same way. Of the
    telescope's 243 antennas fed by coax this takes 238; the other five stand 265 m away, among the outriggers, and
    count as such.

    Parameters
    ----------
    positions_m : array, shape (n, 3)
        ITRF positions, or east, north, up: only distances matter.
    radius_m : float
        Largest distance from the middle.
    outriggers : numbers, optional
        Rows of the outriggers, as `telescope.outriggers` of the configuration gives them.

    Returns
    -------
    bool array, shape (n,)
        True in the core, False for an outrigger.

    Raises
    ------
    InputError
        If the positions are not (n, 3), or an outrigger is not among them.
    """
    positions = np.asarray(positions_m, float)
    if positions.ndim != 2 or positions.shape[1] != 3:
        raise InputError(f"positions have the shape {positions.shape}", remedy="They need to be (n, 3)")
    if outriggers is not None:
        if wrong := [number for number in outriggers if not 0 <= number < len(positions)]:
            raise InputError(f"there is no antenna {wrong[0]}: the array has 0 to {len(positions) - 1}")
        return ~np.isin(np.arange(len(positions)), list(outriggers))
    core = np.ones(len(positions), bool)
    for _ in range(20):
        middle = np.median(positions[core], axis=0) if core.any() else np.zeros(3)
        inside = np.asarray(np.linalg.norm(positions - middle, axis=1) <= radius_m)
        if not inside.any() or (inside == core).all():
            return inside
        core = inside
    return core


def next_transit(ra_rad: float, dec_rad: float, after: datetime) -> datetime:
    """First upper transit (apparent hour angle zero) of an ICRS direction after a time, within a millisecond.

    The declination is needed since precession moves the right ascension by it: taking the J2000 right ascension for
    the sidereal time of the transit would be 50 s early for Cyg A.

    Raises
    ------
    InputError
        If `after` has no time zone.
    """
    start_s = time_s_of(after)
    missing = -hour_angle_rad(ra_rad, dec_rad, after) % (2 * math.pi)
    time_s = start_s + missing / (2 * math.pi) * SIDEREAL_DAY_S
    for _ in range(3):
        time_s -= hour_angle_rad(ra_rad, dec_rad, time_s) / (2 * math.pi) * SIDEREAL_DAY_S
    if time_s < start_s + 1e-3:  # the one at `after` itself, to rounding
        return next_transit(ra_rad, dec_rad, after + timedelta(hours=1))
    return datetime_of(time_s)


def transits(ra_rad: float, dec_rad: float, start: datetime, end: datetime) -> list[datetime]:
    """Upper transits of an ICRS direction after `start` and not after `end`, in order; see `next_transit`."""
    last = utc_of(end)
    found: list[datetime] = []
    time = next_transit(ra_rad, dec_rad, start)
    while time <= last:
        found.append(time)
        time = next_transit(ra_rad, dec_rad, time)
    return found
