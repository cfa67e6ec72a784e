"""The axes of dynamic spectra: integrations of equal length, and all channels of all subbands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orca.errors import InputError
from orca.telescope import CHANNEL_WIDTH_HZ, INTEGRATION_S, N_CHANNELS, SUBBANDS, time_s_of

LONGEST_H = 48.0
"""Of one time axis; a mistaken date must not ask for a terabyte."""


@dataclass(frozen=True)
class Axes:
    """Time and frequency of a dynamic spectrum.

    Attributes
    ----------
    day : date
        UTC; hours are counted from its midnight, and go on beyond 24.
    first_s : float
        Centre of the first integration, MJD seconds.
    n_times : int
    average : int
        Recorded channels in one channel.
    """

    day: date
    first_s: float
    n_times: int
    average: int = 1

    def __post_init__(self) -> None:
        if self.average < 1 or N_CHANNELS % self.average:
            raise InputError(f"{N_CHANNELS} channels cannot be averaged by {self.average}")
        if not 0 < self.n_times * INTEGRATION_S <= LONGEST_H * 3600:
            hours = self.n_times * INTEGRATION_S / 3600
            remedy = f"Reduce at most {LONGEST_H:g} h at a time"
            raise InputError(f"a dynamic spectrum of {hours:.1f} h cannot be made", remedy=remedy)

    @property
    def midnight_s(self) -> float:
        """MJD seconds at which the hours begin."""
        return midnight_s(self.day)

    @property
    def times_s(self) -> NDArray[np.float64]:
        """Centres of the integrations, MJD seconds; shape (n_times,)."""
        return np.asarray(self.first_s + INTEGRATION_S * np.arange(self.n_times), np.float64)

    @property
    def width_hz(self) -> float:
        """Of a channel."""
        return self.average * CHANNEL_WIDTH_HZ

    @property
    def band_channels(self) -> int:
        """Channels of one subband."""
        return N_CHANNELS // self.average

    @property
    def n_channels(self) -> int:
        """Channels of all subbands."""
        return len(SUBBANDS) * self.band_channels

    @property
    def first_hz(self) -> float:
        """Centre of the lowest channel."""
        return SUBBANDS[0].edges_hz[0] + self.width_hz / 2

    def cells(self, times_s: Any) -> NDArray[np.int64]:
        """The nearest integration of each time; it may lie outside."""
        return np.rint((np.asarray(times_s, float) - self.first_s) / INTEGRATION_S).astype(np.int64)

    def channel(self, band: int, first_hz: float, width_hz: float) -> int | None:
        """Where in its subband a spectrum begins; None if its channels are not those of this axis."""
        offset = (first_hz - SUBBANDS[band].edges_hz[0]) / self.width_hz - 0.5
        fits = abs(width_hz - self.width_hz) < 1e-3 * self.width_hz and abs(offset - round(offset)) < 0.05
        return round(offset) if fits and -0.5 < offset < self.band_channels else None


def midnight_s(day: date) -> float:
    """MJD seconds of the midnight (UTC) with which a day begins."""
    return time_s_of(datetime.combine(day, time(), UTC))


def make_axes(day: date, times_s: Sequence[float], average: int = 1, anchor_s: float | None = None) -> Axes:
    """Axes that have a cell for each of the times.

    Parameters
    ----------
    day : date
    times_s : sequence of float
        Centres of integrations, of any subbands, in any order.
    average : int
    anchor_s : float, optional
        Cells lie whole integrations from here; if left out, where the times lie closest to the middles of the cells:
        the circular mean of what is left when they are divided by the length of an integration.

    Raises
    ------
    InputError
        There is no time, or they are more than 48 hours apart.
    """
    if not len(times_s):
        raise InputError("there are no spectra to be reduced", remedy="Look at `orca cache ls`, or give another range")
    times = np.asarray(times_s, float)
    if anchor_s is None:
        reference = float(times.min())
        phase = 2 * math.pi * (times - reference) / INTEGRATION_S
        anchor_s = reference + INTEGRATION_S * float(np.angle(np.exp(1j * phase).mean())) / (2 * math.pi)
        anchor_s = round(anchor_s, 6)
    cells = np.rint((times - anchor_s) / INTEGRATION_S)
    first, last = int(cells.min()), int(cells.max())
    return Axes(day, round(anchor_s + first * INTEGRATION_S, 6), last - first + 1, average)
