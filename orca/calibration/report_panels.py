"""One page for each board of 32 antennas: amplitude and phase of every antenna over frequency.

Everything on a page is drawn into one pair of axes whose unit is the typographic point, as a handful of collections:
352 antennas with two pairs of axes each would take a minute.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from orca.calibration.report_page import BAD, COLOURS, EMPTY, LINE, PAGE_PT, PALE, new_canvas, new_page
from orca.calibration.tables import Solutions
from orca.quality import Verdict
from orca.quality_numbers import board_slices, median, usable
from orca.skygrid import DARK

_COLUMNS = 8
"""Of panels; the 32 antennas of a board make four rows."""
_LEFT, _TOP, _PITCH = 32.0, 548.0, (100.5, 134.0)
_WIDTH, _AMPLITUDE, _PHASE = 94.0, 66.0, 46.0
"""Of a panel: its width, the height of its upper and of its lower part."""
_CEILING = 0.975
"""What is higher is drawn here, just below the frame."""

Lines = list[NDArray[np.float64]]


@dataclass(frozen=True)
class _Panel:
    """Where an antenna's panel is: lower left corners of its two parts, in points."""

    x: float
    phase_y: float

    @property
    def amplitude_y(self) -> float:
        return self.phase_y + _PHASE

    @property
    def top(self) -> float:
        return self.amplitude_y + _AMPLITUDE


def board_pages(solutions: Solutions, verdict: Verdict, previous: np.ndarray | None, title: str) -> Iterator[Figure]:
    """Draw the pages.

    Parameters
    ----------
    solutions : Solutions
        A bandpass.
    verdict : Verdict
        Tells which antennas are bad or left out.
    previous : (n_antennas, n_channels, 2) float, optional
        Amplitudes of the last good bandpass, on these antennas and channels.
    title : str
        For the upper right corner.
    """
    gains = usable(solutions)
    levels = median(np.abs(gains), 1)
    finite = levels[np.isfinite(levels)]
    highest = 1.6 * float(np.percentile(finite, 90)) if finite.size else 1.0
    for board, here in board_slices(len(solutions.antenna_names)):
        figure = new_page()
        axes = new_canvas(figure)
        _head(axes, board, here, verdict, title, previous is not None)
        before = None if previous is None else previous[here] / highest
        panels = _panels(here.stop - here.start)
        _curves(axes, panels, gains[here], highest, before)
        _scales(axes, panels, solutions.frequency_hz, highest)
        _marks(axes, panels, solutions, here, np.isnan(gains[here].real), verdict)
        yield figure


def _panels(count: int) -> list[_Panel]:
    return [
        _Panel(_LEFT + _PITCH[0] * (k % _COLUMNS), _TOP - _PITCH[1] * (k // _COLUMNS) - _AMPLITUDE - _PHASE - 9)
        for k in range(count)
    ]


def _text(axes: Axes, x: float, y: float, words: str, size: float, **style: object) -> None:
    axes.text(x, y, words, fontsize=size, parse_math=False, **{"color": DARK, "va": "center", **style})  # type: ignore[arg-type]


def _head(axes: Axes, board: int, here: slice, verdict: Verdict, title: str, has_previous: bool) -> None:
    _text(axes, _LEFT, 577, f"Board {board}: antennas {here.start} to {here.stop - 1}", 13, weight="bold")
    if why := dict(verdict.boards).get(board):
        _text(axes, _LEFT + 215, 576.5, why, 9, color=BAD, weight="bold")
    _text(axes, PAGE_PT[0] - 12, 577, title, 9, ha="right")
    _text(axes, _LEFT, 560, "amplitude above, phase below; one scale for all", 7.5)
    keys = [("X", COLOURS[0]), ("Y", COLOURS[1]), ("bad", BAD), ("flagged", EMPTY)]
    if has_previous:
        keys.insert(2, ("amplitude of the last good bandpass", PALE))
    x = 240.0
    for words, colour in keys:
        width = 7 if colour == EMPTY else 2
        axes.plot([x, x + 14], [560, 560], color=colour, linewidth=width, solid_capstyle="butt")
        _text(axes, x + 18, 560, words, 7.5)
        x += 34 + 4.2 * len(words)


def _curves(
    axes: Axes, panels: list[_Panel], gains: np.ndarray, highest: float, before: NDArray[np.float64] | None
) -> None:
    x = (np.arange(gains.shape[1]) + 0.5) * (_WIDTH / gains.shape[1])
    height = np.clip(np.abs(gains) / highest, 0, _CEILING) * _AMPLITUDE
    phase_deg = np.degrees(np.angle(gains))
    _shade(axes, panels, np.isnan(gains.real).all(axis=2))
    if before is not None:
        pale = np.clip(before, 0, _CEILING) * _AMPLITUDE
        old = [
            s for n, at in enumerate(panels) for k in (0, 1) for s in _line(at.x + x, at.amplitude_y + pale[n, :, k])
        ]
        axes.add_collection(LineCollection(old, colors=PALE, linewidths=1.6, capstyle="round"), autolim=False)
    for k, colour in enumerate(COLOURS):
        lines: Lines = []
        for n, at in enumerate(panels):
            lines += _line(at.x + x, at.amplitude_y + height[n, :, k])
            phase = phase_deg[n, :, k]
            lines += _line(at.x + x, at.phase_y + (phase + 180) / 360 * _PHASE, np.abs(np.diff(phase)) > 180)
        axes.add_collection(LineCollection(lines, colors=colour, linewidths=0.7, capstyle="round"), autolim=False)


def _line(x: NDArray[np.float64], y: NDArray[np.float64], breaks: NDArray[np.bool_] | None = None) -> Lines:
    """The stretches of a curve between what is not a number; `breaks` are more gaps, after each channel.

    Rounded to a twentieth of a point, which nobody sees: it halves the file.
    """
    there = np.isfinite(y)
    ends = ~there[:-1] | ~there[1:]
    if breaks is not None:
        ends |= breaks
    points = np.round(np.column_stack([x, y]) * 20) / 20
    pieces = np.split(points, np.flatnonzero(ends) + 1)
    # A single channel between gaps becomes a dot: a stretch of no length with a round cap.
    return [np.repeat(p, 2, axis=0) if len(p) == 1 else p for p in pieces if np.isfinite(p[0, 1])]


def _shade(axes: Axes, panels: list[_Panel], flagged: NDArray[np.bool_]) -> None:
    """Fill the channels that have neither X nor Y."""
    step = _WIDTH / flagged.shape[1]
    boxes = []
    for at, channels in zip(panels, flagged, strict=True):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], channels, [False]]).astype(int)))
        for first, last in edges.reshape(-1, 2):
            boxes.append(_box(at.x + first * step, at.x + last * step, at.phase_y, at.top))
    axes.add_collection(PolyCollection(boxes, facecolors=EMPTY, edgecolors="none"), autolim=False)


def _box(left: float, right: float, low: float, high: float) -> list[tuple[float, float]]:
    return [(left, low), (right, low), (right, high), (left, high), (left, low)]


def _scales(axes: Axes, panels: list[_Panel], frequency_hz: np.ndarray, highest: float) -> None:
    """Frames, and what the axes mean: at the first panel, since it is the same for all."""
    middle = [[(at.x, at.amplitude_y), (at.x + _WIDTH, at.amplitude_y)] for at in panels]
    frames = [_box(at.x, at.x + _WIDTH, at.phase_y, at.top) for at in panels]
    axes.add_collection(LineCollection([*middle, *frames], colors=LINE, linewidths=0.5), autolim=False)
    at = panels[0]
    for y, words, va in (
        (at.top, f"{highest:.3g}", "top"),
        (at.amplitude_y, "0", "bottom"),
        (at.amplitude_y - 1, "180°", "top"),
        (at.phase_y, "−180°", "bottom"),
    ):
        _text(axes, at.x - 2.5, y, words, 5.5, ha="right", va=va)
    for x, mhz, ha in ((at.x, frequency_hz[0], "left"), (at.x + _WIDTH, frequency_hz[-1], "right")):
        _text(axes, x, at.phase_y - 5, f"{mhz / 1e6:.2f}", 5.5, ha=ha)
    _text(axes, at.x + _WIDTH / 2, at.phase_y - 5, "MHz", 5.5, ha="center")


def _marks(
    axes: Axes, panels: list[_Panel], solutions: Solutions, here: slice, flagged: NDArray[np.bool_], verdict: Verdict
) -> None:
    """Names and numbers, in one text each, since texts take most of the time; what is the matter with an antenna."""
    bad_names = {name for name, _ in verdict.worst}
    frames = []
    for k, at in enumerate(panels):
        number = here.start + k
        name = solutions.antenna_names[number]
        bad = name in bad_names
        _text(axes, at.x, at.top + 5, f"{name}  {number}", 6.5, weight="bold", color=BAD if bad else DARK)
        if bad:
            frames.append(_box(at.x, at.x + _WIDTH, at.phase_y, at.top))
        gone = flagged[k].all(axis=0)
        words, colour = "", BAD
        if number in verdict.left_out:
            words, colour = "left out", DARK
        elif gone.any():
            words = "flagged" if gone.all() else f"{'XY'[int(gone.argmax())]} flagged"
        if gone.all():  # the lower part is empty; else the upper edge is emptiest
            _text(axes, at.x + _WIDTH / 2, at.phase_y + _PHASE / 2, words, 9, ha="center", color=colour)
        elif words:
            _text(axes, at.x + _WIDTH / 2, at.top - 6, words, 6.5, ha="center", color=colour)
    axes.add_collection(LineCollection(frames, colors=BAD, linewidths=1.6), autolim=False)
