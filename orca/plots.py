"""Pictures of the sky for people to look at: north up, east left, as from below."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray
from PIL import Image

from orca.errors import InvalidDataError
from orca.measuring import Picture, open_picture
from orca.sky import BRIGHT_SOURCES, Source
from orca.telescope import datetime_of, lmn, subband_of

WIDTH_PX, HEIGHT_PX = 1120, 1120
_AXES = (0.02, 0.055, 0.86, 0.86)
"""Left, bottom, width and height of the image, as shares of the picture's: square."""
_AXES_PX = _AXES[2] * WIDTH_PX
COLOURS = "inferno"
"""Perceptually uniform, and legible with every kind of colour blindness."""
_OFF_SKY = "#e9e9ee"
_GRID, _TEXT = "#b9c7d8", "#ffffff"
_HALO = [patheffects.withStroke(linewidth=2.4, foreground="#000000c0")]
_RA_STEPS_H = (4, 2, 1, 1 / 2, 1 / 3, 1 / 6, 1 / 12, 1 / 30, 1 / 60)
_DEC_STEPS_DEG = (30, 20, 10, 5, 2, 1, 1 / 2, 1 / 3, 1 / 6, 1 / 12, 1 / 30)


def sky_picture(
    fits_path: Path,
    png_path: Path,
    *,
    title: str | None = None,
    sources: Iterable[Source] = BRIGHT_SOURCES,
    percentiles: tuple[float, float] = (1.0, 99.7),
) -> None:
    """Draw an image of the sky as PNG.

    With a grid of right ascension and declination, the circle 90 deg from the phase centre (the horizon, as ORCA's
    phase centre is the zenith) beyond which nothing is drawn, a colour bar, and the names of the sources that are up.

    Parameters
    ----------
    fits_path : Path
        Image in SIN projection.
    png_path : Path
        Written directly: give a scratch name.
    title : str, optional
        First line above the image; the time and the subband from the file if left out. The second line is made
        of polarization, frequency, beam and pixel.
    sources : sources
        To be named where they are on the picture and above the phase centre's horizon.
    percentiles : (low, high)
        Of the pixels on the sky: the ends of the colour range.

    Raises
    ------
    DataError
        See `orca.measuring.open_picture`; also if no pixel is on the sky and finite.
    """
    picture = open_picture(fits_path)
    shown = _shrink(picture)
    on_sky = shown.values[np.isfinite(shown.values)]
    if on_sky.size == 0:
        raise InvalidDataError("has no pixel that is on the sky and finite", fits_path)
    low, high = (float(value) for value in np.percentile(on_sky, percentiles))
    if low == high:
        low, high = low - 1, high + 1

    figure = Figure(figsize=(WIDTH_PX / 100, HEIGHT_PX / 100), dpi=100, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes(_AXES)
    axes.set_axis_off()
    axes.add_patch(Circle((0, 0), 1, transform=axes.transData, facecolor=_OFF_SKY, edgecolor="none", zorder=0))
    drawn = axes.imshow(
        shown.values, origin="lower", extent=shown.extent, cmap=COLOURS, vmin=low, vmax=high, zorder=1
    )
    half = shown.half_width
    axes.set(xlim=(half, -half), ylim=(-half, half))
    _draw_sky(axes, picture, half, tuple(sources))
    _draw_bar(figure, drawn, picture)
    figure.text(_AXES[0], 0.975, title or _title(picture), fontsize=17, weight="bold", va="center")
    figure.text(_AXES[0], 0.943, _subtitle(picture), fontsize=12.5, va="center", color="#333333")
    caption = f"colours from percentile {percentiles[0]:g} to {percentiles[1]:g} of the sky; peak {_jy(shown.peak)}"
    figure.text(_AXES[0], 0.027, f"{caption}    {fits_path.name}", fontsize=11, va="center", color="#333333")
    canvas.print_png(png_path, pil_kwargs={"compress_level": 3})
