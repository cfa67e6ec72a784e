"""Pictures of the sky for people to look at: east to the left, north up."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from orca.errors import InvalidDataError
from orca.measuring import Examination, Extent, Picture, examine, open_picture, sources_in
from orca.sky import BRIGHT_SOURCES, Source
from orca.skygrid import DARK, WIDEST, Frame, draw_grid
from orca.telescope import datetime_of, lmn, sidereal_time_h, subband_of

SIZE_PX = 1120
_AXES = (0.018, 0.052, 0.868, 0.868)
"""Left, bottom, width and height of the image, as shares of the picture."""
_AXES_PX = _AXES[2] * SIZE_PX
COLOURS = "inferno"
"""Perceptually uniform, and its order can be seen with every kind of colour blindness."""


def sky_picture(
    fits_path: Path,
    png_path: Path,
    *,
    title: str | None = None,
    note: str = "",
    sources: Iterable[Source] = BRIGHT_SOURCES,
    percentiles: tuple[float, float] = (1.0, 99.7),
    examined: Examination | None = None,
) -> None:
    """Draw an image of the sky as PNG.

    With a grid of right ascension and declination (J2000), the circle 90 deg from the phase centre (the horizon, since
    the phase centre is the zenith) beyond which nothing is drawn, a colour bar, and the names of the sources that are
    up. Large images are averaged over blocks of pixels first.

    Parameters
    ----------
    fits_path : Path
        Image in SIN projection.
    png_path : Path
        Written directly: give a scratch name.
    title : str, optional
        First line above the image; if left out, start and subband as the file has them. The second line is made of
        polarization, frequency, beam and pixel.
    note : str
        Added to the first line.
    sources : sources
        To be named where they are on the picture and above the horizon.
    percentiles : (low, high)
        Ends of the colour range, among the pixels drawn.
    examined : Examination, optional
        What is known of the image; it is examined now when not given.

    Raises
    ------
    DataError
        See `orca.measuring.open_picture`; also if no pixel is on the sky and finite.
    """
    picture = open_picture(fits_path)
    raster = _rasterize(picture)
    on_sky = raster.values[np.isfinite(raster.values)]
    if on_sky.size == 0:
        raise InvalidDataError("has no pixel that is on the sky and finite", fits_path)
    low, high = (float(value) for value in np.percentile(on_sky, percentiles))
    if low == high:
        low, high = low - 1, high + 1

    figure = Figure(figsize=(SIZE_PX / 100, SIZE_PX / 100), dpi=100, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes(_AXES)
    axes.set_axis_off()
    drawn = axes.imshow(raster.values, origin="lower", extent=raster.edges, cmap=COLOURS, vmin=low, vmax=high)
    frame = Frame(axes, raster.edges, _AXES_PX)
    for source in sources_in(picture, sources):
        l, m, _ = lmn(source.ra_rad, source.dec_rad, *picture.centre_rad)
        frame.mark(float(l), float(m), source.name)
    draw_grid(frame, picture)
    found = examined or examine(picture, sources)
    _draw_bar(figure, drawn, picture.unit)
    for height, size, text in (
        (0.974, 17, f"{title or _title(picture)}   {note}".rstrip()),
        (0.943, 12.5, _subtitle(picture, found)),
        (0.024, 11.5, _caption(found.extent, percentiles, picture.unit)),
    ):
        weight = "bold" if size == 17 else "normal"
        figure.text(_AXES[0], height, text, fontsize=size, weight=weight, va="center", color=DARK)
    canvas.draw()
    Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").save(png_path, "PNG")


def thumbnail(png: Path, max_px: int = 480, max_bytes: int = 70_000) -> bytes:
    """Return a small JPEG of a picture, for a page or an artifact.

    Parameters
    ----------
    png : Path
    max_px : int
        Its larger side.
    max_bytes : int
        Compressed until it fits: 70 kB are 93 kB in base64.
    """
    with Image.open(png) as picture:
        small = picture.convert("RGB")
    small.thumbnail((max_px, max_px), Image.Resampling.LANCZOS)
    data = b""
    for quality in (88, 80, 70, 60, 45, 30):
        sink = io.BytesIO()
        small.save(sink, "JPEG", quality=quality, optimize=True)
        data = sink.getvalue()
        if len(data) <= max_bytes:
            break
    return data


# ---------------------------------------------------------------------------------------------------------------------
# The image


@dataclass(frozen=True)
class _Raster:
    values: NDArray[np.float32]
    """(height, width), not a number off the sky."""
    edges: tuple[float, float, float, float]
    """l of its left and right edge, m of its lower and upper one."""


def _rasterize(picture: Picture) -> _Raster:
    """Cut to the sky, and average over blocks of pixels down to about the size of the drawing."""
    step = math.radians(picture.scale_deg)
    x0, y0 = (float(value) for value in picture.wcs.wcs.crpix - 1)
    reach = round(WIDEST / step)
    left, bottom = max(0, round(x0) - reach), max(0, round(y0) - reach)
    side = max(0, min(2 * reach + 1, picture.data.shape[1] - left, picture.data.shape[0] - bottom))
    block = max(1, round(side / _AXES_PX))
    n = side // block
    values = np.empty((n, n), np.float32)
    strip = max(1, 256 // block)
    for row in range(0, n, strip):
        rows = min(strip, n - row)
        lowest = bottom + row * block
        part = picture.data[lowest : lowest + rows * block, left : left + n * block]
        tall = np.asarray(part, np.float32).reshape(rows, block, -1).sum(axis=1)
        values[row : row + rows] = sum(tall[:, k::block] for k in range(block)) / block**2
    west, south = (x0 - left + 0.5) * step, (bottom - 0.5 - y0) * step
    length = n * block * step
    centres = (np.arange(n) + 0.5) * block * step
    values[(west - centres[None, :]) ** 2 + (south + centres[:, None]) ** 2 > 1] = np.nan
    return _Raster(values, (west, west - length, south, south + length))


def _draw_bar(figure: Figure, drawn: AxesImage, unit: str) -> None:
    bar_axes = figure.add_axes((_AXES[0] + _AXES[2] + 0.012, _AXES[1], 0.02, _AXES[3]))
    bar = figure.colorbar(drawn, cax=bar_axes, extend="both", extendfrac=0.02)
    bar.outline.set_linewidth(0.6)
    bar_axes.yaxis.set_major_locator(MaxNLocator(9))
    bar_axes.tick_params(labelsize=12.5, colors=DARK)
    bar_axes.set_title(unit, fontsize=12.5, color=DARK, pad=8, x=0.9)


# ---------------------------------------------------------------------------------------------------------------------
# Words


def _title(picture: Picture) -> str:
    words = []
    if picture.time_s is not None:
        words.append(f"{datetime_of(picture.time_s):%Y-%m-%d %H:%M:%S} UTC")
    if band := subband_of(picture.freq_hz):
        words.append(band.name)
    return "   ".join(words) or picture.path.name


def _subtitle(picture: Picture, found: Examination) -> str:
    words = [f"Stokes {picture.polarization}" if len(picture.polarization) == 1 else picture.polarization]
    words.append(f"{picture.freq_hz / 1e6:.2f} MHz, {picture.bandwidth_hz / 1e6:.2f} MHz wide")
    if picture.time_s is not None:
        hours, minutes = divmod(round(sidereal_time_h(picture.time_s) * 60) % 1440, 60)
        words.append(f"LST {hours:02d}h{minutes:02d}m")
    if picture.beam_deg is not None:
        words.append(f"beam {_beam(*picture.beam_deg[:2])}")
    else:
        measured = [item for item in found.sources if math.isfinite(item.width_deg[0])]
        best = max(measured, key=lambda item: item.peak_jy, default=None)
        if best and best.peak_jy > 20 * found.extent.rms:
            words.append(f"beam {_beam(*best.width_deg[:2])} (from {best.name})")
    words.append(f"pixel {60 * picture.scale_deg:.3g}′")
    return "  ·  ".join(words)


def _beam(major_deg: float, minor_deg: float) -> str:
    unit, factor = ("°", 1) if major_deg >= 1 else ("′", 60)
    return f"{factor * major_deg:.3g}{unit} × {factor * minor_deg:.3g}{unit}"


def _caption(found: Extent, percentiles: tuple[float, float], unit: str) -> str:
    low, high = percentiles
    words = f"Peak {_number(found.peak)}, noise {_number(found.rms)} {unit} (robust)"
    return f"{words}.  Colours: percentiles {low:g} to {high:g} of the sky.  East is left."


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}".replace(",", "\u202f")
