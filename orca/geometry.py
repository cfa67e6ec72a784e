"""Where the array is, and where the sky is above it: time, place and direction, by astropy, offline.

Times are MJD seconds UTC as in a Measurement Set, or aware `datetime` objects. Directions are ICRS, which is J2000
to 0.02 arcsec. Refraction and the ionosphere are left out everywhere. No function downloads anything: Earth
orientation comes from the tables that are installed with astropy, and where they end the last value is used.

Import these names from `orca.telescope`, which also has what belongs to the instrument.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from orca.errors import InputError

if TYPE_CHECKING:
    from astropy.coordinates import EarthLocation
    from astropy.time import Time
    from astropy.utils.iers import IERS_A

Floats: TypeAlias = NDArray[np.float64]
Moment: TypeAlias = float | datetime
"""MJD seconds UTC, or an aware datetime."""

LATITUDE_DEG = 37.23977727
LONGITUDE_DEG = -118.2816667
HEIGHT_M = 1183.48
"""The one array centre, geodetic WGS84."""

_MJD_ZERO = datetime(1858, 11, 17, tzinfo=UTC)
_NORTH_STEP_RAD = 1e-3
_ASTROPY_LOCK = threading.Lock()


def datetime_of(time_s: float) -> datetime:
    """UTC datetime of MJD seconds, to the microsecond.

    Raises
    ------
    InputError
        If it is before 1960 (when UTC began; days, or seconds since 1970, in place of MJD seconds end up there), after
        9999, or no number.
    """
    try:
        time = _MJD_ZERO + timedelta(seconds=float(time_s))
    except (OverflowError, ValueError, TypeError):
        time = _MJD_ZERO
    if time.year < 1960:
        raise InputError(
            f"{time_s!r} is not a time", remedy="Give MJD seconds in UTC, as they are in the TIME column of an MS"
        )
    return time


def utc_of(time: datetime) -> datetime:
    """The same moment in UTC. Raises InputError if the datetime has no time zone."""
    if time.utcoffset() is None:
        raise InputError(
            f"the time {time.isoformat()} has no time zone", remedy="Use an aware datetime, such as one with tzinfo=UTC"
        )
    return datetime(*time.utctimetuple()[:6], time.microsecond, UTC)  # plain, also of a class that inherits from it


def time_s_of(time: datetime) -> float:
    """MJD seconds UTC of a datetime of any time zone. Raises InputError if it has none."""
    return (utc_of(time) - _MJD_ZERO).total_seconds()


def array_position_itrf_m() -> Floats:
    """Geocentric (ITRF) x, y, z of the array centre, in metres; shape (3,)."""
    place = _place()
    return np.array([place.x.to_value("m"), place.y.to_value("m"), place.z.to_value("m")])


def itrf_to_enu(positions_itrf_m: ArrayLike) -> Floats:
    """East, north and up of ITRF positions as seen from the array centre, in metres; (n, 3) to (n, 3)."""
    return (_vectors(positions_itrf_m) - array_position_itrf_m()) @ _enu_axes().T


def enu_to_itrf(positions_enu_m: ArrayLike) -> Floats:
    """ITRF positions of points given by east, north and up from the array centre, in metres; (n, 3) to (n, 3)."""
    return array_position_itrf_m() + _vectors(positions_enu_m) @ _enu_axes()


def altaz_rad(ra_rad: ArrayLike, dec_rad: ArrayLike, time: Moment) -> tuple[Floats, Floats]:
    """Azimuth (north through east, 0 to 2 pi) and elevation of directions, without refraction.

    Parameters
    ----------
    ra_rad, dec_rad : float or array
        ICRS directions; broadcast against each other.
    time : float or datetime
        One moment.

    Returns
    -------
    azimuth_rad, elevation_rad : arrays of the broadcast shape
        Apparent: precession, nutation, aberration, light deflection and polar motion are in.
    """
    from astropy import units as u
    from astropy.coordinates import ICRS, AltAz

    ra, dec = np.broadcast_arrays(np.asarray(ra_rad, float), np.asarray(dec_rad, float))
    with _offline():
        frame = AltAz(obstime=_astropy_time(time), location=_place())
        seen = ICRS(ra=ra * u.rad, dec=dec * u.rad).transform_to(frame)
    return np.asarray(seen.az.rad) % (2 * np.pi), np.asarray(seen.alt.rad)


def zenith_rad(time: Moment) -> tuple[float, float]:
    """ICRS right ascension (0 to 2 pi) and declination of the array's zenith."""
    from astropy import units as u
    from astropy.coordinates import ICRS, AltAz

    with _offline():
        up = AltAz(az=0 * u.rad, alt=np.pi / 2 * u.rad, obstime=_astropy_time(time), location=_place())
        zenith = up.transform_to(ICRS())
    return float(zenith.ra.rad) % (2 * math.pi), float(zenith.dec.rad)


def hour_angle_rad(ra_rad: float, dec_rad: float, time: Moment) -> float:
    """Apparent hour angle of an ICRS direction at the array, from -pi to pi, negative before the transit."""
    from astropy import units as u
    from astropy.coordinates import ICRS, HADec

    with _offline():
        frame = HADec(obstime=_astropy_time(time), location=_place())
        seen = ICRS(ra=ra_rad * u.rad, dec=dec_rad * u.rad).transform_to(frame)
    return math.remainder(float(seen.ha.rad), 2 * math.pi)


def sidereal_time_h(time: Moment) -> float:
    """Local apparent sidereal time of the array centre, in hours from 0 to 24 (IAU 2006/2000A)."""
    with _offline():
        return float(_astropy_time(time).sidereal_time("apparent", longitude=_place().lon).hour) % 24.0


def uvw_m(positions_itrf_m: ArrayLike, ra_rad: float, dec_rad: float, time: Moment) -> Floats:
    """UVW of every antenna for a phase centre, relative to the array centre.

    A baseline's UVW is ``uvw[antenna2] - uvw[antenna1]``, with V = exp(+2 pi i (u l + v m + w (n - 1)) / lambda).

    The axes are those of the apparent sky: w points to where the phase centre is seen, v lies in the plane of w and
    a point a little further north, and u = v x w. So aberration is in, besides precession and nutation, as it is in
    the UVW that CASA makes.

    Parameters
    ----------
    positions_itrf_m : array, shape (n, 3)
        Geocentric antenna positions, as in the ANTENNA table.
    ra_rad, dec_rad : float
        Phase centre, ICRS.
    time : float or datetime
        Centre of the integration (TIME_CENTROID).

    Returns
    -------
    array, shape (n, 3)
        u, v, w in metres.
    """
    centre, north = _centre_and_north(ra_rad, dec_rad)
    step = _NORTH_STEP_RAD
    points = np.array(
        [centre, math.cos(step) * centre + math.sin(step) * north, math.cos(step) * centre - math.sin(step) * north]
    )
    azimuth, elevation = altaz_rad(np.arctan2(points[:, 1], points[:, 0]), np.arcsin(points[:, 2]), time)
    seen = np.column_stack(
        [np.sin(azimuth) * np.cos(elevation), np.cos(azimuth) * np.cos(elevation), np.sin(elevation)]
    )
    w = seen[0]
    v = seen[1] - seen[2]
    v -= (v @ w) * w
    v /= np.linalg.norm(v)
    return itrf_to_enu(positions_itrf_m) @ np.array([np.cross(v, w), v, w]).T


def lmn(ra_rad: ArrayLike, dec_rad: ArrayLike, ra0_rad: float, dec0_rad: float) -> tuple[Floats, Floats, Floats]:
    """Direction cosines of directions about a phase centre: l to the east, m to the north, n towards the centre.

    n is negative for what is more than 90 degrees away. This is the orthographic projection (SIN) of Calabretta and
    Greisen 2002, A&A 395, 1077, section 5.1.5.
    """
    ra, dec = np.asarray(ra_rad, float), np.asarray(dec_rad, float)
    cos_dec, sin_dec, cos_ra = np.cos(dec), np.sin(dec), np.cos(ra - ra0_rad)
    l = cos_dec * np.sin(ra - ra0_rad)
    m = sin_dec * math.cos(dec0_rad) - cos_dec * math.sin(dec0_rad) * cos_ra
    n = sin_dec * math.sin(dec0_rad) + cos_dec * math.cos(dec0_rad) * cos_ra
    return l, m, n


def _centre_and_north(ra: float, dec: float) -> tuple[Floats, Floats]:
    centre = np.array([math.cos(dec) * math.cos(ra), math.cos(dec) * math.sin(ra), math.sin(dec)])
    north = np.array([-math.sin(dec) * math.cos(ra), -math.sin(dec) * math.sin(ra), math.cos(dec)])
    return centre, north


def _vectors(positions: ArrayLike) -> Floats:
    array = np.asarray(positions, float)
    if array.shape[-1:] != (3,):
        raise InputError(f"positions have the shape {array.shape}", remedy="They need three coordinates each: (n, 3)")
    return array


def _enu_axes() -> Floats:
    """Rows: the east, north and up unit vectors in ITRF at the array centre."""
    lat, lon = math.radians(LATITUDE_DEG), math.radians(LONGITUDE_DEG)
    up, north = _centre_and_north(lon, lat)
    return np.array([np.cross(north, up), north, up])


@cache
def _place() -> EarthLocation:
    from astropy.coordinates import EarthLocation

    return EarthLocation.from_geodetic(LONGITUDE_DEG, LATITUDE_DEG, HEIGHT_M)


def _astropy_time(time: Moment) -> Time:
    from astropy.time import Time

    if not isinstance(time, datetime):
        datetime_of(time)  # refuses what is no time
    day, second = divmod(time_s_of(time) if isinstance(time, datetime) else float(time), 86400.0)
    return Time(day, second / 86400.0, format="mjd", scale="utc")


@cache
def _earth_orientation() -> IERS_A:
    from astropy.utils import iers

    return iers.IERS_A.read(iers.IERS_A_FILE)


@contextmanager
def _offline() -> Iterator[None]:
    """Astropy with the Earth orientation and leap seconds that are installed with it: no download, no warning.

    Its settings belong to the whole process, so they are changed for the moment only and by one thread at a time.
    Beyond the tables (about a year after their release) the last value of UT1 - UTC stands, good to about a second
    or 15 arcsec for years; astropy's warnings about that are not for our users.
    """
    from astropy.utils import iers

    with _ASTROPY_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with (
            iers.conf.set_temp("auto_download", False),
            iers.conf.set_temp("auto_max_age", None),
            iers.conf.set_temp("iers_degraded_accuracy", "ignore"),
            iers.earth_orientation_table.set(_earth_orientation()),
        ):
            yield
