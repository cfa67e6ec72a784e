"""Pictures of the sky for people to look at: north up, east to the left.

Everything is drawn in direction cosines (l to the east, m to the north), in which the image is a plain raster and the
horizon the unit circle; matplotlib's WCSAxes would take ten times as long for the same lines.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from orca.errors import InvalidDataError
from orca.measuring import Extent, Picture, extent, measure_sources, open_picture
from orca.sky import BRIGHT_SOURCES, Source
from orca.telescope import altaz_rad, datetime_of, lmn, sidereal_time_h, subband_of

SIZE_PX = 1120
_AXES = (0.018, 0.052, 0.868, 0.868)
"""Left, bottom, width and height of the image, as shares of the picture."""
_AXES_PX = _AXES[2] * SIZE_PX
_WIDEST = 1.075
"""Half the width shown at most, as direction cosine: the horizon and room for labels."""
COLOURS = "inferno"
"""Perceptually uniform, and its order can be seen with every kind of colour blindness."""
_DARK, _GRID = "#2b2f36", "#c9d6e6"
_HALO = [patheffects.withStroke(linewidth=2.5, foreground="#000000b0")]
_RA_STEPS_H = (2, 1, 1 / 2, 1 / 3, 1 / 6, 1 / 12, 1 / 30, 1 / 60, 1 / 180)
_DEC_STEPS_DEG = (20, 10, 5, 2, 1, 1 / 2, 1 / 3, 1 / 6, 1 / 12, 1 / 30)

Floats = NDArray[np.float64]


def sky_picture(
    fits_path: Path,
    png_path: Path,
    *,
    title: str | None = None,
    sources: Iterable[Source] = BRIGHT_SOURCES,
    percentiles: tuple[float, float] = (1.0, 99.7),
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
    sources : sources
        To be named where they are on the picture and above the horizon.
    percentiles : (low, high)
        Ends of the colour range, among the pixels drawn.

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
    frame = _Frame(axes, raster.edges)
    up = _sources_up(picture, sources)
    for source in up:
        l, m, _ = lmn(source.ra_rad, source.dec_rad, *picture.centre_rad)
        frame.mark(float(l), float(m), source.name)
    _draw_grid(frame, picture)
    _draw_bar(figure, drawn, picture.unit)
    for height, size, text in (
        (0.974, 17, title or _title(picture)),
        (0.943, 12.5, _subtitle(picture, up)),
        (0.024, 11.5, _caption(extent(picture), percentiles, picture.unit)),
    ):
        weight = "bold" if size == 17 else "normal"
        figure.text(_AXES[0], height, text, fontsize=size, weight=weight, va="center", color=_DARK)
    canvas.print_png(png_path, pil_kwargs={"compress_level": 3})


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
    reach = round(_WIDEST / step)
    left, bottom = max(0, round(x0) - reach), max(0, round(y0) - reach)
    side = min(2 * reach + 1, picture.data.shape[1] - left, picture.data.shape[0] - bottom)
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
    bar_axes.tick_params(labelsize=12.5, colors=_DARK)
    bar_axes.set_title(unit, fontsize=12.5, color=_DARK, pad=8, x=0.9)


# ---------------------------------------------------------------------------------------------------------------------
# Words


def _title(picture: Picture) -> str:
    words = []
    if picture.time_s is not None:
        words.append(f"{datetime_of(picture.time_s):%Y-%m-%d %H:%M:%S} UTC")
    if band := subband_of(picture.freq_hz):
        words.append(band.name)
    return "   ".join(words) or picture.path.name


def _subtitle(picture: Picture, up: Iterable[Source]) -> str:
    words = [f"Stokes {picture.polarization}" if len(picture.polarization) == 1 else picture.polarization]
    words.append(f"{picture.freq_hz / 1e6:.2f} MHz, {picture.bandwidth_hz / 1e6:.2f} MHz wide")
    if picture.time_s is not None:
        hours, minutes = divmod(round(sidereal_time_h(picture.time_s) * 60) % 1440, 60)
        words.append(f"LST {hours:02d}h{minutes:02d}m")
    if picture.beam_deg is not None:
        words.append(f"beam {_angle(picture.beam_deg[0])} × {_angle(picture.beam_deg[1])}")
    elif picture.polarization in ("I", "XX", "YY"):
        found = [item for item in measure_sources(picture, up) if math.isfinite(item.width_deg[0])]
        if found:
            best = max(found, key=lambda item: item.peak_jy)
            words.append(f"beam {_angle(best.width_deg[0])} × {_angle(best.width_deg[1])} (from {best.name})")
    words.append(f"pixel {_angle(picture.scale_deg)}")
    return "  ·  ".join(words)


def _angle(deg: float) -> str:
    return f"{deg:.2f}°" if deg >= 1 else f"{60 * deg:.2f}′" if deg < 0.05 else f"{60 * deg:.1f}′"


def _caption(found: Extent, percentiles: tuple[float, float], unit: str) -> str:
    low, high = percentiles
    words = f"Peak {_number(found.peak)}, noise {_number(found.rms)} {unit} (robust)"
    return f"{words}.  Colours: percentiles {low:g} to {high:g} of the sky.  North is up, east is left."


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}".replace(",", "\u202f")


# ---------------------------------------------------------------------------------------------------------------------
# The sky over the image


class _Frame:
    """What is drawn over the image: lines, marks, and labels that keep out of each other's way."""

    def __init__(self, axes: Axes, edges: tuple[float, float, float, float]) -> None:
        self.axes = axes
        middle_l, middle_m = (edges[0] + edges[1]) / 2, (edges[2] + edges[3]) / 2
        half = (edges[0] - edges[1]) / 2
        self.whole_sky = half > 0.97
        if self.whole_sky:  # the horizon, and room for labels around it
            middle_l, middle_m, half = 0.0, 0.0, _WIDEST
        self.west, self.east = middle_l - half, middle_l + half
        self.south, self.north = middle_m - half, middle_m + half
        self.pixel = 2 * half / _AXES_PX
        self.half = half
        axes.set(xlim=(self.east, self.west), ylim=(self.south, self.north))
        self._taken: list[tuple[float, float, float, float]] = []
        if self.whole_sky:
            axes.add_patch(Circle((0, 0), 1, fill=False, edgecolor=_DARK, linewidth=1.2))

    def inside(self, l: Floats | float, m: Floats | float, margin: float = 0.0) -> NDArray[np.bool_]:
        """Whether directions are in the frame, and farther than `margin` from its edge."""
        x = (np.asarray(l) < self.east - margin) & (np.asarray(l) > self.west + margin)
        return x & (np.asarray(m) < self.north - margin) & (np.asarray(m) > self.south + margin)

    def lines(self, lines: list[Floats]) -> None:
        self.axes.add_collection(LineCollection(lines, colors=_GRID, linewidths=0.8, alpha=0.6), autolim=False)

    def label(
        self, l: float, m: float, text: str, size: float = 11, *, bold: bool = False, outside: bool = False
    ) -> bool:
        """Write a text around a point unless it would leave the frame or cover another; returns whether it did."""
        letter = size * 1.39 * self.pixel  # 100 pixels are 72 points
        half_width, half_height = (0.33 * len(text) + 0.3) * letter, 0.8 * letter
        box = (l - half_width, l + half_width, m - half_height, m + half_height)
        corners = self.inside(np.array(box[:2]), m) & self.inside(l, np.array(box[2:]))
        if not corners.all() or any(
            box[0] < other[1] and other[0] < box[1] and box[2] < other[3] and other[2] < box[3] for other in self._taken
        ):
            return False
        self._taken.append(box)
        style = {"color": _DARK} if outside else {"color": "white", "path_effects": _HALO}
        weight = "bold" if bold else "normal"
        self.axes.text(l, m, text, fontsize=size, weight=weight, ha="center", va="center", **style)
        return True

    def mark(self, l: float, m: float, name: str) -> None:
        """Put a ring around a source, and its name beside it where there is room."""
        if not self.inside(l, m):
            return
        radius = 13 * self.pixel
        for width, colour in ((2.6, "#00000090"), (1.2, "white")):
            self.axes.add_patch(Circle((l, m), radius, fill=False, edgecolor=colour, linewidth=width))
        self._taken.append((l - radius, l + radius, m - radius, m + radius))
        beside, above = (0.34 * len(name) * 13.5 * 1.39 + 20) * self.pixel, 30 * self.pixel
        inwards = -beside if l > 0 else beside
        for dl, dm in ((inwards, 0), (0, above), (0, -above), (-inwards, 0)):
            if math.hypot(l + 1.5 * dl, m + dm) < 1 and self.label(l + dl, m + dm, name, 13.5, bold=True):
                return
        self.label(l + inwards, m, name, 13.5, bold=True)


def _sources_up(picture: Picture, sources: Iterable[Source]) -> list[Source]:
    up = []
    for source in sources:
        above = picture.time_s is None or altaz_rad(source.ra_rad, source.dec_rad, picture.time_s)[1] > 0
        if above and lmn(source.ra_rad, source.dec_rad, *picture.centre_rad)[2] > 0:
            up.append(source)
    return up


def _nearest(steps: tuple[float, ...], wanted: float) -> float:
    return min(steps, key=lambda step: abs(math.log(step / wanted)))


def _draw_grid(frame: _Frame, picture: Picture) -> None:
    """Meridians and parallels at round numbers, about eight of each."""
    ra0, dec0 = (math.degrees(value) for value in picture.centre_rad)
    field_deg = 2 * math.degrees(math.asin(min(1.0, frame.half)))
    dec_step = _nearest(_DEC_STEPS_DEG, field_deg / 8)
    reach = 0.75 * field_deg  # to the corners
    south, north = max(-90.0, dec0 - reach), min(90.0, dec0 + reach)
    slenderest = math.cos(math.radians(max(abs(south), abs(north))))
    half_ra = min(180.0, reach / slenderest) if slenderest > 0.2 else 180.0
    ra_step = 30.0 if half_ra == 180 else 15 * _nearest(_RA_STEPS_H, field_deg / 120 / math.cos(math.radians(dec0)))
    polar = (math.ceil(90 / dec_step) - 1) * dec_step  # only every third meridian goes on to the pole
    lines = []
    for ra in _multiples(ra_step, ra0 - half_ra, ra0 + half_ra):
        end = min(north, 90 if ra % 90 == 0 else polar)
        for points in _visible(frame, picture, np.full(500, ra), np.linspace(max(south, -polar), end, 500)):
            lines.append(points)
            _label_meridian(frame, points, _hours(ra, ra_step))
    label_ra = (math.floor(ra0 / ra_step) + 0.5) * ra_step
    for dec in _multiples(dec_step, max(south, -polar), min(north, polar) + 1e-9):
        for points in _visible(frame, picture, np.linspace(ra0 + half_ra, ra0 - half_ra, 800), np.full(800, dec)):
            lines.append(points)
            if not frame.whole_sky:
                _label_inside(frame, points, _degrees(dec, dec_step))
        if frame.whole_sky:
            l, m, n = lmn(math.radians(label_ra), math.radians(dec), *picture.centre_rad)
            if n > 0.3:
                frame.label(float(l), float(m), _degrees(dec, dec_step))
    frame.lines(lines)


def _multiples(step: float, low: float, high: float) -> list[float]:
    return [k * step for k in range(math.ceil(low / step), math.ceil(high / step))]


def _visible(frame: _Frame, picture: Picture, ra_deg: Floats, dec_deg: Floats) -> Iterator[Floats]:
    """Pieces (n, 2) of a line that are on the sky and in the frame."""
    l, m, n = lmn(np.radians(ra_deg), np.radians(dec_deg), *picture.centre_rad)
    seen = (np.asarray(n) > 0) & frame.inside(l, m)
    for piece in np.split(np.arange(seen.size), np.flatnonzero(np.diff(seen)) + 1):
        if seen[piece[0]] and piece.size > 1:
            yield np.stack([l, m], axis=1)[piece]


def _label_meridian(frame: _Frame, points: Floats, text: str) -> None:
    """At its southern end: around the horizon, else just inside the frame."""
    l, m = points[0]
    if frame.whole_sky:
        distance = math.hypot(l, m)
        frame.label(1.035 * l / distance, 1.035 * m / distance, text, outside=True)
    else:
        _label_inside(frame, points, text)


def _label_inside(frame: _Frame, points: Floats, text: str) -> None:
    """At the first point of a line that leaves room for it."""
    for l, m in points[frame.inside(points[:, 0], points[:, 1], 8 * frame.pixel)][::4]:
        if math.hypot(l, m) < 0.97 and frame.label(l, m, text):
            return


def _hours(ra_deg: float, step_deg: float) -> str:
    """Right ascension with the digits that its step needs: 20h, 20h30m, 20h30m20s."""
    minutes, seconds = divmod(round(ra_deg * 240) % 86400, 60)
    hours, minutes = divmod(minutes, 60)
    if step_deg % 15 == 0:
        return f"{hours}h"
    return f"{hours}h{minutes:02d}m" + (f"{seconds:02d}s" if step_deg < 0.25 else "")


def _degrees(dec_deg: float, step_deg: float) -> str:
    degrees, minutes = divmod(round(abs(dec_deg) * 60), 60)
    sign = "−" if dec_deg < 0 else "+" if degrees + minutes else ""
    return f"{sign}{degrees}°" + (f"{minutes:02d}′" if step_deg < 1 else "")
