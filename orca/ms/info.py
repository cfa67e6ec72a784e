"""What is known about a Measurement Set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from orca.antennas import antenna_key
from orca.errors import InputError


@dataclass(frozen=True)
class MsInfo:
    """What `inspect` found.

    Attributes
    ----------
    path : Path
    n_rows, n_antennas, n_channels, n_correlations : int
    antenna_names : tuple of str
        In the order of the ANTENNA table, as they are written there.
    positions_m : (n_antennas, 3) float
        Geocentric (ITRF).
    freq_hz : (n_channels,) float
        Centres of the channels, increasing.
    channel_width_hz : float
    receptors : (n_correlations, 2) int
        Polarization (0 is X, 1 is Y) of ANTENNA1 and of ANTENNA2 in each correlation.
    subband : str or None
        Name of the subband that holds most of the channels.
    time_s : (n_times,) float
        Centres of the integrations (TIME_CENTROID), MJD seconds UTC, increasing.
    start_s, interval_s : float
        Start of the first integration (the smallest TIME), and the length of one.
    phase_centre_rad : (ra, dec)
        J2000.
    fill_level : float or None
        Share of the packets that arrived (keyword FILL_LEVEL_0), where the recorder says it.
    zero_share, nonfinite_share : float
        Of the samples of cross correlations in rows spread over the file.
    columns : tuple of str
        Of the main table.
    """

    path: Path
    n_rows: int
    n_antennas: int
    n_channels: int
    n_correlations: int
    antenna_names: tuple[str, ...]
    positions_m: np.ndarray
    freq_hz: np.ndarray
    channel_width_hz: float
    receptors: np.ndarray
    subband: str | None
    time_s: np.ndarray
    start_s: float
    interval_s: float
    phase_centre_rad: tuple[float, float]
    fill_level: float | None
    zero_share: float
    nonfinite_share: float
    columns: tuple[str, ...]

    def antenna_numbers(self, antennas: Sequence[int | str]) -> list[int]:
        """Rows of the ANTENNA table of antennas given by number, or by name with or without a dash.

        Raises
        ------
        InputError
            For an antenna that the array does not have.
        """
        known = {antenna_key(name): i for i, name in enumerate(self.antenna_names)}
        numbers = []
        for antenna in antennas:
            text = str(antenna).strip()
            number = int(text) if text.isdecimal() else known.get(antenna_key(text), -1)
            if not 0 <= number < self.n_antennas:
                raise InputError(
                    f"has no antenna {text}",
                    self.path,
                    f"Give numbers from 0 to {self.n_antennas - 1}, or names such as {self.antenna_names[0]}.",
                )
            numbers.append(number)
        return sorted(set(numbers))

    def known_numbers(self, antennas: Sequence[int | str]) -> list[int]:
        """As `antenna_numbers`, of those antennas that the array has."""
        numbers: list[int] = []
        for antenna in antennas:
            try:
                numbers += self.antenna_numbers([antenna])
            except InputError:
                continue
        return numbers
