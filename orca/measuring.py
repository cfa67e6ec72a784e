"""What a picture of the sky shows: its geometry, its noise, and where and how bright known sources came out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orca.beam import ANALYTIC
from orca.errors import InputError, InvalidDataError, MissingDataError, TruncatedDataError
from orca.sky import Source, SourceUp, epoch_year, sources_up
from orca.telescope import lmn, time_s_of

MAD_TO_SIGMA = 1.482602
"""Standard deviation of a normal distribution over its median absolute deviation: 1 / (sqrt(2) erfinv(1/2))."""
SKY_RADIUS = math.sin(math.radians(80))
"""Of the disc in which the noise is taken, as direction cosine: 80 deg from the phase centre."""
_SAMPLES = 1_000_000
_STOKES = {1: "I", 2: "Q", 3: "U", 4: "V", -5: "XX", -6: "YY", -7: "XY", -8: "YX"}  # FITS 4.0, table 29


@dataclass(frozen=True)
class Picture:
    """A FITS image as WSClean writes it, in SIN projection."""

    path: Path
    data: NDArray[np.float32]
    """(height, width), mapped from the file (big-endian): row 0 is the southernmost, column 0 the easternmost."""
    wcs: Any
    """`astropy.wcs.WCS` of the two axes of the sky, in degrees."""
    centre_rad: tuple[float, float]
    """Phase centre: right ascension and declination."""
    scale_deg: float
    """Of a pixel, at the phase centre."""
    freq_hz: float
    bandwidth_hz: float
    time_s: float | None
    """MJD seconds UTC of DATE-OBS, which WSClean takes from TIME: the start of the first integration."""
    beam_deg: tuple[float, float, float] | None
    """Major and minor axis (full width at half maximum) and position angle; None where no beam was fitted."""
    unit: str
    polarization: str
    version: str
    """Of WSClean; empty where another program wrote the file."""

    def sky_cosine(self, x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
        """Distance from the phase centre as a direction cosine, sqrt(l^2 + m^2), of pixels (0-based); 1 is 90 deg."""
        x0, y0 = self.wcs.wcs.crpix - 1
        return np.hypot(np.asarray(x) - x0, np.asarray(y) - y0) * math.radians(self.scale_deg)


def open_picture(path: Path) -> Picture:
    """Open an image; its pixels are read when they are used.

    Raises
    ------
    MissingDataError, TruncatedDataError, InvalidDataError
        There is no file, it ends too early, or it is not one image in SIN projection with square pixels.
    """
    from astropy.io import fits
    from astropy.utils.exceptions import AstropyWarning
    from astropy.wcs import WCS, FITSFixedWarning, WcsError

    remedy = "Make the image again"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)  # a truncated file is found below
            with fits.open(path, memmap=True) as hdus:
                header = hdus[0].header
                wanted = hdus[0].fileinfo()["datLoc"] + hdus[0].size
                if path.stat().st_size < wanted:
                    raise TruncatedDataError(f"has {path.stat().st_size} of {wanted} bytes", path, remedy)
                cube = hdus[0].data
    except FileNotFoundError as error:
        raise MissingDataError("no such file", path) from error
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InvalidDataError(f"is not a FITS image ({error})", path, remedy) from error
    if cube is None or cube.ndim < 2 or cube.size != cube.shape[-1] * cube.shape[-2]:
        shape = None if cube is None else cube.shape
        raise InvalidDataError(f"is not one image but has the shape {shape}", path, remedy)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        try:
            wcs = WCS(header).celestial
        except WcsError as error:
            raise InvalidDataError(f"has no valid coordinates ({str(error).splitlines()[0]})", path, remedy) from error
    steps = np.abs(wcs.wcs.cdelt) if wcs.naxis == 2 else np.zeros(2)
    if list(wcs.wcs.ctype) != ["RA---SIN", "DEC--SIN"] or not 0 < steps[0] == steps[1]:
        raise InvalidDataError("is not an image in SIN projection with square pixels", path, remedy)
    date = header.get("DATE-OBS")
    return Picture(
        path=path,
        data=cube.reshape(cube.shape[-2:]),
        wcs=wcs,
        centre_rad=(math.radians(wcs.wcs.crval[0]) % (2 * math.pi), math.radians(wcs.wcs.crval[1])),
        scale_deg=float(steps[0]),
        freq_hz=float(header.get("CRVAL3", math.nan)),
        bandwidth_hz=float(header.get("CDELT3", math.nan)),
        time_s=None if not date else time_s_of(datetime.fromisoformat(date).replace(tzinfo=UTC)),
        beam_deg=(header["BMAJ"], header["BMIN"], header.get("BPA", 0.0)) if header.get("BMAJ") else None,
        unit=str(header.get("BUNIT", "")).strip().replace("JY/BEAM", "Jy/beam"),
        polarization=_STOKES.get(int(header.get("CRVAL4", 1)), "?"),
        version=str(header.get("WSCVERSI", "")),
    )


@dataclass(frozen=True)
class Extent:
    """Smallest and largest pixel (not a number as soon as one is not finite), and the noise."""

    minimum: float
    maximum: float
    rms: float
    """From the median absolute deviation, of the pixels within 80 deg of the phase centre."""

    @property
    def peak(self) -> float:
        """Largest absolute value."""
        return max(abs(self.minimum), abs(self.maximum))


def extent(picture: Picture) -> Extent:
    """Look at every pixel once, and at up to a million of them for the noise."""
    height, width = picture.data.shape
    lows, highs = [], []
    for row in range(0, height, 256):
        block = np.asarray(picture.data[row : row + 256], np.float32)  # to the machine's byte order, once
        lows.append(block.min())
        highs.append(block.max())
    low, high = float(np.min(lows)), float(np.max(highs))
    if not math.isfinite(low - high):
        return Extent(math.nan, math.nan, math.nan)
    step = max(1, math.ceil(math.sqrt(height * width / _SAMPLES)))
    y, x = np.ogrid[0:height:step, 0:width:step]
    sample = picture.data[::step, ::step][picture.sky_cosine(x, y) <= SKY_RADIUS]
    rms = float(MAD_TO_SIGMA * np.median(np.abs(sample - np.median(sample)))) if sample.size else math.nan
    return Extent(low, high, rms)


@dataclass(frozen=True)
class Measurement:
    """How a source came out in a picture."""

    name: str
    x_px: float
    y_px: float
    """Fitted position, 0-based; x grows to the west, y to the north."""
    ra_rad: float
    dec_rad: float
    offset_deg: float
    """Angle between the fitted and the true position."""
    offset_px: float
    peak_jy: float
    """Fitted peak, Jy/beam."""
    flux_jy: float
    """Peak times the fitted area over the beam's; in a dirty image, where no beam is known, the peak. Cleaning spreads
    a source between pixels over a few of them: with 3 pixels across the beam the peak is 7 % low, the flux is not.
    """
    expected_jy: float
    """Flux density at the picture's frequency and date as the dipoles see it (`orca.beam.ANALYTIC`, mean of X and Y);
    not a number where the spectrum is not known.
    """
    elevation_deg: float
    """At the start of the first integration; not a number if the picture has no date."""
    width_deg: tuple[float, float, float]
    """Major and minor axis (full width at half maximum) and position angle (from north through east) in the picture's
    plane; for a point source that of the beam. Not a number where the fit failed."""

    @property
    def ratio(self) -> float:
        """Measured over expected flux density."""
        return self.flux_jy / self.expected_jy


UNPOLARIZED = ("I", "XX", "YY")
"""Polarizations in which an unpolarized source shows its flux density."""


@dataclass(frozen=True)
class Examination:
    """All that is measured in a picture, in Jy/beam."""

    extent: Extent
    sources: tuple[Measurement, ...]
    """Bright sources; none for Q, U and V."""

    @property
    def rms_jy(self) -> float:
        """Robust, within 80 deg of the phase centre; of a dirty image mostly sidelobes."""
        return self.extent.rms

    @property
    def peak_jy(self) -> float:
        """Largest absolute value."""
        return self.extent.peak

    @property
    def dynamic_range(self) -> float:
        """Peak over noise."""
        return self.peak_jy / self.rms_jy if self.rms_jy else math.nan


def examine(picture: Picture, sources: Iterable[Source], found: Extent | None = None) -> Examination:
    """Measure a picture, and the sources in it; what was `found` of its extent is not looked for again."""
    measured = measure_sources(picture, sources) if picture.polarization in UNPOLARIZED else []
    return Examination(found or extent(picture), tuple(measured))


def measure_sources(image: Path | Picture, sources: Iterable[Source], radius_deg: float = 1.0) -> list[Measurement]:
    """Fit the peak nearest to each source that is above the horizon and on the picture.

    The peak is that of a Gaussian, see `fit_peak`.

    Parameters
    ----------
    image : Path or Picture
        In SIN projection, of total intensity or of one of the two linear polarizations.
    sources : sources
    radius_deg : float
        How far from its true place a source may be; at least 2.5 pixels are searched. The default lets the
        ionosphere refract by a degree.

    Raises
    ------
    DataError
        See `open_picture`.
    """
    picture = image if isinstance(image, Picture) else open_picture(image)
    found = (_measure(picture, source, radius_deg) for source in sources_in(picture, sources))
    return [measurement for measurement in found if measurement is not None]


def sources_in(picture: Picture, sources: Iterable[Source]) -> list[SourceUp]:
    """Sources above the horizon, the highest first, and within 90 deg of the phase centre.

    Without a date all that are near enough, with azimuth and elevation that are not numbers.
    """
    near = [source for source in sources if lmn(source.ra_rad, source.dec_rad, *picture.centre_rad)[2] > 0]
    if picture.time_s is None:
        return [SourceUp.of(source, math.nan, math.nan) for source in near]
    return sources_up(picture.time_s, 0.0, near)


def _measure(picture: Picture, source: SourceUp, radius_deg: float) -> Measurement | None:
    true = picture.wcs.all_world2pix([[math.degrees(source.ra_rad), math.degrees(source.dec_rad)]], 0)[0]
    height, width = picture.data.shape
    if not (0 <= true[0] <= width - 1 and 0 <= true[1] <= height - 1):
        return None
    radius_px = max(radius_deg / picture.scale_deg, 2.5)
    peak = _highest(picture.data, true, radius_px)
    x, y, value, covariance = fit_peak(picture.data, *peak)
    ra, dec = np.radians(picture.wcs.all_pix2world([[x, y]], 0)[0])
    if not math.isfinite(ra):  # a fit beyond the edge of the sky
        return None
    width_deg = _width(covariance, picture.scale_deg)
    flux = value
    if picture.beam_deg and math.isfinite(width_deg[0]):
        flux *= width_deg[0] * width_deg[1] / (picture.beam_deg[0] * picture.beam_deg[1])
    return Measurement(
        name=source.name,
        x_px=x,
        y_px=y,
        ra_rad=float(ra) % (2 * math.pi),
        dec_rad=float(dec),
        offset_deg=math.degrees(_angle(ra, dec, source.ra_rad, source.dec_rad)),
        offset_px=float(np.hypot(x - true[0], y - true[1])),
        peak_jy=value,
        flux_jy=flux,
        expected_jy=_expected_jy(picture, source),
        elevation_deg=source.elevation_deg,
        width_deg=width_deg,
    )


def _expected_jy(picture: Picture, source: SourceUp) -> float:
    if picture.time_s is None:
        return math.nan
    try:
        flux = float(source.flux_jy(picture.freq_hz, epoch_year(picture.time_s)))
    except InputError:  # a frequency at which its spectrum is not known
        return math.nan
    azimuth, elevation = math.radians(source.azimuth_deg), math.radians(source.elevation_deg)
    return flux * float(ANALYTIC.power(azimuth, elevation, picture.freq_hz).mean())


def _highest(data: NDArray[np.float32], centre: NDArray[np.float64], radius_px: float) -> tuple[int, int]:
    """Column and row of the highest pixel within a radius."""
    x0, y0 = (max(0, math.ceil(c - radius_px)) for c in centre)
    x1, y1 = (math.floor(c + radius_px) + 1 for c in centre)
    box = np.asarray(data[y0:y1, x0:x1], float)
    y, x = np.ogrid[y0 : y0 + box.shape[0], x0 : x0 + box.shape[1]]
    box[(x - centre[0]) ** 2 + (y - centre[1]) ** 2 > radius_px**2] = -np.inf
    row, column = np.unravel_index(int(np.argmax(box)), box.shape)
    return x0 + int(column), y0 + int(row)


def fit_peak(data: NDArray[Any], x_px: int, y_px: int) -> tuple[float, float, float, NDArray[np.float64]]:
    """Position, height and covariance matrix (pixels squared) of the Gaussian at a local maximum.

    The image is interpolated first (`_interpolated`), as pixels are often half as wide as the beam. The Gaussian is
    fitted to the logarithm of what is above 0.7 of the maximum, since only near its top is a dirty beam like one: a
    quadratic form, one linear least-squares solution, weighted by the square of the value, as noise that is equal in
    all pixels wants it (Guo 2011, IEEE Signal Process. Mag. 28, 134). Where that is no maximum, the highest
    interpolated value is returned, with a covariance that is not a number.
    """
    at, values = _interpolated(data, x_px, y_px)
    near = np.flatnonzero(np.abs(at) <= 1)
    core = values[np.ix_(near, near)]
    row, column = (near[index] for index in np.unravel_index(int(np.argmax(core)), core.shape))
    top = float(values[row, column])
    x, y = float(at[column]), float(at[row])
    failed = (x_px + x, y_px + y, top, np.full((2, 2), math.nan))
    if not (np.isfinite(values).all() and top > 0):
        return failed
    dx, dy = (grid.ravel() for grid in np.meshgrid(at - x, at - y))
    weight = values.ravel() / top
    use = (weight > 0.7) & (np.hypot(dx, dy) < 2.5)
    dx, dy, weight = dx[use], dy[use], weight[use]
    design = np.stack([np.ones(dx.size), dx, dy, dx * dx, dx * dy, dy * dy], axis=1)
    constant, *slope, xx, xy, yy = np.linalg.lstsq(design * weight[:, None], np.log(weight) * weight, rcond=None)[0]
    curvature = -np.array([[2 * xx, xy], [xy, 2 * yy]])
    if np.linalg.eigvalsh(curvature)[0] <= 1e-6:
        return failed
    shift = np.linalg.solve(curvature, slope)
    if np.hypot(*shift) > 1:
        return failed
    height = top * math.exp(constant + 0.5 * float(shift @ curvature @ shift))
    return x_px + x + float(shift[0]), y_px + y + float(shift[1]), height, np.linalg.inv(curvature)


def _interpolated(
    data: NDArray[Any], x_px: int, y_px: int, reach: int = 3, lobes: int = 8, step: float = 0.25
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values around a pixel, every quarter of a pixel, by a Lanczos kernel (the image is band-limited).

    Returns
    -------
    offsets : (n,)
        Pixels from the given one.
    values : (n, n)
        At these offsets in y and x.
    """
    around = np.arange(-reach - lobes, reach + lobes + 1)
    rows, columns = (np.clip(c + around, 0, n - 1) for c, n in ((y_px, data.shape[0]), (x_px, data.shape[1])))
    offsets = np.arange(-reach, reach + step / 2, step)
    distance = offsets[:, None] - around[None, :]
    kernel = np.sinc(distance) * np.sinc(distance / lobes) * (np.abs(distance) < lobes)
    kernel /= kernel.sum(axis=1, keepdims=True)
    return offsets, kernel @ np.asarray(data[np.ix_(rows, columns)], float) @ kernel.T


def _width(covariance: NDArray[np.float64], scale_deg: float) -> tuple[float, float, float]:
    if not np.isfinite(covariance).all():
        return math.nan, math.nan, math.nan
    variance, axes = np.linalg.eigh(covariance)
    minor, major = np.sqrt(8 * math.log(2) * variance) * scale_deg
    angle = math.degrees(math.atan2(-axes[0, 1], axes[1, 1])) % 180  # x grows to the west
    return float(major), float(minor), angle


def _angle(ra1: float, dec1: float, ra2: float, dec2: float) -> float:
    """Angle between two directions, exact at small angles too."""
    l, m, n = lmn(ra1, dec1, ra2, dec2)
    return math.atan2(math.hypot(l, m), n)
