"""Numbers of the array, times and directions, against casacore, against astropy asked in another way, and facts."""

from __future__ import annotations

import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import ICRS, ITRS, EarthLocation, SkyCoord
from astropy.time import Time
from astropy.utils import iers
from casacore.measures import measures

from orca import telescope
from orca.errors import InputError

CYG_A = (math.radians(299.868152), math.radians(40.733915))
VIR_A = (math.radians(187.705931), math.radians(12.391123))
ARCSEC = math.radians(1 / 3600)
DATES = [
    datetime(2018, 3, 15, 16, tzinfo=UTC),
    datetime(2024, 9, 1, 3, tzinfo=UTC),
    datetime(2026, 1, 10, 18, tzinfo=UTC),
]
NAMES = [13, 18, 23, 27, 32, 36, 41, 46, 50, 55, 59, 64, 69, 73, 78, 82]


@pytest.fixture(scope="module")
def positions() -> np.ndarray:
    """ITRF positions of 40 antennas, up to about 2 km apart."""
    return telescope.enu_to_itrf(np.random.default_rng(1).normal(0, [600, 600, 3], (40, 3)))


def casacore_frame(time: datetime) -> measures:
    frame = measures()
    frame.do_frame(frame.position("itrf", *(f"{x:.6f}m" for x in telescope.array_position_itrf_m())))
    frame.do_frame(frame.epoch("utc", f"{telescope.time_s_of(time) / 86400:.12f}d"))
    return frame


def casacore_uvw(positions_m: np.ndarray, ra: float, dec: float, time: datetime) -> np.ndarray:
    """UVW by casacore's own conversion of baselines from ITRF to J2000, as CASA does it."""
    frame = casacore_frame(time)
    frame.do_frame(frame.direction("j2000", f"{ra:.15f}rad", f"{dec:.15f}rad"))
    to_j2000 = np.zeros((3, 3))
    for k in range(3):
        base = frame.measure(frame.baseline("itrf", *("1000m" if i == k else "0m" for i in range(3))), "j2000")
        lon, lat = base["m0"]["value"], base["m1"]["value"]
        to_j2000[:, k] = math.cos(lat) * math.cos(lon), math.cos(lat) * math.sin(lon), math.sin(lat)
    axes = np.array(
        [
            [-math.sin(ra), math.cos(ra), 0],
            [-math.sin(dec) * math.cos(ra), -math.sin(dec) * math.sin(ra), math.cos(dec)],
            [math.cos(dec) * math.cos(ra), math.cos(dec) * math.sin(ra), math.sin(dec)],
        ]
    )
    return (positions_m - telescope.array_position_itrf_m()) @ (axes @ to_j2000).T


def test_importing_the_telescope_and_the_names_does_not_import_astropy():
    code = "import sys, orca.telescope, orca.naming; sys.exit('astropy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_subbands_are_contiguous_and_named_after_their_first_channel():
    assert [band.name for band in telescope.SUBBANDS] == [f"{name}MHz" for name in NAMES]
    freq = np.concatenate([band.frequencies_hz() for band in telescope.SUBBANDS])
    assert len(freq) == 3072
    assert freq[0] == 13_398_437.5
    np.testing.assert_allclose(np.diff(freq), 23_925.78125, rtol=0, atol=1e-6)
    assert freq[-1] == pytest.approx(86.874e6, abs=1e3)
    assert telescope.subband(73).first_channel_hz == pytest.approx(73.117e6, abs=1e3)
    for low, high in zip(telescope.SUBBANDS, telescope.SUBBANDS[1:], strict=False):
        assert low.edges_hz[1] == pytest.approx(high.edges_hz[0])


def test_an_integration_lasts_ten_seconds_and_a_bit():
    assert pytest.approx(10.031020408, abs=1e-9) == telescope.INTEGRATION_S


@pytest.mark.parametrize("name", ["73MHz", "73", 73, " 73mhz "])
def test_a_subband_is_found_by_name_or_number(name):
    assert telescope.subband(name).name == "73MHz"


@pytest.mark.parametrize("name", ["74MHz", "74", 74])
def test_an_unknown_subband_is_refused_and_the_nearest_named(name):
    with pytest.raises(InputError, match=r"nearest is 73MHz.*13, 18"):
        telescope.subband(name)


@pytest.mark.parametrize("name", ["", "MHz", "../73MHz", "nan", "73 MHz 2", "-73"])
def test_what_is_no_subband_at_all_is_refused(name):
    with pytest.raises(InputError, match="subbands are 13, 18"):
        telescope.subband(name)


def test_averaged_channels_are_centred_on_their_group():
    band = telescope.subband("55MHz")
    averaged = band.frequencies_hz(average=4)
    assert averaged.shape == (48,)
    assert averaged[0] == pytest.approx(band.first_channel_hz + 1.5 * telescope.CHANNEL_WIDTH_HZ)
    assert len(band.frequencies_hz(16)) == 16
    for channels, average in ((193, 1), (0, 1), (16, 5), (16, 0)):
        with pytest.raises(InputError):
            band.frequencies_hz(channels, average)


@pytest.mark.parametrize("band", telescope.SUBBANDS, ids=lambda band: band.name)
def test_the_subband_of_channels_is_found_whatever_their_number(band):
    for freq in (
        band.frequencies_hz(),
        band.frequencies_hz(average=4),
        band.frequencies_hz(8)[::-1],
        band.edges_hz[0] + 1,
    ):
        assert telescope.subband_of(freq) is band


def test_channels_outside_or_of_several_subbands_have_none():
    assert telescope.subband_of([150e6]) is None
    assert telescope.subband_of([]) is None
    whole = np.concatenate([band.frequencies_hz() for band in telescope.SUBBANDS])
    assert telescope.subband_of(whole) is None


def test_times_go_both_ways_and_agree_with_astropy():
    time = datetime(2026, 1, 10, 18, 0, 5, 31020, tzinfo=UTC)
    time_s = telescope.time_s_of(time)
    assert time_s == pytest.approx(Time(time).mjd * 86400, abs=1e-5)
    assert telescope.datetime_of(time_s) == time
    assert telescope.datetime_of(time_s).tzinfo is UTC
    california = time.astimezone(timezone(timedelta(hours=-8)))
    assert telescope.time_s_of(california) == time_s


@pytest.mark.parametrize(
    "use",
    [
        telescope.time_s_of,
        telescope.sidereal_time_h,
        telescope.zenith_rad,
        lambda time: telescope.altaz_rad(1.0, 0.5, time),
        lambda time: telescope.next_transit(*CYG_A, time),
        lambda time: telescope.transits(*CYG_A, DATES[0], time),
    ],
)
def test_a_time_without_zone_is_refused(use):
    with pytest.raises(InputError, match="no time zone"):
        use(datetime(2026, 1, 10, 18))


@pytest.mark.parametrize("time_s", [61050.75, 1.768e9, math.nan, math.inf, -1.0, 1e30, "now"])
def test_days_or_unix_seconds_or_nonsense_are_no_time(time_s):
    with pytest.raises(InputError, match="MJD seconds"):
        telescope.sidereal_time_h(time_s)


def test_the_array_stands_where_it_should():
    place = EarthLocation.from_geocentric(*telescope.array_position_itrf_m(), unit=u.m)
    assert place.lat.deg == pytest.approx(37.23977727, abs=1e-9)
    assert place.lon.deg == pytest.approx(-118.2816667, abs=1e-9)
    assert place.height.to_value(u.m) == pytest.approx(1183.48, abs=1e-6)


def test_east_north_up_point_where_they_should(positions):
    np.testing.assert_allclose(telescope.enu_to_itrf(telescope.itrf_to_enu(positions)), positions, atol=1e-8)
    north, east, up = (
        EarthLocation.from_geodetic(
            telescope.LONGITUDE_DEG + dlon, telescope.LATITUDE_DEG + dlat, telescope.HEIGHT_M + dh
        )
        for dlat, dlon, dh in ((1e-4, 0, 0), (0, 1e-4, 0), (0, 0, 10))
    )
    for place, enu in ((north, (0, 11.1003, 0)), (east, (8.8748, 0, 0)), (up, (0, 0, 10))):
        xyz = [[place.x.value, place.y.value, place.z.value]]
        np.testing.assert_allclose(telescope.itrf_to_enu(xyz), [enu], atol=1e-3)


def test_positions_without_three_coordinates_are_refused():
    with pytest.raises(InputError, match=r"\(n, 3\)"):
        telescope.itrf_to_enu(np.zeros((4, 2)))


@pytest.mark.parametrize("time", DATES)
def test_sidereal_time_agrees_with_casacore(time):
    last = casacore_frame(time).measure(casacore_frame(time).epoch("utc", f"{Time(time).mjd:.12f}d"), "utc")
    frame = casacore_frame(time)
    theirs = frame.measure(last, "last")["m0"]["value"] % 1 * 24
    assert math.remainder(telescope.sidereal_time_h(time) - theirs, 24) * 3600 == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("time", DATES)
def test_azimuth_and_elevation_agree_with_casacore(time):
    rng = np.random.default_rng(2)
    ra, dec = rng.uniform(0, 2 * np.pi, 20), np.arcsin(rng.uniform(-0.8, 1, 20))
    azimuth, elevation = telescope.altaz_rad(ra, dec, time)
    frame = casacore_frame(time)
    for k in range(20):
        there = frame.measure(frame.direction("j2000", f"{ra[k]:.15f}rad", f"{dec[k]:.15f}rad"), "azelgeo")
        az, el = there["m0"]["value"], there["m1"]["value"]
        assert elevation[k] == pytest.approx(el, abs=2 * ARCSEC)
        assert math.remainder(azimuth[k] - az, 2 * math.pi) * math.cos(el) == pytest.approx(0, abs=2 * ARCSEC)


def test_shapes_of_directions_broadcast():
    azimuth, elevation = telescope.altaz_rad(np.zeros((2, 1)), np.zeros(3), DATES[0])
    assert azimuth.shape == elevation.shape == (2, 3)
    assert telescope.altaz_rad(0.0, 0.0, DATES[0])[1].shape == ()


@pytest.mark.parametrize("time", DATES)
def test_the_zenith_is_overhead_for_both_kinds_of_time(time):
    assert telescope.zenith_rad(telescope.time_s_of(time)) == pytest.approx(telescope.zenith_rad(time), abs=1e-9)
    _, elevation = telescope.altaz_rad(*telescope.zenith_rad(time), time)
    assert elevation == pytest.approx(math.pi / 2, abs=0.01 * ARCSEC)


@pytest.mark.parametrize(("direction", "azimuth_deg"), [(CYG_A, 0.0), (VIR_A, 180.0)])
def test_a_transit_crosses_the_meridian_within_a_tenth_of_a_second(direction, azimuth_deg):
    transit = telescope.next_transit(*direction, datetime(2026, 1, 10, tzinfo=UTC))
    side = [
        math.remainder(
            math.degrees(telescope.altaz_rad(*direction, transit + timedelta(seconds=s))[0]) - azimuth_deg, 360
        )
        for s in (-0.1, 0.1)
    ]
    assert side[0] * side[1] < 0
    assert abs(side[0]) < 0.02


def test_cyg_a_transits_at_the_sidereal_time_that_the_operators_use():
    transit = telescope.next_transit(*CYG_A, datetime(2024, 5, 24, tzinfo=UTC))
    assert telescope.sidereal_time_h(transit) == pytest.approx(20.0055, abs=0.0005)


def test_transits_are_a_sidereal_day_apart_and_none_is_lost_or_repeated():
    start = datetime(2026, 1, 1, tzinfo=UTC)
    found = telescope.transits(*CYG_A, start, start + timedelta(days=30))
    assert len(found) == 30
    gaps = np.diff([telescope.time_s_of(time) for time in found])
    np.testing.assert_allclose(gaps, telescope.SIDEREAL_DAY_S, atol=0.1)
    assert telescope.transits(*CYG_A, found[3], found[3]) == []
    assert telescope.transits(*CYG_A, found[3], found[4]) == [found[4]]


@pytest.mark.parametrize("milliseconds", [-2000, -5, 5, 2000, 40_000_000])
def test_the_next_transit_is_the_first_one_after(milliseconds):
    transit = telescope.next_transit(*CYG_A, datetime(2026, 1, 10, tzinfo=UTC))
    after = transit + timedelta(milliseconds=milliseconds)
    found = telescope.next_transit(*CYG_A, after)
    days = 0 if milliseconds < 0 else 1
    assert (found - transit).total_seconds() == pytest.approx(days * telescope.SIDEREAL_DAY_S, abs=0.05)


@pytest.mark.parametrize("time", DATES)
@pytest.mark.parametrize("where", ["zenith", "cyg_a", "low in the south", "near the pole"])
def test_uvw_agrees_with_casacore(positions, time, where):
    ra, dec = {
        "zenith": telescope.zenith_rad(time),
        "cyg_a": CYG_A,
        "low in the south": (telescope.zenith_rad(time)[0] + 0.8, -0.4),
        "near the pole": (2.0, 1.55),
    }[where]
    difference = telescope.uvw_m(positions, ra, dec, time) - casacore_uvw(positions, ra, dec, time)
    length = np.linalg.norm(positions - telescope.array_position_itrf_m(), axis=1)
    # Measured: 1.2e-6 to 3.5e-6, which is how well (0.2 to 0.8 arcsec) casacore's older precession and polar motion
    # agree with astropy's. Without aberration it would be 1e-4.
    assert np.abs(difference / length[:, None]).max() < 5e-6


@pytest.mark.parametrize(("ra", "dec"), [CYG_A, (1.0, -0.2), (3.0, 1.5)])
def test_uvw_is_the_gradient_of_the_path_length_over_the_sky(positions, ra, dec):
    """By astropy's geocentric frame, in which neither horizon nor east, north and up play a part."""
    time = Time(DATES[1])
    place = EarthLocation.from_geocentric(*telescope.array_position_itrf_m(), unit=u.m)

    def path(ra_rad: float, dec_rad: float) -> np.ndarray:
        seen = ICRS(ra=ra_rad * u.rad, dec=dec_rad * u.rad).transform_to(ITRS(obstime=time, location=place))
        return (positions - telescope.array_position_itrf_m()) @ seen.cartesian.xyz.value

    uvw = telescope.uvw_m(positions, ra, dec, DATES[1])
    np.testing.assert_allclose(uvw[:, 2], path(ra, dec), atol=1e-5)
    step = 1e-5
    along_ra = (path(ra + step / math.cos(dec), dec) - path(ra - step / math.cos(dec), dec)) / (2 * step)
    along_dec = (path(ra, dec + step) - path(ra, dec - step)) / (2 * step)
    length = np.linalg.norm(uvw, axis=1)
    assert np.abs((uvw[:, 0] - along_ra) / length).max() < 1.1e-4  # aberration stretches the sky by up to 1e-4
    assert np.abs((uvw[:, 1] - along_dec) / length).max() < 1.1e-4
    np.testing.assert_allclose(length, np.linalg.norm(positions - telescope.array_position_itrf_m(), axis=1), rtol=1e-9)


def test_axes_of_uvw_are_east_north_and_up_at_the_zenith(positions):
    time = DATES[2]
    enu = telescope.itrf_to_enu(positions)
    uvw = telescope.uvw_m(positions, *telescope.zenith_rad(time), time)
    np.testing.assert_allclose(uvw[:, 2], enu[:, 2], atol=1e-3)
    # North of the catalogue and north on the ground differ by the precession since 2000.
    np.testing.assert_allclose(uvw[:, :2], enu[:, :2], atol=0.006 * np.abs(enu).max())


def test_a_source_in_the_east_reaches_the_eastern_antenna_first():
    """UVW = position(ANTENNA2) - position(ANTENNA1), and u grows towards the east."""
    time = DATES[2]
    ra0, dec0 = telescope.zenith_rad(time)
    pair = telescope.enu_to_itrf([[0.0, 0.0, 0.0], [100.0, 0.0, 0.0]])
    uvw = telescope.uvw_m(pair, ra0, dec0, time)
    u_m, _, w_m = uvw[1] - uvw[0]
    assert u_m == pytest.approx(100, abs=0.01)
    assert w_m == pytest.approx(0, abs=0.01)
    towards_east = telescope.lmn(ra0 + 0.2, dec0, ra0, dec0)
    azimuth, _ = telescope.altaz_rad(ra0 + 0.2, dec0, time)
    assert math.sin(azimuth) > 0.9
    assert u_m * towards_east[0] > 0


def test_direction_cosines_agree_with_astropy():
    ra0, dec0 = CYG_A
    rng = np.random.default_rng(3)
    ra, dec = rng.uniform(0, 2 * np.pi, 50), rng.uniform(-1.5, 1.5, 50)
    l, m, n = telescope.lmn(ra, dec, ra0, dec0)
    offset = ICRS(ra=ra * u.rad, dec=dec * u.rad).transform_to(SkyCoord(ra0, dec0, unit=u.rad).skyoffset_frame())
    x, y, z = offset.cartesian.xyz.value
    np.testing.assert_allclose([n, l, m], [x, y, z], atol=1e-12)


@pytest.mark.parametrize("year", [1961, 2035, 2060])
def test_dates_beyond_the_tables_neither_download_nor_warn(year, monkeypatch, recwarn):
    def no_network(*_args, **_kwargs):
        raise AssertionError("tried to download")

    monkeypatch.setattr("astropy.utils.iers.iers.download_file", no_network)
    monkeypatch.setattr("socket.socket.connect", no_network)
    time = datetime(year, 7, 1, tzinfo=UTC)
    zenith = telescope.zenith_rad(time)
    _, elevation = telescope.altaz_rad(*zenith, time)
    assert elevation == pytest.approx(math.pi / 2, abs=ARCSEC)
    assert 0 <= telescope.sidereal_time_h(time) < 24
    assert telescope.next_transit(*CYG_A, time) > time
    assert not recwarn.list


def test_settings_of_astropy_are_left_as_they_were():
    before = (iers.conf.auto_download, iers.conf.auto_max_age, iers.conf.iers_degraded_accuracy)
    table = iers.earth_orientation_table._value
    telescope.zenith_rad(DATES[0])
    assert before == (iers.conf.auto_download, iers.conf.auto_max_age, iers.conf.iers_degraded_accuracy)
    assert iers.earth_orientation_table._value is table


def test_threads_get_the_same_answers():
    times = [DATES[0] + timedelta(minutes=k) for k in range(24)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(telescope.zenith_rad, times))
    assert together == [telescope.zenith_rad(time) for time in times]


def outlying_array(seed: int = 4) -> np.ndarray:
    """As the real one: 238 antennas inside 110 m, 5 at 250 m, 109 from 157 m to 1.5 km, mostly to the south-west."""
    rng = np.random.default_rng(seed)
    radius = np.concatenate([110 * np.sqrt(rng.uniform(0, 1, 238)), np.full(5, 250.0), rng.uniform(157, 1500, 109)])
    angle = np.concatenate([rng.uniform(0, 2 * np.pi, 243), rng.uniform(np.pi, 1.5 * np.pi, 109)])
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle), rng.normal(0, 1, 352)])


def test_the_core_is_told_from_the_outriggers_in_any_frame_and_order():
    enu = outlying_array()
    order = np.random.default_rng(5).permutation(len(enu))
    expected = np.arange(352) < 238
    np.testing.assert_array_equal(telescope.split_core(enu), expected)
    np.testing.assert_array_equal(telescope.split_core(telescope.enu_to_itrf(enu[order])), expected[order])


def test_the_core_is_found_when_most_of_it_is_missing():
    enu = outlying_array()[np.r_[:60, 300:320]] + np.array([40.0, -70.0, 3.0])
    np.testing.assert_array_equal(telescope.split_core(enu), np.arange(80) < 60)


def test_an_array_without_core_has_no_core_antennas():
    assert not telescope.split_core([[0, 0, 0], [1000, 0, 0]]).any()
    assert telescope.split_core(np.zeros((0, 3))).shape == (0,)
    with pytest.raises(InputError):
        telescope.split_core([1.0, 2.0, 3.0])


def test_the_configuration_may_name_the_outriggers():
    positions = np.zeros((5, 3))
    np.testing.assert_array_equal(telescope.split_core(positions, outriggers=(1, 4)), [True, False, True, True, False])
    with pytest.raises(InputError, match="no antenna 5"):
        telescope.split_core(positions, outriggers=(5,))
