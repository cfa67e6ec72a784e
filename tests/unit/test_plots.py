"""Pictures of the sky: what is where in them, that labels keep apart, and what they cost."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pictures import gaussian, pixel_of, write
from PIL import Image

from orca import plots, skygrid
from orca.errors import InvalidDataError, MissingDataError
from orca.measuring import examine, open_picture
from orca.plots import SIZE_PX, sky_picture, thumbnail
from orca.sky import BRIGHT_SOURCES, CYG_A, TAU_A, VIR_A

SIZE, SCALE = 512, 0.25
"""128 deg: the whole sky."""


def noise(size: int = SIZE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (size, size))


def drawn(path: Path, fits_path: Path, **options) -> np.ndarray:
    sky_picture(fits_path, path, **options)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"), float)


def place(x_px: float, y_px: float, size: int, scale_deg: float) -> tuple[int, int]:
    """Column and row, in the PNG, of a pixel of an image of the whole sky."""
    l, m = (-(x_px - size // 2) * math.radians(scale_deg), (y_px - size // 2) * math.radians(scale_deg))
    left, bottom, width, height = plots._AXES
    column = (left + width * (skygrid.WIDEST - l) / (2 * skygrid.WIDEST)) * SIZE_PX
    row = (1 - bottom - height * (skygrid.WIDEST + m) / (2 * skygrid.WIDEST)) * SIZE_PX
    return round(column), round(row)


def test_the_picture_is_square_and_white_where_there_is_no_sky(tmp_path: Path) -> None:
    pixels = drawn(tmp_path / "a.png", write(tmp_path / "a.fits", noise(), SCALE))
    assert pixels.shape == (SIZE_PX, SIZE_PX, 3)
    middle = SIZE // 2
    for angle in np.radians(range(0, 360, 15)):  # just within and beyond the horizon, at 229 pixels
        inside = place(middle + 226 * math.cos(angle), middle + 226 * math.sin(angle), SIZE, SCALE)
        assert pixels[inside[1] - 3 : inside[1] + 4, inside[0] - 3 : inside[0] + 4].mean() < 200
    corner = place(10, 10, SIZE, SCALE)
    assert (pixels[corner[1] - 5 : corner[1] + 5, corner[0] - 5 : corner[0] + 5] == 255).all()


@pytest.mark.parametrize(("size", "scale_deg"), [(SIZE, SCALE), (501, 0.25), (2048, 0.0625), (1000, 0.12)])
def test_a_source_is_drawn_where_it_is_with_north_up_and_east_left(tmp_path: Path, size: int, scale_deg: float) -> None:
    x, y = pixel_of(CYG_A, size, scale_deg)
    data = 1e4 * gaussian(size, x, y, 1.5 / scale_deg, 1.5 / scale_deg)
    fits_path = write(tmp_path / "a.fits", data, scale_deg)
    pixels = drawn(tmp_path / "a.png", fits_path, sources=[], percentiles=(0, 100))
    _, bottom, width, height = plots._AXES
    sky = pixels[round((1 - bottom - height) * SIZE_PX) : round((1 - bottom) * SIZE_PX), : round(width * SIZE_PX)]
    bright = (sky[..., 0] > 230) & (sky[..., 1] > 230) & (sky[..., 2] < 200)  # the light yellow end of the colours
    row, column = np.argwhere(bright).mean(axis=0)
    expected = place(x, y, size, scale_deg)
    assert column == pytest.approx(expected[0], abs=1.5)
    assert row + round((1 - bottom - height) * SIZE_PX) == pytest.approx(expected[1], abs=1.5)
    assert expected[0] < SIZE_PX / 2  # Cyg A is in the north-east
    assert expected[1] < SIZE_PX / 2


def test_sources_that_are_up_are_marked_and_named_and_others_not(tmp_path: Path) -> None:
    fits_path = write(tmp_path / "a.fits", noise(), SCALE)
    bare = drawn(tmp_path / "bare.png", fits_path, sources=[])
    for source in (CYG_A, VIR_A):
        marked = drawn(tmp_path / "marked.png", fits_path, sources=[source])
        changed = np.argwhere((marked != bare).any(axis=-1))
        column, row = place(*pixel_of(source, SIZE, SCALE), SIZE, SCALE)
        rows, columns = changed[:, 0], changed[:, 1]
        near = changed[(np.abs(rows - row) < 60) & (np.abs(columns - column) < 130)]
        assert len(near) > 0.9 * len(changed)  # a label of the grid may have made room
        inwards = columns < column if column > SIZE_PX / 2 else columns > column
        assert (inwards & (np.abs(columns - column) > 20)).sum() > 200  # the name, towards the middle
    with_tau = drawn(tmp_path / "down.png", fits_path, sources=[TAU_A])
    assert np.array_equal(bare, with_tau)


@pytest.mark.parametrize("scale_deg", [0.25, 0.23, 0.18, 0.1, 0.03, 0.002])
def test_labels_are_inside_and_apart_in_every_field(tmp_path: Path, scale_deg: float) -> None:
    picture = open_picture(write(tmp_path / "a.fits", noise(), scale_deg))
    figure = Figure(figsize=(SIZE_PX / 100, SIZE_PX / 100), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes(plots._AXES)
    frame = skygrid.Frame(axes, plots._rasterize(picture).edges, plots._AXES_PX)
    for source in BRIGHT_SOURCES[:2]:
        l, m, _ = skygrid.lmn(source.ra_rad, source.dec_rad, *picture.centre_rad)
        frame.mark(float(l), float(m), source.name)
    skygrid.draw_grid(frame, picture)
    canvas.draw()
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in axes.texts]
    words = [text.get_text() for text in axes.texts]
    hours, degrees = [w for w in words if "h" in w], [w for w in words if "°" in w]
    assert 3 <= len(hours) <= 16
    assert 3 <= len(degrees) <= 16
    assert len(set(words)) == len(words)
    area = axes.get_window_extent()
    for k, box in enumerate(boxes):
        assert area.x0 <= box.x0 < box.x1 <= area.x1, words[k]
        assert area.y0 <= box.y0 < box.y1 <= area.y1, words[k]
        apart = [not box.overlaps(other) for other in boxes[k + 1 :]]
        assert all(apart), (words[k], words[k + 1 + apart.index(False)])


@pytest.mark.parametrize(
    ("ra_deg", "step_deg", "text"),
    [(330, 30, "22h"), (-30, 30, "22h"), (262.5, 7.5, "17h30m"), (360, 15, "0h"), (15.25, 1 / 12, "1h01m00s")],
)
def test_right_ascension_has_the_digits_that_its_step_needs(ra_deg: float, step_deg: float, text: str) -> None:
    assert skygrid._hours(ra_deg, step_deg) == text


@pytest.mark.parametrize(
    ("dec_deg", "step_deg", "text"),
    [(40, 20, "+40°"), (-20, 20, "−20°"), (0, 20, "0°"), (36.5, 0.5, "+36°30′"), (-0.5, 0.5, "−0°30′")],
)
def test_declination_has_the_digits_that_its_step_needs(dec_deg: float, step_deg: float, text: str) -> None:
    assert skygrid._degrees(dec_deg, step_deg) == text


def test_the_colours_span_the_percentiles_of_the_sky_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.linspace(0, 100, SIZE * SIZE).reshape(SIZE, SIZE)
    y, x = np.mgrid[:SIZE, :SIZE]
    data[np.hypot(x - SIZE // 2, y - SIZE // 2) * math.radians(SCALE) > 1.02] = 1e6
    seen = {}
    monkeypatch.setattr(plots, "_draw_bar", lambda figure, image, unit: seen.update(limits=image.get_clim(), unit=unit))
    fits_path = write(tmp_path / "a.fits", data, SCALE)
    sky_picture(fits_path, tmp_path / "a.png", percentiles=(5, 95))
    on_sky = data[np.hypot(x - SIZE // 2, y - SIZE // 2) * math.radians(SCALE) <= 1]
    assert seen["limits"] == pytest.approx(np.percentile(on_sky, (5, 95)), abs=0.5)
    assert seen["unit"] == "Jy/beam"


def test_the_words_tell_time_subband_frequency_and_beam(tmp_path: Path) -> None:
    x, y = pixel_of(CYG_A, SIZE, SCALE)
    dirty = open_picture(write(tmp_path / "a.fits", noise() + 1e4 * gaussian(SIZE, x, y, 8, 6), SCALE))
    cleaned = open_picture(write(tmp_path / "b.fits", noise(), SCALE, (0.25, 0.2, 0.0)))
    weak = open_picture(write(tmp_path / "c.fits", noise(), SCALE))
    assert plots._title(dirty) == "2026-01-10 18:00:00 UTC   73MHz"
    words = plots._subtitle(dirty, examine(dirty, [CYG_A]))
    assert "Stokes I  ·  75.40 MHz, 4.60 MHz wide  ·  LST 17h28m" in words
    assert "beam 2° × 1.5° (from Cyg A)" in words
    assert "beam 15′ × 12′  ·" in plots._subtitle(cleaned, examine(cleaned, [CYG_A]))
    assert "beam" not in plots._subtitle(weak, examine(weak, [CYG_A]))


def test_a_title_can_be_given(tmp_path: Path) -> None:
    fits_path = write(tmp_path / "a.fits", noise(), SCALE)
    named = drawn(tmp_path / "named.png", fits_path, title="Another")
    assert (named != drawn(tmp_path / "plain.png", fits_path)).any(axis=(1, 2)).nonzero()[0].max() < 60


def test_an_image_of_one_value_can_be_drawn(tmp_path: Path) -> None:
    assert drawn(tmp_path / "a.png", write(tmp_path / "a.fits", np.full((64, 64), 3.0), 2.0)).shape[0] == SIZE_PX


def test_an_image_without_a_finite_pixel_on_the_sky_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataError, match="no pixel"):
        sky_picture(write(tmp_path / "a.fits", np.full((64, 64), np.nan), 2.0), tmp_path / "a.png")
    with pytest.raises(MissingDataError):
        sky_picture(tmp_path / "none.fits", tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("max_px", [480, 200])
def test_a_thumbnail_is_small_enough_for_a_page(tmp_path: Path, max_px: int) -> None:
    sky_picture(write(tmp_path / "a.fits", noise(1024), 0.12), tmp_path / "a.png")
    data = thumbnail(tmp_path / "a.png", max_px)
    assert len(data) * 4 / 3 < 100_000
    with Image.open(io.BytesIO(data)) as small:
        assert small.format == "JPEG"
        assert small.size == (max_px, max_px)
