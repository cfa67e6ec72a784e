"""What is drawn over an image of the sky: the grid of right ascension and declination, and names.

Everything is in direction cosines (l to the east, m to the north), in which the image is a plain raster and the horizon
the unit circle. astropy's WCSAxes takes as long, but writes its labels at the edges of the frame, which for a whole sky
are below the horizon.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import Circle
from numpy.typing import NDArray

from orca.measuring import Picture
from orca.telescope import lmn

WIDEST = 1.075
"""Half the width shown at most, as direction cosine: the horizon and room for labels."""
DARK, LIGHT = "#2b2f36", "#c9d6e6"
_HALO = [patheffects.withStroke(linewidth=2.5, foreground="#000000b0")]
_RA_STEPS_H = (2, 1, 1 / 2, 1 / 3, 1 / 6, 1 / 12, 1 / 30, 1 / 60, 1 / 180)
_DEC_STEPS_DEG = (20, 10, 5, 2, 1, 1 / 2, 1 / 3, 1 / 6, 1 / 12, 1 / 30)

Floats = NDArray[np.float64]


class Frame:
    """What is drawn over the image: lines, marks, and labels that keep out of each other's way."""

    def __init__(self, axes: Axes, edges: tuple[float, float, float, float], side_px: float) -> None:
        self.axes = axes
        middle_l, middle_m = (edges[0] + edges[1]) / 2, (edges[2] + edges[3]) / 2
        half = (edges[0] - edges[1]) / 2
        self.whole_sky = half > 0.97 and math.hypot(middle_l, middle_m) < 0.05
        if self.whole_sky:  # the horizon, and room for labels around it
            middle_l, middle_m, half = 0.0, 0.0, WIDEST
        self.west, self.east = middle_l - half, middle_l + half
        self.south, self.north = middle_m - half, middle_m + half
        self.pixel = 2 * half / side_px
        self.half = half
        axes.set(xlim=(self.east, self.west), ylim=(self.south, self.north))
        self._taken: list[tuple[float, float, float, float]] = []
        if self.whole_sky:
            axes.add_patch(Circle((0, 0), 1, fill=False, edgecolor=DARK, linewidth=1.2))

    def inside(self, l: Floats | float, m: Floats | float, margin: float = 0.0) -> NDArray[np.bool_]:
        """Whether directions are in the frame, and farther than `margin` from its edge."""
        x = (np.asarray(l) < self.east - margin) & (np.asarray(l) > self.west + margin)
        return x & (np.asarray(m) < self.north - margin) & (np.asarray(m) > self.south + margin)

    def lines(self, lines: list[Floats]) -> None:
        self.axes.add_collection(LineCollection(lines, colors=LIGHT, linewidths=0.8, alpha=0.6), autolim=False)

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
        style = {"color": DARK} if outside else {"color": "white", "path_effects": _HALO}
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


def _nearest(steps: tuple[float, ...], wanted: float) -> float:
    return min(steps, key=lambda step: abs(math.log(step / wanted)))


def draw_grid(frame: Frame, picture: Picture) -> None:
    """Meridians and parallels at round numbers, about eight of each."""
    ra0, dec0, n0 = _direction(picture, (frame.east + frame.west) / 2, (frame.south + frame.north) / 2)
    field_deg = 2 * math.degrees(math.asin(min(1.0, frame.half)))
    dec_step = _nearest(_DEC_STEPS_DEG, field_deg / 8)
    reach = min(180.0, 0.75 * field_deg / n0)  # to the corners
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
        pieces = list(_visible(frame, picture, np.linspace(ra0 + half_ra, ra0 - half_ra, 800), np.full(800, dec)))
        lines += pieces
        if not frame.whole_sky:
            any(_label_inside(frame, piece, _degrees(dec, dec_step)) for piece in pieces)
        if frame.whole_sky:
            l, m, n = lmn(math.radians(label_ra), math.radians(dec), *picture.centre_rad)
            if n > 0.3:
                frame.label(float(l), float(m), _degrees(dec, dec_step))
    frame.lines(lines)


def _direction(picture: Picture, l: float, m: float) -> tuple[float, float, float]:
    """Right ascension and declination in degrees of direction cosines, and n; of the phase centre if off the sky."""
    ra0, dec0 = picture.centre_rad
    if l * l + m * m > 0.99:
        l = m = 0.0
    n = math.sqrt(1 - l * l - m * m)
    dec = math.asin(m * math.cos(dec0) + n * math.sin(dec0))
    ra = ra0 + math.atan2(l, n * math.cos(dec0) - m * math.sin(dec0))
    return math.degrees(ra), math.degrees(dec), n


def _multiples(step: float, low: float, high: float) -> list[float]:
    return [k * step for k in range(math.ceil(low / step), math.ceil(high / step))]


def _visible(frame: Frame, picture: Picture, ra_deg: Floats, dec_deg: Floats) -> Iterator[Floats]:
    """Pieces (n, 2) of a line that are on the sky and in the frame."""
    l, m, n = lmn(np.radians(ra_deg), np.radians(dec_deg), *picture.centre_rad)
    seen = (np.asarray(n) > 0) & frame.inside(l, m)
    for piece in np.split(np.arange(seen.size), np.flatnonzero(np.diff(seen)) + 1):
        if seen[piece[0]] and piece.size > 1:
            yield np.stack([l, m], axis=1)[piece]


def _label_meridian(frame: Frame, points: Floats, text: str) -> None:
    """At its southern end: around the horizon, else just inside the frame."""
    l, m = points[0]
    if frame.whole_sky:
        distance = math.hypot(l, m)
        frame.label(1.035 * l / distance, 1.035 * m / distance, text, outside=True)
    else:
        _label_inside(frame, points, text)


def _label_inside(frame: Frame, points: Floats, text: str) -> bool:
    """At the first point of a line that leaves room for it; returns whether there is one."""
    roomy = points[frame.inside(points[:, 0], points[:, 1], 8 * frame.pixel)][::4]
    return any(math.hypot(l, m) < 0.97 and frame.label(l, m, text) for l, m in roomy)


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
