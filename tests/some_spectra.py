"""Spectra whose every sample is known, as a night of the telescope leaves them in the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path

import numpy as np

from orca.cache import Entry, digest
from orca.dynspec import Expected, Span
from orca.dynspec.axes import midnight_s
from orca.spectrum_options import polarizations
from orca.telescope import CHANNEL_WIDTH_HZ, INTEGRATION_S, SUBBANDS, subband

DAY = date(2026, 1, 10)
KIND = "stokes-CygA"
"""Has two correlations, so that a test draws two pictures and not four."""
OPTIONS = {"calibrate": "none"}
AVERAGE = 4

Sky = Callable[[np.ndarray, int], np.ndarray]
"""Amplitude by frequency (MHz) and number of the integration."""


def slope(freq_mhz: np.ndarray, number: int) -> np.ndarray:
    """Falls with the frequency, and differs from one integration to the next."""
    return np.asarray(1000 * (freq_mhz / 50) ** -2.5 + number)


class Night:
    """Integrations of all subbands, the first one at some hours UT; odd subbands are stamped a second later.

    Parameters
    ----------
    integrations : int
    start_h : float
    kinds : names
    missing : names of subbands
        Nobody recorded them.
    sky : callable
    average : int
    """

    def __init__(
        self,
        integrations: int = 24,
        start_h: float = 6.0,
        kinds: Sequence[str] = (KIND,),
        missing: Sequence[str] = (),
        sky: Sky = slope,
        average: int = AVERAGE,
    ) -> None:
        self.kinds, self.sky, self.average = tuple(kinds), sky, average
        self.first_s = midnight_s(DAY) + 3600 * start_h
        self.bands = [band.name for band in SUBBANDS if band.name not in missing]
        self.integrations = integrations
        self.asked: list[Expected] = []

    def time_s(self, band: str, number: int) -> float:
        return self.first_s + number * INTEGRATION_S + (0.98 if subband(band).index % 2 else 0.0)

    def entry(self, kind: str, band: str, number: int) -> Entry:
        freq_hz = subband(band).frequencies_hz(average=self.average)
        columns = polarizations(kind)
        amplitude = self.sky(freq_hz / 1e6, number)
        values = np.stack([amplitude * (1 + k) for k in range(len(columns))], axis=1).astype(np.float32)
        return Entry(
            kind,
            band,
            self.time_s(band, number),
            values,
            float(freq_hz[0]),
            self.average * CHANNEL_WIDTH_HZ,
            columns,
            unit="Jy",
            version="0.1.0",
            made_from=f"{number}_{band}.ms",
            options=digest(OPTIONS),
        )

    def entries(self, bands: Sequence[str] | None = None) -> list[Entry]:
        """All of them, or those of some subbands."""
        return [
            self.entry(kind, band, number)
            for band in bands or self.bands
            for number in range(self.integrations)
            for kind in self.kinds
        ]

    def span(self, expected: bool = True) -> Span:
        """All of it; the times of what is expected are those of file names, to the second."""
        wanted = [
            Expected(band, round(self.time_s(band, number)), Path(f"{number}_{band}.ms"))
            for band in self.bands
            for number in range(self.integrations)
        ]
        last_s = self.first_s + self.integrations * INTEGRATION_S
        return Span(DAY, self.first_s - 5, last_s, tuple(wanted) if expected else (), self.average, OPTIONS)

    def recompute(self, missing: Sequence[Expected]) -> Iterator[Entry]:
        """As a flow does: all kinds of each Measurement Set."""
        self.asked += missing
        for each in missing:
            number = int(each.path.name.partition("_")[0])
            yield from (self.entry(kind, each.subband, number) for kind in self.kinds)
