"""What all pages of a calibration's report share: size, colours, the look of axes."""

from __future__ import annotations

from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from orca.quality_numbers import BOARD_SIZE
from orca.skygrid import DARK

PAGE_PT = (842.0, 595.0)
"""A4, landscape."""
COLOURS = ("#1f5fbf", "#e07b00")
"""Of X and Y: told apart with every kind of colour blindness."""
BAD, PASS, WARNING = "#c62828", "#2e7d32", "#a85f00"
PALE, EMPTY = "#b9bec7", "#e6e8ec"
"""Of the last good table, and of what is flagged."""
EMPTY_IN_MAP = "#9aa1ac"
"""Of what is flagged, where white means something else."""
LINE = "#8b919c"


def new_page() -> Figure:
    """An empty page."""
    figure = Figure(figsize=(PAGE_PT[0] / 72, PAGE_PT[1] / 72), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def new_canvas(figure: Figure) -> Axes:
    """Invisible axes over the whole page, in points from its lower left corner."""
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, PAGE_PT[0]), ylim=(0, PAGE_PT[1]))
    axes.set_axis_off()
    return axes


def number_antennas(axes: Axes, along: Literal["x", "y"], count: int) -> str:
    """Ticks at the first antenna of each board, or more of them if there are few; returns what to write there."""
    many = count > 2 * BOARD_SIZE
    ticks = range(0, count, BOARD_SIZE if many else 4)
    (axes.set_xticks if along == "x" else axes.set_yticks)(ticks)
    return "antenna (a tick for each board)" if many else "antenna"


def style_axes(axes: Axes, title: str, x_label: str) -> None:
    """Thin frame, small letters."""
    axes.tick_params(labelsize=7, colors=DARK, width=0.5, length=2.5, pad=2)
    for spine in axes.spines.values():
        spine.set(linewidth=0.5, color=LINE)
    axes.set_title(title, fontsize=9, color=DARK, pad=4)
    axes.set_xlabel(x_label, fontsize=7.5, color=DARK, labelpad=1)
