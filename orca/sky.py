"""The brightest sources of the northern sky below 100 MHz, as unresolved points, and the model of the sky made of them.

All of them are extended (Cyg A by 2, Cas A by 5, Tau A by 7, Vir A by 14 arcmin with its halo), so on baselines that
resolve them the model is too bright: calibrate with a limit on uv.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from orca.beam import read_pattern
from orca.errors import InputError
from orca.skyoptions import SkyOptions
from orca.telescope import altaz_rad

LOWEST_HZ = 12e6
HIGHEST_HZ = 100e6
"""Between these the spectra hold; log-polynomials run away outside."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A point source with a smooth spectrum.

    Its flux density is 10 ** (c0 + c1 x + c2 x^2 + ...) Jy with x = log10(freq_hz / reference_hz) at `epoch_year`, and
    a constant share of it is lost each year.
    """

    name: str
    ra_rad: float
    """Right ascension, J2000 (ICRS)."""
    dec_rad: float
    """Declination, J2000 (ICRS)."""
    reference_hz: float
    log_flux: tuple[float, ...]
    """c0, c1, ... of the spectrum."""
    citation: str
    """Where the spectrum is from."""
    epoch_year: float = 2000.0
    fading_per_year: float = 0.0

    def flux_jy(self, freq_hz: ArrayLike, epoch_year: float) -> NDArray[np.float64]:
        """Total flux density.

        Parameters
        ----------
        freq_hz : float or array
            12 to 100 MHz.
        epoch_year : float
            Year of the observation, such as 2026.03; see `epoch_year`.

        Returns
        -------
        array of the shape of `freq_hz`
            In Jy.

        Raises
        ------
        InputError
            Where the spectrum is not known.
        """
        freq = np.asarray(freq_hz, float)
        if not np.all((freq >= LOWEST_HZ) & (freq <= HIGHEST_HZ)):
            raise InputError(
                f"the spectrum of {self.name} is not known at all of these frequencies",
                remedy=f"It holds from {LOWEST_HZ / 1e6:g} to {HIGHEST_HZ / 1e6:g} MHz",
            )
        x = np.log10(freq / self.reference_hz)
        left = (1.0 - self.fading_per_year) ** (epoch_year - self.epoch_year)
        return np.asarray(left * 10.0 ** np.polynomial.polynomial.polyval(x, self.log_flux))


@dataclass(frozen=True, kw_only=True)
class SourceUp(Source):
    """A source and where it stands."""

    azimuth_deg: float
    """From north through east."""
    elevation_deg: float
    """Without refraction."""

    @classmethod
    def of(cls, source: Source, azimuth_deg: float, elevation_deg: float) -> SourceUp:
        """Return a source with its place."""
        known = {field.name: getattr(source, field.name) for field in fields(Source)}
        return cls(**known, azimuth_deg=azimuth_deg, elevation_deg=elevation_deg)


def epoch_year(time_s: float) -> float:
    """Julian epoch of MJD seconds, such as 2026.03."""
    return 2000.0 + (time_s / 86400.0 - 51544.5) / 365.25


def sources_up(time_s: float, min_elevation_deg: float, sources: Iterable[Source] | None = None) -> list[SourceUp]:
    """Sources that stand higher than a limit above the array, the highest first.

    Parameters
    ----------
    time_s : float
        MJD seconds UTC.
    min_elevation_deg : float
        20 is usual: below it the ionosphere and the antennas leave little that is certain.
    sources : sources, optional
        Those to choose from; `BRIGHT_SOURCES` if left out.
    """
    known = tuple(BRIGHT_SOURCES if sources is None else sources)
    if not known:
        return []
    azimuth, elevation = altaz_rad([s.ra_rad for s in known], [s.dec_rad for s in known], time_s)
    up = [SourceUp.of(source, math.degrees(azimuth[k]), math.degrees(elevation[k])) for k, source in enumerate(known)]
    return sorted((s for s in up if s.elevation_deg > min_elevation_deg), key=lambda s: -s.elevation_deg)


def _angle(sexagesimal: str) -> float:
    """Degrees, minutes and seconds (or hours) as one number."""
    sign = -1 if sexagesimal.startswith("-") else 1
    whole, minutes, seconds = (float(part) for part in sexagesimal.lstrip("+-").split(":"))
    return sign * (whole + minutes / 60 + seconds / 3600)


CYG_A = Source(
    name="Cyg A",
    ra_rad=math.radians(15 * _angle("19:59:28.35663")),
    dec_rad=math.radians(_angle("+40:44:02.0970")),
    reference_hz=50e6,
    log_flux=(4.3461, -0.6115, -0.3516, 0.7426, -0.6881, 0.1928),
    citation="our quintic through the absolute measurements from 10 MHz to 2 GHz of Baars et al. 1977, A&A 61, 99; "
    "within 1 % of Perley & Butler 2017, ApJS 230, 7, from 55 to 87 MHz (that one is too bright below 50 MHz)",
)
CAS_A = Source(
    name="Cas A",
    ra_rad=math.radians(15 * _angle("23:23:24.00")),
    dec_rad=math.radians(_angle("+58:48:54.0")),
    reference_hz=50e6,
    log_flux=(4.3160, -0.6451, -0.3294, 0.6705, 0.4268, 2.2570),
    epoch_year=2023.5,
    fading_per_year=0.007,
    citation="our quintic through a power law of index -0.77 with free-free absorption (the form of Arias et al. 2018, "
    "A&A 612, A110), fitted to the spectrum of mid 2023 from 8 to 77 MHz of Stanislavsky et al. 2023, "
    "arXiv:2312.09764, within 1.5 %; fading of Helmboldt & Kassim 2009, AJ 138, 838",
)
TAU_A = Source(
    name="Tau A",
    ra_rad=math.radians(15 * _angle("05:34:31.94")),
    dec_rad=math.radians(_angle("+22:00:52.2")),
    reference_hz=1e9,
    log_flux=(math.log10(973.0), -0.296),
    epoch_year=2003.0,
    fading_per_year=0.00167,
    citation="Macias-Perez et al. 2010, ApJ 711, 417; fading of Aller & Reynolds 1985, ApJ 293, L73",
)
VIR_A = Source(
    name="Vir A",
    ra_rad=math.radians(15 * _angle("12:30:49.42338")),
    dec_rad=math.radians(_angle("+12:23:28.0439")),
    reference_hz=1e9,
    log_flux=(2.4466, -0.8116, -0.0483),
    citation="Perley & Butler 2017, ApJS 230, 7, made for 50 MHz to 3 GHz and extended below",
)
BRIGHT_SOURCES: tuple[Source, ...] = (CYG_A, CAS_A, TAU_A, VIR_A)


@dataclass(frozen=True)
class SkyModel:
    """The sources of a moment, weakened by the pattern of the dipoles; the brightest first.

    Attributes
    ----------
    names : tuple of n_sources str
    ra_rad, dec_rad : (n_sources,) float
        J2000 (ICRS).
    elevation_deg : (n_sources,) float
    flux_jy : (n_sources, n_channels, 2) float
        Apparent flux density in XX and in YY.
    """

    names: tuple[str, ...]
    ra_rad: NDArray[np.float64]
    dec_rad: NDArray[np.float64]
    elevation_deg: NDArray[np.float64]
    flux_jy: NDArray[np.float64]


def plain_name(name: str) -> str:
    """A name as names are compared: "Cyg A", "cyga" and "CygA" are one source."""
    return "".join(name.split()).casefold()


def known_sources(options: SkyOptions) -> tuple[Source, ...]:
    """The sources that the options choose: the bright ones, and those of the file, which replace those of their name.

    Raises
    ------
    InputError
        For a name that nobody has, and for a file that makes no sense.
    MissingDataError
        If there is no such file.
    """
    known = {plain_name(source.name): source for source in BRIGHT_SOURCES}
    if options.sky_file is not None:
        from orca.skyfile import read_sources

        known |= {plain_name(source.name): source for source in read_sources(options.sky_file)}
    wanted = {plain_name(given): given for given in options.sources} or {name: s.name for name, s in known.items()}
    for name, given in wanted.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {known[near[0]].name}? " if near else ""
            names = ", ".join(source.name for source in known.values())
            raise InputError(f"there is no source {given!r}", remedy=f"{hint}Known are {names}")
    return tuple(known[name] for name in wanted)


def sky_model(time_s: float, freq_hz: ArrayLike, options: SkyOptions = SkyOptions()) -> SkyModel:
    """The sources that an observation sees.

    Parameters
    ----------
    time_s : float
        MJD seconds UTC, the middle of the integration.
    freq_hz : (n_channels,) float
        12 to 100 MHz.
    options : SkyOptions

    Returns
    -------
    SkyModel

    Raises
    ------
    InputError
        If no source is left; it says how low or how faint each of them is. Also if a name is unknown, the file of
        sources makes no sense, or a spectrum or the pattern does not cover the frequencies.
    MissingDataError, InvalidDataError
        If the file of sources or of the pattern is not there, or is broken.
    """
    known = known_sources(options)
    freq = np.atleast_1d(np.asarray(freq_hz, float))
    ra, dec = np.array([s.ra_rad for s in known]), np.array([s.dec_rad for s in known])
    azimuth, elevation = altaz_rad(ra, dec, time_s)
    power = read_pattern(options.beam_file).power(azimuth, elevation, freq)
    year = epoch_year(time_s)
    flux = np.array([s.flux_jy(freq, year) for s in known]).reshape(len(known), freq.size, 1) * power
    middle = flux[:, freq.size // 2].mean(axis=1)
    high = np.degrees(elevation) > options.min_elevation_deg
    used = np.flatnonzero(high & (middle > options.min_apparent_jy))
    if used.size == 0:
        reasons = [
            f"{source.name} is too faint ({middle[k]:.0f} Jy as seen, at {math.degrees(elevation[k]):.1f} deg)"
            if high[k]
            else f"{source.name} is too low ({math.degrees(elevation[k]):.1f} deg)"
            for k, source in enumerate(known)
        ]
        raise InputError(
            f"no source of the sky model is left: {', '.join(reasons)}",
            remedy=f"Take a time when one stands above {options.min_elevation_deg:g} deg with more than "
            f"{options.min_apparent_jy:g} Jy, or lower these limits",
        )
    used = used[np.argsort(-middle[used])]
    names = tuple(known[k].name for k in used)
    return SkyModel(names, ra[used], dec[used], np.degrees(elevation[used]), flux[used])
