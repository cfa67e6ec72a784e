"""Positions and spectra of the bright sources against what is published."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.time import Time

from orca import sky, telescope
from orca.errors import InputError

BAND_HZ = np.concatenate([band.frequencies_hz() for band in telescope.SUBBANDS])


def perley_butler_2017(freq_hz: float, *coefficients: float) -> float:
    return float(10 ** np.polynomial.polynomial.polyval(np.log10(freq_hz / 1e9), coefficients))


@pytest.mark.parametrize(
    ("source", "position"),
    [
        (sky.CYG_A, "19h59m28.36s +40d44m02.1s"),
        (sky.CAS_A, "23h23m24.0s +58d48m54s"),
        (sky.TAU_A, "05h34m31.9s +22d00m52s"),
        (sky.VIR_A, "12h30m49.42s +12d23m28.0s"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_sources_stand_where_the_catalogues_say(source, position):
    ours = SkyCoord(source.ra_rad, source.dec_rad, unit="rad")
    assert ours.separation(SkyCoord(position)).arcsec < 1


@pytest.mark.parametrize(
    ("source", "flux_jy", "within"),
    [(sky.CYG_A, 20_735, 0.01), (sky.CAS_A, 19_346, 0.03), (sky.TAU_A, 2316, 0.06), (sky.VIR_A, 2467, 0.01)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_flux_densities_at_55_mhz_are_those_the_observatory_uses(source, flux_jy, within):
    assert source.flux_jy(55e6, 2026.0) == pytest.approx(flux_jy, rel=within)


@pytest.mark.parametrize("freq_mhz", [50, 55, 65, 74, 87])
def test_cyg_a_agrees_with_perley_and_butler_where_they_measured(freq_mhz):
    theirs = perley_butler_2017(freq_mhz * 1e6, 3.3498, -1.0022, -0.2246, 0.0227, 0.0425)
    assert sky.CYG_A.flux_jy(freq_mhz * 1e6, 2026.0) == pytest.approx(theirs, rel=0.01)


@pytest.mark.parametrize(
    ("freq_mhz", "flux_jy", "within"),
    [(16.7, 26_600, 0.14), (22.25, 29_100, 0.06), (26.3, 29_600, 0.052), (38, 25_500, 0.042), (81.5, 16_300, 0.042)],
)
def test_cyg_a_agrees_with_absolute_measurements(freq_mhz, flux_jy, within):
    """Baars et al. 1977, with their errors."""
    assert sky.CYG_A.flux_jy(freq_mhz * 1e6, 2026.0) == pytest.approx(flux_jy, rel=within)


@pytest.mark.parametrize("freq_mhz", [30, 38, 50, 60, 74, 80])
def test_cas_a_has_faded_from_what_it_was_in_1965(freq_mhz):
    """Baars et al. 1977 for 1965.0 (22 to 300 MHz), fifty-eight years before the epoch of our spectrum."""
    x = np.log10(freq_mhz)
    then = 10 ** (5.625 - 0.634 * x - 0.023 * x**2)
    assert sky.CAS_A.flux_jy(freq_mhz * 1e6, 1965.0) == pytest.approx(then, rel=0.065)


def test_cas_a_and_tau_a_fade_and_the_radio_galaxies_do_not():
    for source, share in ((sky.CAS_A, 0.007), (sky.TAU_A, 0.00167), (sky.CYG_A, 0), (sky.VIR_A, 0)):
        now, later = source.flux_jy(60e6, 2026.0), source.flux_jy(60e6, 2027.0)
        assert later / now == pytest.approx(1 - share, abs=1e-12)


def test_cas_a_turns_over_near_20_mhz():
    freq = np.linspace(13e6, 80e6, 500)
    assert 17e6 < freq[sky.CAS_A.flux_jy(freq, 2026.0).argmax()] < 24e6


@pytest.mark.parametrize("source", sky.BRIGHT_SOURCES, ids=lambda source: source.name)
def test_spectra_are_smooth_over_the_whole_band(source):
    flux = source.flux_jy(BAND_HZ, 2026.0)
    assert flux.shape == BAND_HZ.shape
    slope = np.diff(np.log(flux)) / np.diff(np.log(BAND_HZ))
    assert slope[BAND_HZ[1:] > 40e6].max() < -0.2
    assert slope[BAND_HZ[1:] > 40e6].min() > -1.2
    assert np.abs(slope).max() < 2.5
    assert source.citation


@pytest.mark.parametrize("freq_hz", [5e6, 150e6, [50e6, 1e9], 55.0, np.nan])
def test_a_frequency_at_which_a_spectrum_is_not_known_is_refused(freq_hz):
    with pytest.raises(InputError, match="12 to 100 MHz"):
        sky.CYG_A.flux_jy(freq_hz, 2026.0)


def test_the_epoch_is_the_julian_year():
    time = Time("2026-01-10T18:00:00")
    assert sky.epoch_year(time.mjd * 86400) == pytest.approx(time.jyear, abs=1e-4)


def test_sources_are_up_as_long_as_they_are_higher_than_the_limit():
    start = telescope.time_s_of(datetime(2026, 1, 10, tzinfo=UTC))
    seen = {source.name: 0 for source in sky.BRIGHT_SOURCES}
    for hour in range(24):
        time_s = start + hour * 3600
        up = sky.sources_up(time_s, 20.0)
        assert [s.elevation_deg for s in up] == sorted((s.elevation_deg for s in up), reverse=True)
        for source in up:
            azimuth, elevation = telescope.altaz_rad(source.ra_rad, source.dec_rad, time_s)
            assert source.elevation_deg == pytest.approx(np.degrees(elevation))
            assert source.elevation_deg > 20
            assert source.azimuth_deg == pytest.approx(np.degrees(azimuth))
            seen[source.name] += 1
        assert {s.name for s in up} <= {s.name for s in sky.sources_up(time_s, 0.0)}
    # At latitude 37 degrees: the higher the declination, the longer.
    assert seen["Cas A"] > seen["Cyg A"] > seen["Tau A"] > seen["Vir A"] > 5


def test_a_source_that_is_up_is_still_that_source():
    transit = telescope.next_transit(sky.CYG_A.ra_rad, sky.CYG_A.dec_rad, datetime(2026, 1, 10, tzinfo=UTC))
    highest = sky.sources_up(telescope.time_s_of(transit), 80.0)[0]
    assert isinstance(highest, sky.Source)
    assert highest.name == "Cyg A"
    assert highest.elevation_deg == pytest.approx(90 - abs(40.79 - 37.24), abs=0.1)
    np.testing.assert_array_equal(highest.flux_jy(BAND_HZ, 2026.0), sky.CYG_A.flux_jy(BAND_HZ, 2026.0))
    assert sky.sources_up(telescope.time_s_of(transit), 89.9) == []
    assert sky.sources_up(telescope.time_s_of(transit), -90.0, sources=[]) == []
    below = telescope.time_s_of(transit + timedelta(hours=6))
    assert len(sky.sources_up(below, -90.0, sources=[sky.TAU_A])) == 1
