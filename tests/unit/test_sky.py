"""Positions and spectra of the bright sources against what is published."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy.coordinates import AltAz, EarthLocation, SkyCoord
from astropy.time import Time

from orca import sky, telescope
from orca.beam import ANALYTIC
from orca.errors import InputError, MissingDataError
from orca.sky import sky_model
from orca.skyfile import read_sources
from orca.skyoptions import SkyOptions

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


TIME = Time("2026-01-10T18:00:00")  # Cyg A at 74, Cas A at 47, Vir A at 20.1 degrees; Tau A is down
TIME_S = float(TIME.mjd * 86400)
FREQ_HZ = telescope.subband("73MHz").frequencies_hz(8)
HER_A = """
- name: Her A
  ra: 16:51:08.15
  dec: +4:59:33.3
  reference_mhz: 74
  flux_jy: 730
  spectral_index: -0.8
"""


def stands_at(ra_rad: float, dec_rad: float) -> float:
    place = EarthLocation.from_geodetic(-118.2816667, 37.23977727, 1183.48)
    return float(SkyCoord(ra_rad, dec_rad, unit="rad").transform_to(AltAz(obstime=TIME, location=place)).alt.rad)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_the_model_is_the_spectrum_times_the_pattern() -> None:
    """Elevation by astropy, and sin ** 1.6 of it."""
    model = sky_model(TIME_S, FREQ_HZ)
    assert model.names == ("Cyg A", "Cas A")  # Vir A would be 300 Jy
    assert model.flux_jy.shape == (2, 8, 2)
    for k, source in enumerate((sky.CYG_A, sky.CAS_A)):
        elevation = stands_at(source.ra_rad, source.dec_rad)
        expected = source.flux_jy(FREQ_HZ, TIME.jyear) * np.sin(elevation) ** 1.6
        np.testing.assert_allclose(model.flux_jy[k], np.repeat(expected[:, None], 2, axis=1), rtol=1e-5)
        assert (model.ra_rad[k], model.dec_rad[k]) == (source.ra_rad, source.dec_rad)
        assert model.elevation_deg[k] == pytest.approx(math.degrees(elevation), abs=1e-3)


def test_sources_below_either_limit_are_left_out() -> None:
    assert sky_model(TIME_S, FREQ_HZ, SkyOptions(min_apparent_jy=100)).names == ("Cyg A", "Cas A", "Vir A")
    assert sky_model(TIME_S, FREQ_HZ, SkyOptions(min_apparent_jy=100, min_elevation_deg=25)).names == ("Cyg A", "Cas A")
    assert sky_model(TIME_S, FREQ_HZ, SkyOptions(min_apparent_jy=9000)).names == ("Cyg A",)


@pytest.mark.parametrize("name", ["Cas A", "CasA", "cas a", "CAS A"])
def test_a_source_is_chosen_by_its_name_in_any_case_with_or_without_blanks(name: str) -> None:
    assert sky_model(TIME_S, FREQ_HZ, SkyOptions(sources=(name, name.lower()))).names == ("Cas A",)


def test_an_unknown_name_is_refused_and_the_nearest_is_told() -> None:
    with pytest.raises(InputError, match=r"there is no source 'Cyg B'\. Did you mean Cyg A"):
        sky_model(TIME_S, FREQ_HZ, SkyOptions(sources=("Cas A", "Cyg B")))


def test_when_nothing_is_left_it_says_how_low_and_how_faint_the_sources_were() -> None:
    with pytest.raises(InputError) as caught:
        sky_model(TIME_S, FREQ_HZ, SkyOptions(sources=("Tau A", "Vir A")))
    low = math.degrees(stands_at(sky.TAU_A.ra_rad, sky.TAU_A.dec_rad))
    assert low < 0
    faint = sky_model(TIME_S, FREQ_HZ, SkyOptions(sources=("Vir A",), min_apparent_jy=0))
    assert f"Tau A is too low ({low:.1f} deg)" in caught.value.problem
    assert f"Vir A is too faint ({faint.flux_jy[0, 4].mean():.0f} Jy as seen" in caught.value.problem
    assert "20 deg" in str(caught.value.remedy)
    assert "500 Jy" in str(caught.value.remedy)


def test_a_pattern_from_a_file_weakens_x_and_y_by_themselves(tmp_path: Path) -> None:
    """X receives sin(el) ** 2, Y all of it, towards all azimuths."""
    theta, phi, freq = np.linspace(0, np.pi / 2, 181), np.radians(np.arange(0, 360, 10.0)), np.array([10e6, 100e6])
    field = np.broadcast_to(np.cos(theta)[None, :, None] * (1 + 0j), (2, 181, 36))
    with h5py.File(tmp_path / "beam.h5", "w") as file:
        file["freq_Hz"], file["theta_pts"], file["phi_pts"] = freq, theta, phi
        file["X_pol_Efields/etheta"], file["X_pol_Efields/ephi"] = field, 0 * field
        file["Y_pol_Efields/etheta"], file["Y_pol_Efields/ephi"] = 0 * field, np.ones_like(field)
    model = sky_model(TIME_S, FREQ_HZ, SkyOptions(beam_file=tmp_path / "beam.h5", sources=("Cas A",)))
    flux = sky.CAS_A.flux_jy(FREQ_HZ, TIME.jyear)
    np.testing.assert_allclose(model.flux_jy[0, :, 1], flux, rtol=1e-5)
    sine = np.sin(stands_at(sky.CAS_A.ra_rad, sky.CAS_A.dec_rad))
    np.testing.assert_allclose(model.flux_jy[0, :, 0], flux * sine**2, rtol=1e-4)


def test_sources_of_a_file_are_added(tmp_path: Path) -> None:
    path = write(tmp_path / "sky.yml", HER_A)
    [her] = read_sources(path)
    place = SkyCoord("16h51m08.15s +04d59m33.3s")
    assert SkyCoord(her.ra_rad, her.dec_rad, unit="rad").separation(place).arcsec < 1e-3
    assert her.flux_jy(50e6, 2026.0) == pytest.approx(730 * (50 / 74) ** -0.8)
    assert her.citation == "given in sky.yml"
    model = sky_model(TIME_S, FREQ_HZ, SkyOptions(sky_file=path, min_apparent_jy=100))
    assert model.names == ("Cyg A", "Cas A", "Her A", "Vir A")
    power = ANALYTIC.power(0, np.radians(model.elevation_deg[2]), FREQ_HZ)[0]
    np.testing.assert_allclose(model.flux_jy[2], her.flux_jy(FREQ_HZ, TIME.jyear)[:, None] * power)


def test_a_source_of_a_file_replaces_the_known_one_of_its_name(tmp_path: Path) -> None:
    text = """
    - {name: cyga, ra: 299.868, dec: 40.734, reference_mhz: 100, log_flux: [4.0, -0.7, 0.1],
       epoch_year: 2016, fading_per_year: 0.01, citation: a test}
    """
    path = write(tmp_path / "sky.yml", text)
    model = sky_model(TIME_S, FREQ_HZ, SkyOptions(sky_file=path, sources=("Cyg A",), min_apparent_jy=0))
    assert model.names == ("cyga",)
    x = np.log10(FREQ_HZ / 100e6)
    intrinsic = 10 ** (4 - 0.7 * x + 0.1 * x**2) * 0.99 ** (TIME.jyear - 2016)
    sine = np.sin(stands_at(math.radians(299.868), math.radians(40.734)))
    np.testing.assert_allclose(model.flux_jy[0, :, 0], intrinsic * sine**1.6, rtol=1e-5)


@pytest.mark.parametrize(
    ("ra", "dec", "degrees"),
    [
        ("19:59:28.4", "+40:44:02", (299.868333, 40.733889)),
        ('"0:00:36"', '"-0:30:00"', (0.15, -0.5)),
        ("299.5", "-12.25", (299.5, -12.25)),
        ("15", "10", (15, 10)),
    ],
)
def test_positions_are_hours_and_degrees_with_colons_or_plain_degrees(
    tmp_path: Path, ra: str, dec: str, degrees: tuple[float, float]
) -> None:
    text = f"- {{name: a, ra: {ra}, dec: {dec}, reference_mhz: 60, flux_jy: 1, spectral_index: 0}}"
    if ":" in ra and '"' not in ra:  # unquoted, as YAML would make numbers of base 60 of them
        text = f"- name: a\n  ra: {ra}\n  dec: {dec}\n  reference_mhz: 60\n  flux_jy: 1\n  spectral_index: 0"
    [source] = read_sources(write(tmp_path / "sky.yml", text))
    assert (math.degrees(source.ra_rad), math.degrees(source.dec_rad)) == pytest.approx(degrees, abs=1e-6)


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("spectral_index", "spectral_indx", 7, "source 1: unknown key 'spectral_indx'; did you mean spectral_index?"),
        ("flux_jy: 730", "flux_jy: -730", 6, r"source 1 \(Her A\): flux_jy: .*greater than 0"),
        ("flux_jy: 730", "flux_jy: .nan", 6, "flux_jy: .*finite"),
        ("flux_jy: 730", "flux_jy: 2026-02-31", 6, "flux_jy: expected a plain value"),
        ("flux_jy: 730", "flux_jy: many", 6, "flux_jy: .*number"),
        ("  flux_jy: 730\n", "", 2, "give either log_flux, or flux_jy and spectral_index"),
        ("flux_jy: 730", "log_flux: [1, 2]\n  flux_jy: 730", 2, "give either log_flux, or flux_jy"),
        ("flux_jy: 730\n  spectral_index: -0.8", "log_flux: [730, -0.8]", 6, "decimal logarithm"),
        ("flux_jy: 730\n  spectral_index: -0.8", "log_flux: []", 6, "log_flux: .*at least 1"),
        ("16:51:08.15", "16h51m", 3, "ra: '16h51m' is no angle"),
        ("16:51:08.15", "[1, 2]", 3, "ra: .*is no angle"),
        ("16:51:08.15", "25:00:00", 3, "ra: .*less than 360"),
        ("+4:59:33.3", "94:00:00", 4, "dec: .*less than or equal to 90"),
        ("+4:59:33.3", "4:61:00", 4, "dec: '4:61:00' is no angle"),
        ("name: Her A", "nmae: Her A", 2, "did you mean name?"),
        ("- name: Her A\n  ra", "- ra", 2, "name: Field required"),
        ("dec:", "ra:", 4, "ra is given twice"),
        ("- name: Her A", "- Her A\n- name: Her A", 2, "source 1 has no keys"),
        ("  reference_mhz: 74", "  reference_mhz: [74", 6, "is no YAML"),
    ],
)
def test_a_mistake_in_a_file_of_sources_is_told_with_its_line(
    tmp_path: Path, old: str, new: str, line: int, message: str
) -> None:
    assert old in HER_A
    path = write(tmp_path / "sky.yml", HER_A.replace(old, new, 1))
    with pytest.raises(InputError, match=message) as caught:
        sky_model(TIME_S, FREQ_HZ, SkyOptions(sky_file=path))
    assert caught.value.path == f"{path}:{line}"
    assert len(str(caught.value).splitlines()) == 1


def test_files_that_are_no_list_of_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"none\.yml"):
        read_sources(tmp_path / "none.yml")
    with pytest.raises(MissingDataError, match="is a directory"):
        read_sources(tmp_path)
    for text in ("", "name: Her A", "just text"):
        with pytest.raises(InputError, match="is no list of sources"):
            read_sources(write(tmp_path / "sky.yml", text))
    (tmp_path / "sky.yml").write_bytes(b"- \xff\xfe\x00")
    with pytest.raises(InputError, match="is no YAML"):
        read_sources(tmp_path / "sky.yml")
    with pytest.raises(InputError, match="HER a comes twice"):
        read_sources(write(tmp_path / "twice.yml", HER_A + HER_A.replace("Her A", "HER a")))


def test_a_file_of_sources_is_read_once_until_it_changes(tmp_path: Path) -> None:
    path = write(tmp_path / "sky.yml", HER_A)
    first = read_sources(path)
    assert read_sources(path) is first
    write(path, HER_A.replace("730", "740"))
    os.utime(path, ns=(1, 1))
    assert read_sources(path)[0].log_flux[0] == pytest.approx(math.log10(740))


def test_a_spectrum_or_a_pattern_that_does_not_cover_the_band_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="12 to 100 MHz"):
        sky_model(TIME_S, [150e6])
    path = write(tmp_path / "sky.yml", HER_A)
    with pytest.raises(InputError, match="spectrum of Her A is not known"):
        sky_model(TIME_S, [11e6], SkyOptions(sky_file=path, sources=("hera",)))


def test_the_options_bring_nothing_heavy() -> None:
    code = (
        "import sys; import orca.skyoptions; "
        "print([m for m in ('numpy', 'astropy', 'numba', 'h5py', 'casacore', 'prefect') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
