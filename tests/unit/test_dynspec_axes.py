"""Where an integration and a channel lie in a dynamic spectrum, and its picture by command."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from site_of_tests import Site

from orca.dynspec.axes import Axes, make_axes, midnight_s
from orca.dynspec.product import DEAD, GOOD, Facts, Product, Writer
from orca.errors import InputError, InvalidDataError, MissingDataError
from orca.telescope import CHANNEL_WIDTH_HZ, INTEGRATION_S, SUBBANDS

DAY = date(2026, 1, 10)
START_S = midnight_s(DAY) + 3600.0


def a_file(path: Path, negative: bool = False) -> Path:
    """A dynamic spectrum of 50 integrations."""
    axes = Axes(DAY, START_S, 50, 16)
    with Writer(path, axes, Facts("cross", "XX", {}, "0" * 16)) as writer:
        for band in range(16):
            samples = np.outer(np.ones(12), np.arange(50) - 40.0 * negative + 1).astype(np.float32)
            status = np.full(50, GOOD if band else DEAD, np.uint8)
            writer.add(samples if band else samples * np.nan, status, np.zeros(50, np.float32))
        writer.finish("Jy", ("0.1.0",))
    return path


@pytest.mark.parametrize("phase", [0.0, 2.5, 4.9, 5.1, 9.9])
def test_the_cells_lie_where_the_integrations_do(phase: float) -> None:
    chance = np.random.default_rng(int(phase * 10))
    numbers = np.array([0, 1, 2, 7, 8, 3000, 8000])
    times = START_S + phase + numbers * INTEGRATION_S
    stamps = np.concatenate([times, times + 1.0, times[2:] + 0.5])
    axes = make_axes(DAY, chance.permutation(stamps).tolist())
    assert axes.n_times == 8001
    for late in (0.0, 0.5, 1.0):
        assert axes.cells(times + late).tolist() == numbers.tolist()


def test_with_an_anchor_the_cells_stay_where_they_were() -> None:
    axes = make_axes(DAY, [START_S + 100.3 * INTEGRATION_S], anchor_s=START_S)
    assert axes.n_times == 1
    assert axes.first_s == pytest.approx(START_S + 100 * INTEGRATION_S, abs=1e-5)


def test_a_range_that_cannot_be_meant_is_refused() -> None:
    with pytest.raises(InputError, match="at most 48 h"):
        make_axes(DAY, [START_S, START_S + 3 * 86400])
    with pytest.raises(InputError, match="no spectra"):
        make_axes(DAY, [])
    with pytest.raises(InputError, match="averaged by 5"):
        Axes(DAY, START_S, 1, 5)


@pytest.mark.parametrize("average", [1, 4])
def test_the_channels_of_all_subbands_join(average: int) -> None:
    axes = Axes(DAY, START_S, 1, average)
    joined = axes.first_hz + axes.width_hz * np.arange(axes.n_channels)
    wanted = np.concatenate([band.frequencies_hz(average=average) for band in SUBBANDS])
    assert np.abs(joined - wanted).max() < 1e-3
    for band in SUBBANDS:
        freq_hz = band.frequencies_hz(average=average)
        assert axes.channel(band.index, float(freq_hz[0]), average * CHANNEL_WIDTH_HZ) == 0
        assert axes.channel(band.index, float(freq_hz[7]), average * CHANNEL_WIDTH_HZ) == 7


def test_channels_of_another_width_or_between_ours_do_not_belong() -> None:
    axes = Axes(DAY, START_S, 1, 4)
    first_hz = float(SUBBANDS[3].frequencies_hz(average=4)[0])
    assert axes.channel(3, first_hz, CHANNEL_WIDTH_HZ) is None
    assert axes.channel(3, first_hz + CHANNEL_WIDTH_HZ, 4 * CHANNEL_WIDTH_HZ) is None
    assert axes.channel(4, first_hz, 4 * CHANNEL_WIDTH_HZ) is None


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    with Product(a_file(tmp_path / "a.fits")) as found:
        assert (found.spectrum, found.correlation, found.unit, found.versions) == ("cross", "XX", "Jy", ("0.1.0",))
        assert found.axes == Axes(DAY, START_S, 50, 16)
        assert np.isnan(found.band(0)).all()
        assert found.band(15)[3, 49] == 50


@pytest.mark.parametrize("length", [0, 100, 5000, 9000])
def test_a_part_of_a_file_is_none(length: int, tmp_path: Path) -> None:
    path = a_file(tmp_path / "a.fits")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InvalidDataError):
        Product(path)
    with pytest.raises(MissingDataError):
        Product(tmp_path / "b.fits")


def test_a_picture_is_drawn_by_command_in_each_scale(tmp_path: Path) -> None:
    site, path = Site(tmp_path), a_file(tmp_path / "2026-01-10-XX.fits")
    assert site.run("plot", "spectrum", path).returncode == 0
    done = site.run("plot", "spectrum", path, "--scale", "ratio", "--percentiles", 5, 95, "--out", tmp_path / "x.png")
    assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / "x.png"))
    for picture in (path.with_suffix(".png"), tmp_path / "x.png"):
        with Image.open(picture) as image:
            assert image.size == (1560, 900)
    (tmp_path / "x.fits").write_text("SIMPLE")
    other = site.run("plot", "spectrum", path, "--out", tmp_path / "x.pdf")
    assert (other.returncode, "ends in .png" in other.stderr, (tmp_path / "x.pdf").exists()) == (2, True, False)
    refused = site.run("plot", "spectrum", tmp_path / "x.fits")
    assert (refused.returncode, "is no dynamic spectrum" in refused.stderr) == (1, True)


def test_a_scale_that_the_samples_do_not_allow_is_refused(tmp_path: Path) -> None:
    from orca.dynspec.waterfall import draw_waterfall

    path = a_file(tmp_path / "a.fits", negative=True)
    draw_waterfall(path, tmp_path / "a.png")
    with pytest.raises(InputError, match="less than half of the samples are positive"):
        draw_waterfall(path, tmp_path / "b.png", scale="log")
