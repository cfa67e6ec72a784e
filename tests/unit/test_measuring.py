"""What is measured in pictures whose sky is known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from pictures import TIME, gaussian, pixel_of, write

from orca.errors import InvalidDataError, MissingDataError, TruncatedDataError
from orca.measuring import extent, measure_sources, open_picture
from orca.sky import BRIGHT_SOURCES, CAS_A, CYG_A, TAU_A, VIR_A, epoch_year
from orca.telescope import time_s_of

SIZE, SCALE = 512, 0.2


def sky_with(source, flux_jy: float, shift_px: tuple[float, float] = (0.0, 0.0), **shape: float) -> np.ndarray:
    x, y = pixel_of(source, SIZE, SCALE)
    return flux_jy * gaussian(SIZE, x + shift_px[0], y + shift_px[1], **shape)


def test_a_picture_knows_its_geometry_frequency_time_and_beam(tmp_path: Path) -> None:
    data = np.zeros((64, 64))
    data[5, 9] = 3.0
    picture = open_picture(write(tmp_path / "a.fits", data, 1.0, (2.0, 1.5, 30.0)))
    assert picture.data.shape == (64, 64)
    assert picture.data[5, 9] == 3.0
    assert picture.scale_deg == 1.0
    assert picture.freq_hz == 75.4e6
    assert picture.time_s == time_s_of(TIME)
    assert picture.beam_deg == (2.0, 1.5, 30.0)
    assert picture.unit == "Jy/beam"
    assert picture.polarization == "I"
    assert picture.version == "3.1.0"
    assert picture.sky_cosine(np.array([32 + 10]), np.array([32])) == pytest.approx(10 * math.pi / 180)


def test_a_dirty_image_has_no_beam(tmp_path: Path) -> None:
    assert open_picture(write(tmp_path / "a.fits", np.zeros((32, 32)), 1.0)).beam_deg is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([("CTYPE1", "RA---TAN"), ("CTYPE2", "DEC--TAN")], "SIN projection"),
        ([("CDELT2", 0.5)], "square pixels"),
        ([("CDELT1", 0.0)], "coordinates"),
    ],
)
def test_other_projections_are_refused(tmp_path: Path, changes: list, message: str) -> None:
    path = write(tmp_path / "a.fits", np.zeros((32, 32)), 1.0, changes=changes)
    with pytest.raises(InvalidDataError, match=message):
        open_picture(path)


def test_a_truncated_file_is_told_from_one_that_is_no_image(tmp_path: Path) -> None:
    path = write(tmp_path / "a.fits", np.ones((64, 64)), 1.0)
    with path.open("r+b") as file:
        file.truncate(2880 * 3)
    with pytest.raises(TruncatedDataError, match="8640 of"):
        open_picture(path)
    path.write_text("not an image")
    with pytest.raises(InvalidDataError, match="not a FITS image"):
        open_picture(path)
    path.write_bytes(b"")
    with pytest.raises(InvalidDataError, match="not a FITS image"):
        open_picture(path)
    with pytest.raises(MissingDataError):
        open_picture(tmp_path / "none.fits")


def test_the_noise_is_that_of_the_sky_whatever_bright_sources_do(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    data = rng.normal(0, 5, (SIZE, SIZE))
    y, x = np.mgrid[:SIZE, :SIZE]
    off_sky = np.hypot(x - SIZE // 2, y - SIZE // 2) * math.radians(0.25) > math.sin(math.radians(80))
    data[off_sky] = 1000.0
    data[250:255, 300:305] = 1e5
    found = extent(open_picture(write(tmp_path / "a.fits", data, 0.25)))
    assert found.rms == pytest.approx(5, rel=0.02)
    assert found.peak == pytest.approx(1e5)
    assert found.minimum == pytest.approx(data.min())


def test_the_peak_is_the_largest_absolute_value(tmp_path: Path) -> None:
    data = np.zeros((32, 32))
    data[3, 4], data[5, 6] = -7, 2
    assert extent(open_picture(write(tmp_path / "a.fits", data, 1.0))).peak == 7


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_pixel_that_is_not_finite_is_noticed(tmp_path: Path, bad: float) -> None:
    data = np.ones((300, 300))
    data[280, 3] = bad
    assert math.isnan(extent(open_picture(write(tmp_path / "a.fits", data, 0.3))).peak)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.37, -0.21), (-0.5, 0.5), (1.9, 2.1)])
@pytest.mark.parametrize("width", [2.2, 4.0, 9.0])
def test_position_and_peak_of_a_source_between_pixels(tmp_path: Path, shift: tuple[float, float], width: float) -> None:
    data = sky_with(CYG_A, 16000.0, shift, major_px=1.2 * width, minor_px=width, angle_deg=30)
    (found,) = measure_sources(write(tmp_path / "a.fits", data, SCALE), [CYG_A])
    true = pixel_of(CYG_A, SIZE, SCALE)
    assert (found.x_px, found.y_px) == pytest.approx((true[0] + shift[0], true[1] + shift[1]), abs=0.02)
    assert found.offset_px == pytest.approx(math.hypot(*shift), abs=0.02)
    assert found.peak_jy == pytest.approx(16000, rel=0.002 if width > 3 else 0.01)
    assert found.flux_jy == found.peak_jy


def test_offset_is_an_angle_on_the_sky_and_grows_towards_the_horizon(tmp_path: Path) -> None:
    scale = 0.225
    true = np.array(pixel_of(VIR_A, SIZE, scale))
    outwards = (true - SIZE // 2) * 2 / np.hypot(*(true - SIZE // 2))
    data = 2000 * gaussian(SIZE, *(true + outwards), major_px=4, minor_px=4)
    (found,) = measure_sources(write(tmp_path / "a.fits", data, scale), [VIR_A])
    assert found.elevation_deg == pytest.approx(20.1, abs=0.2)
    # Foreshortened by the sine of the elevation, which drops on the way.
    assert found.offset_deg == pytest.approx(2 * scale / math.sin(math.radians(20.1)), rel=0.05)


def test_width_and_position_angle_are_those_of_the_beam(tmp_path: Path) -> None:
    data = sky_with(CYG_A, 100.0, major_px=8, minor_px=5, angle_deg=30)
    (found,) = measure_sources(write(tmp_path / "a.fits", data, SCALE), [CYG_A])
    assert found.width_deg == pytest.approx((8 * SCALE, 5 * SCALE, 30), rel=0.02)


def test_flux_counts_what_is_broader_than_the_beam(tmp_path: Path) -> None:
    data = sky_with(CYG_A, 100.0, major_px=8, minor_px=5)
    path = write(tmp_path / "a.fits", data, SCALE, (5 * SCALE, 5 * SCALE, 0.0))
    (found,) = measure_sources(path, [CYG_A])
    assert found.peak_jy == pytest.approx(100, rel=0.01)
    assert found.flux_jy == pytest.approx(160, rel=0.02)


def test_expected_flux_is_what_dipoles_see_at_the_frequency_and_date(tmp_path: Path) -> None:
    data = sky_with(CAS_A, 100.0, major_px=4, minor_px=4)
    (found,) = measure_sources(write(tmp_path / "a.fits", data, SCALE), [CAS_A])
    pattern = math.sin(math.radians(found.elevation_deg)) ** 1.6
    expected = float(CAS_A.flux_jy(75.4e6, epoch_year(time_s_of(TIME)))) * pattern
    assert found.expected_jy == pytest.approx(expected)
    assert found.ratio == pytest.approx(100 / expected, rel=0.01)


def test_an_unknown_spectrum_leaves_the_measurement(tmp_path: Path) -> None:
    data = sky_with(CYG_A, 100.0, major_px=4, minor_px=4)
    path = write(tmp_path / "a.fits", data, SCALE, changes=[("CRVAL3", 1.4e9)])
    (found,) = measure_sources(path, [CYG_A])
    assert found.peak_jy == pytest.approx(100, rel=0.01)
    assert math.isnan(found.expected_jy)


def test_sources_that_are_down_or_off_the_picture_are_left_out(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.fits", np.ones((SIZE, SIZE)), 0.23)
    assert {found.name for found in measure_sources(whole, BRIGHT_SOURCES)} == {"Cyg A", "Cas A", "Vir A"}
    narrow = write(tmp_path / "narrow.fits", np.ones((SIZE, SIZE)), 0.12)
    assert {found.name for found in measure_sources(narrow, BRIGHT_SOURCES)} == {"Cyg A"}
    assert measure_sources(whole, [TAU_A]) == []


def test_only_what_is_near_the_true_place_is_taken(tmp_path: Path) -> None:
    data = sky_with(CYG_A, 100.0, major_px=4, minor_px=4)
    data += sky_with(CYG_A, 500.0, (12.0, 0.0), major_px=4, minor_px=4)  # 2.4 deg away
    path = write(tmp_path / "a.fits", data, SCALE)
    assert measure_sources(path, [CYG_A])[0].peak_jy == pytest.approx(100, rel=0.05)
    assert measure_sources(path, [CYG_A], radius_deg=4.0)[0].peak_jy == pytest.approx(500, rel=0.05)


def test_a_picture_without_a_peak_gives_no_width_and_does_not_fail(tmp_path: Path) -> None:
    (found,) = measure_sources(write(tmp_path / "a.fits", np.zeros((SIZE, SIZE)), SCALE), [CYG_A])
    assert found.peak_jy == 0
    assert math.isnan(found.width_deg[0])


def test_a_source_that_is_down_is_left_out_of_a_picture_of_another_direction_than_the_zenith(tmp_path: Path) -> None:
    changes = [("CRVAL1", math.degrees(TAU_A.ra_rad) - 30), ("CRVAL2", math.degrees(TAU_A.dec_rad))]
    path = write(tmp_path / "a.fits", np.ones((SIZE, SIZE)), SCALE, changes=changes)
    assert measure_sources(path, [TAU_A]) == []
    undated = write(tmp_path / "b.fits", np.ones((SIZE, SIZE)), SCALE, changes=[*changes, ("DATE-OBS", "")])
    assert [found.name for found in measure_sources(undated, [TAU_A])] == ["Tau A"]
