"""The picture of a dynamic spectrum: time to the right, frequency upwards, and where nothing is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from matplotlib.axes import Axes as Plot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, MultipleLocator, NullFormatter
from numpy.typing import NDArray
from PIL import Image

from orca.dynspec.product import DEAD, GOOD, MISSING, Product
from orca.errors import InputError
from orca.skygrid import DARK
from orca.spectrum_options import STOKES
from orca.telescope import INTEGRATION_S, SUBBANDS, datetime_of

Scale = Literal["auto", "log", "linear", "ratio"]
"""Of the colours. "ratio": to the median of each channel. "auto": "log" where all is positive and the range large."""
COLOURS = "inferno"
SIZE_PX = (1560, 900)
_PLACE = (0.052, 0.118, 0.85, 0.772)
"""Left, bottom, width and height of the picture, as shares."""
_STRIP = 0.012
_NOTHING = {"missing": "#dfe3e8", "dead": "#8d99a6", "flagged": "#bcc5ce"}
_FEWER = "#d1495b"


def draw_waterfall(
    fits_path: Path,
    png_path: Path,
    *,
    scale: Scale = "auto",
    percentiles: tuple[float, float] = (1.0, 99.5),
) -> None:
    """Draw a dynamic spectrum as PNG.

    Samples are averaged down to the pixels of the picture, without those that are missing; a pixel of which more than
    half is missing stays empty. A strip below shows where any subband lacks an integration.

    Parameters
    ----------
    fits_path : Path
        As `orca.dynspec.reduce_spectrum` writes it.
    png_path : Path
        Written directly: give a scratch name.
    scale : str
        See `Scale`.
    percentiles : (low, high)
        Ends of the colour range, among the pixels.

    Raises
    ------
    InputError
        There is no such scale, or "log" is asked for and less than half of the samples are positive.
    DataError
        See `orca.dynspec.product.Product`.
    """
    if scale not in get_args(Scale):
        raise InputError(f"there is no scale {scale!r}", remedy=f"Use {', '.join(get_args(Scale))}")
    with Product(fits_path) as product:
        raster = _rasterize(product)
        values = _per_channel(raster.values) if scale == "ratio" else raster.values
        norm = _norm(values, scale, percentiles)
        figure = Figure(figsize=(SIZE_PX[0] / 100, SIZE_PX[1] / 100), dpi=100, facecolor="white")
        canvas = FigureCanvasAgg(figure)
        plot = figure.add_axes(_PLACE)
        plot.imshow(raster.nothing, extent=raster.edges, origin="lower", aspect="auto", interpolation="nearest",
                    cmap=ListedColormap(list(_NOTHING.values())), vmin=0, vmax=len(_NOTHING) - 1)  # fmt: skip
        plot.imshow(values, extent=raster.edges, origin="lower", aspect="auto", interpolation="nearest",
                    cmap=COLOURS, norm=norm)  # fmt: skip
        _draw_axes(plot, product, raster)
        _draw_strip(figure, raster)
        _draw_bar(
            figure,
            norm,
            "ratio to the median of the channel"
            if scale == "ratio"
            else product.unit or ("uncalibrated" if product.correlation in STOKES else "amplitude, uncalibrated"),
        )
        _write_words(figure, product, raster)
    canvas.draw()
    Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").save(png_path, "PNG")


@dataclass(frozen=True)
class _Raster:
    """The picture's pixels.

    Attributes
    ----------
    values : (rows, columns) float32
    nothing : (rows, columns) int
        Number in `_NOTHING` of why a pixel is empty.
    fewer : (columns,) float
        Largest share of integrations that a subband lacks.
    edges : tuple of float
        UT hours of the left and right edge, MHz of the lower and upper one.
    """

    values: NDArray[np.float32]
    nothing: NDArray[np.uint8]
    fewer: NDArray[np.float64]
    edges: tuple[float, float, float, float]


def _rasterize(product: Product) -> _Raster:
    """Average over blocks of integrations and channels, down to about the size of the drawing."""
    axes = product.axes
    across = max(1, math.ceil(axes.n_times / (_PLACE[2] * SIZE_PX[0])))
    down = max(1, round(axes.n_channels / (_PLACE[3] * SIZE_PX[1])))
    while axes.band_channels % down:
        down -= 1
    n = -(-axes.n_times // across)
    rows = axes.band_channels // down
    values = np.full((len(SUBBANDS) * rows, n), np.nan, np.float32)
    nothing = np.zeros(values.shape, np.uint8)
    spare = n * across - axes.n_times
    status = np.pad(product.status, ((0, 0), (0, spare)), constant_values=255).reshape(-1, n, across)
    known = (status != 255).sum(axis=2)
    for band, samples in enumerate(product.bands()):
        padded = np.pad(samples, ((0, 0), (0, spare)), constant_values=np.nan).reshape(rows, down, n, across)
        number = np.isfinite(padded).sum(axis=(1, 3))
        total = np.nansum(padded, axis=(1, 3), dtype=float)
        here = slice(band * rows, (band + 1) * rows)
        enough = 2 * number >= np.maximum(known[band] * down, 1)
        values[here] = np.where(enough, total / np.maximum(number, 1), np.nan)
        dead, good = (status[band] == DEAD).sum(axis=1), (status[band] == GOOD).sum(axis=1)
        nothing[here] = np.where(2 * dead >= known[band], 1, np.where(2 * good >= known[band], 2, 0))
    half_h, half_mhz = INTEGRATION_S / 7200, axes.width_hz / 2e6
    first_h, first_mhz = (axes.first_s - axes.midnight_s) / 3600 - half_h, axes.first_hz / 1e6 - half_mhz
    edges = (first_h, first_h + n * across * 2 * half_h, first_mhz, first_mhz + axes.n_channels * 2 * half_mhz)
    there = (status == GOOD).any(axis=(1, 2)) | (status == DEAD).any(
        axis=(1, 2)
    )  # else all of it is seen to be missing
    fewer = ((status == MISSING).sum(axis=2) / np.maximum(known, 1))[there].max(axis=0, initial=0.0)
    return _Raster(values, nothing, fewer, edges)


def _per_channel(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each row over its own median."""
    found = np.full_like(values, np.nan)
    for row, line in enumerate(values):
        there = line[np.isfinite(line)]
        if there.size and (middle := float(np.median(there))):
            found[row] = line / middle
    return found


def _norm(values: NDArray[np.float32], scale: Scale, percentiles: tuple[float, float]) -> Normalize:
    there = values[np.isfinite(values)]
    if there.size == 0:
        return Normalize(0, 1)
    low, high = (float(value) for value in np.percentile(there, percentiles))
    positive = there[there > 0]
    if scale == "log" and 2 * positive.size < there.size:
        raise InputError("less than half of the samples are positive", remedy="Use the scale linear")
    if scale == "log" or (scale == "auto" and low > 0 and high > 4 * low):
        low = low if low > 0 else float(np.percentile(positive, percentiles[0]))
        return LogNorm(low, max(high, 1.001 * low))
    return Normalize(low, high) if high > low else Normalize(low - 0.5, low + 0.5)


def _draw_axes(plot: Plot, product: Product, raster: _Raster) -> None:
    left, _, low, high = raster.edges
    end = left + product.axes.n_times * INTEGRATION_S / 3600
    plot.set_xlim(left, end)
    plot.set_ylim(low, high)
    step = next((step for step in (1 / 360, 1 / 60, 1 / 12, 1 / 6, 0.5, 1.0, 2.0) if (end - left) / step <= 16), 4.0)
    plot.xaxis.set_major_locator(MultipleLocator(step))
    plot.xaxis.set_major_formatter(FuncFormatter(lambda hours, _: _clock(hours, step < 1 / 60)))
    plot.yaxis.set_major_locator(MaxNLocator(9))
    plot.tick_params(labelsize=12, colors=DARK, pad=9)
    plot.tick_params(axis="y", pad=4)
    plot.set_ylabel("Frequency (MHz)", fontsize=13, color=DARK)
    plot.set_xlabel("UT", fontsize=13, color=DARK)
    for day in range(math.ceil(left / 24), math.floor(end / 24) + 1):
        if left < 24 * day < end:
            plot.axvline(24 * day, color="white", linewidth=0.9, linestyle=(0, (4, 4)))
            name = datetime_of(product.axes.midnight_s + 86400 * day).date().isoformat()
            plot.text(24 * day, high, f" {name}", fontsize=10.5, color=DARK, va="bottom")


def _draw_strip(figure: Figure, raster: _Raster) -> None:
    """Where integrations are missing, however few: in the picture they may be averaged away."""
    strip = figure.add_axes((_PLACE[0], _PLACE[1] - _STRIP - 0.002, _PLACE[2], _STRIP))
    shown = (raster.fewer > 0).astype(float)[None, :]
    strip.imshow(shown, aspect="auto", interpolation="nearest", cmap=ListedColormap(["white", _FEWER]), vmin=0, vmax=1,
                 extent=(*raster.edges[:2], 0.0, 1.0))  # fmt: skip
    strip.set_xlim(figure.axes[0].get_xlim())
    strip.set_xticks([])
    strip.set_yticks([])
    for side in strip.spines.values():
        side.set_linewidth(0.5)


def _draw_bar(figure: Figure, norm: Normalize, label: str) -> None:
    place = figure.add_axes((_PLACE[0] + _PLACE[2] + 0.024, _PLACE[1], 0.013, _PLACE[3]))
    bar = figure.colorbar(ScalarMappable(norm, COLOURS), cax=place, extend="both", extendfrac=0.02)
    bar.outline.set_linewidth(0.6)
    if isinstance(norm, LogNorm):
        narrow = (norm.vmax or 1) / (norm.vmin or 1) < 300
        place.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,)))
        place.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))
        place.yaxis.set_minor_formatter(NullFormatter())
    else:
        place.yaxis.set_major_locator(MaxNLocator(8))
        place.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))
    place.tick_params(which="both", labelsize=11, colors=DARK)
    short = len(label) < 8  # a unit stands above, words beside
    place.set_title(label if short else "", fontsize=12, color=DARK, pad=8)
    place.yaxis.set_label_position("left")
    place.set_ylabel("" if short else label, fontsize=11, color=DARK, labelpad=1)


def _write_words(figure: Figure, product: Product, raster: _Raster) -> None:
    axes, status = product.axes, product.status
    begin, end = (datetime_of(float(time_s)) for time_s in (axes.times_s[0], axes.times_s[-1]))
    there = int((status != MISSING).sum())
    bands = int((status != MISSING).any(axis=1).sum())
    gaps = int((status == MISSING).all(axis=0).sum())
    words = [
        f"{begin:%Y-%m-%d %H:%M} to {end:{'%H:%M' if begin.date() == end.date() else '%Y-%m-%d %H:%M'}} UT",
        f"{axes.n_channels} channels of {axes.width_hz / 1e3:.4g} kHz",
        f"{_number(there)} spectra of {bands} subbands",
        f"{_number(gaps)} of {_number(axes.n_times)} integrations without any",
    ]
    top = _PLACE[1] + _PLACE[3]
    figure.text(_PLACE[0], top + 0.075, f"{product.spectrum}   {product.correlation}", fontsize=17, weight="bold",
                color=DARK, va="center")  # fmt: skip
    figure.text(_PLACE[0], top + 0.041, "  ·  ".join(words), fontsize=12, color=DARK, va="center")
    patches = [
        Patch(facecolor=colour, edgecolor="#777777", linewidth=0.4, label=name)
        for number, (name, colour) in enumerate(_NOTHING.items())
        if (~np.isfinite(raster.values) & (raster.nothing == number)).any()
    ]
    if (raster.fewer > 0).any():
        patches.append(Patch(facecolor=_FEWER, label="an integration of a subband is missing"))
    figure.legend(handles=patches, loc="lower left", bbox_to_anchor=(_PLACE[0] - 0.005, 0.003), ncols=4, frameon=False,
                  fontsize=11, labelcolor=DARK)  # fmt: skip
    nowhere = [text for key, text in (("SBMISS", "missing"), ("SBDEAD", "dead")) if product.header[key]
               for text in [f"{text} throughout: {str(product.header[key]).replace(',', ', ')} MHz"]]  # fmt: skip
    figure.text(
        _PLACE[0] + _PLACE[2], top + 0.075, "  ·  ".join(nowhere), fontsize=11, color=DARK, ha="right", va="center"
    )


def _clock(hours: float, with_seconds: bool) -> str:
    seconds = round(hours * 3600)
    text = f"{seconds // 3600 % 24:02d}:{seconds // 60 % 60:02d}"
    return f"{text}:{seconds % 60:02d}" if with_seconds else text


def _plain(value: float) -> str:
    """Of a tick: 20 000, 0.05, 3e-7."""
    return _number(round(value)) if 1000 <= abs(value) < 1e7 else f"{value:.4g}".replace("-", "\u2212")


def _number(value: int) -> str:
    return f"{value:,}".replace(",", "\u202f")
