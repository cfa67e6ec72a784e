"""Pictures and tables of delays: each antenna's, and how it differs from the last good one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from orca.calibration.report_page import BAD, COLOURS, EMPTY, LINE, new_canvas, new_page, number_antennas, style_axes
from orca.calibration.tables import Solutions
from orca.quality import Verdict
from orca.quality_numbers import board_slices, median, usable
from orca.skygrid import DARK

Box = tuple[float, float, float, float]
_BOARDS_A_PAGE = 4
_NO_NUMBER = "–"


def draw_delays(figure: Figure, box: Box, solutions: Solutions, verdict: Verdict) -> None:
    """Draw the delays less the median of each polarization, without those left out; what is far off, at the edge."""
    delays = usable(solutions)[:, 0]
    delays[list(verdict.left_out)] = np.nan
    away = delays - median(delays, 0)
    sizes = np.abs(away[np.isfinite(away)])
    reach = max(10.0, 2.0 * float(np.percentile(sizes, 95))) if sizes.size else 10.0
    axes = figure.add_axes(box)
    words = _by_antenna(axes, away, reach)
    axes.axhline(0, color=LINE, linewidth=0.5, zorder=0)
    style_axes(axes, "delay less the median, ns  (triangles: beyond the edge)", words)


def draw_changes(figure: Figure, box: Box, change_ns: np.ndarray | None, verdict: Verdict) -> None:
    """Draw the differences to the last good delays, and the lines of the alarm."""
    title = "change since the last good delays, ns  (dashed: alarm)"
    axes = figure.add_axes(box)
    if change_ns is None:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "there are no earlier delays to compare with", ha="center", va="center", color=DARK)
        style_axes(axes, title, "")
        return
    alarm = verdict.numbers.get("alarm_ns")
    alarm_ns = float(alarm) if isinstance(alarm, int | float) else 100.0
    change = change_ns.copy()
    change[list(verdict.left_out)] = np.nan
    words = _by_antenna(axes, change, 20 * alarm_ns)
    axes.set_yscale("symlog", linthresh=1.0, linscale=0.8)  # so that both 0.1 ns and 500 ns can be seen
    ticks = [t for t in (1, 10, 100, 1000, 10000) if t < 20 * alarm_ns]
    axes.set_yticks([*(-t for t in reversed(ticks)), 0, *ticks])
    axes.set_yticklabels([*(f"−{t}" for t in reversed(ticks)), "0", *(str(t) for t in ticks)])
    axes.minorticks_off()
    for level in (-alarm_ns, alarm_ns):
        axes.axhline(level, color=BAD, linewidth=1, linestyle="--")
    style_axes(axes, title, words)


def _by_antenna(axes: Axes, values: np.ndarray, reach: float) -> str:
    """Draw points for X and Y by correlator number; grey where an antenna has neither. Returns what is along x."""
    n = len(values)
    axes.set(xlim=(-1, n), ylim=(-1.05 * reach, 1.05 * reach))
    for number in np.flatnonzero(np.isnan(values).all(axis=1)):
        axes.axvspan(number - 0.5, number + 0.5, color=EMPTY, linewidth=0, zorder=0)
    for k, colour in enumerate(COLOURS):
        inside = np.abs(values[:, k]) <= reach
        numbers = np.arange(n)
        axes.plot(numbers[inside], values[inside, k], ".", color=colour, markersize=3.5, label="XY"[k])
        for sign, marker in ((1, "^"), (-1, "v")):
            beyond = sign * values[:, k] > reach
            axes.plot(numbers[beyond], np.full(beyond.sum(), sign * reach), marker, color=colour, markersize=5)
    axes.legend(loc="upper right", fontsize=7, ncols=2, framealpha=0.8, handletextpad=0.1, borderpad=0.2)
    return f"{number_antennas(axes, 'x', n)}; grey: flagged or left out"


def table_pages(solutions: Solutions, change_ns: np.ndarray | None, verdict: Verdict, title: str) -> Iterator[Figure]:
    """Pages with the delay of every antenna in figures, board by board; bad ones are red."""
    boards = list(board_slices(len(solutions.antenna_names)))
    rows = _rows(solutions, change_ns, verdict)
    bad_names = {name for name, _ in verdict.worst}
    bad = [name in bad_names for name in solutions.antenna_names]
    bad_boards = dict(verdict.boards)
    for first in range(0, len(boards), _BOARDS_A_PAGE):
        figure = new_page()
        axes = new_canvas(figure)
        shown = boards[first : first + _BOARDS_A_PAGE]
        numbers = f"{shown[0][1].start} to {shown[-1][1].stop - 1}"
        axes.text(32, 577, f"Delays in ns: antennas {numbers}", fontsize=13, weight="bold", color=DARK, va="center")
        axes.text(830, 577, title, fontsize=9, color=DARK, ha="right", va="center", parse_math=False)
        for column, (board, here) in enumerate(shown):
            x = 32 + 202 * column
            colour = BAD if board in bad_boards else DARK
            axes.text(x, 552, f"Board {board}", fontsize=10, weight="bold", color=colour, va="center")
            head = f"{'':>12}{'X':>8}{'Y':>8}" + ("" if change_ns is None else f"{'ΔX':>8}{'ΔY':>8}")
            axes.text(x, 536, head, fontsize=6.6, family="monospace", color=DARK, va="center")
            for k, number in enumerate(range(here.start, here.stop)):
                axes.text(
                    x,
                    522 - 15.5 * k,
                    rows[number],
                    fontsize=6.6,
                    family="monospace",
                    color=BAD if bad[number] else DARK,
                    weight="bold" if bad[number] else "normal",
                    va="center",
                    parse_math=False,
                )
        axes.text(32, 16, _legend(change_ns is not None), fontsize=7.5, color=DARK, va="center")
        yield figure


def _legend(has_change: bool) -> str:
    words = "Delays as in the table, relative to the reference antenna; red: bad."
    more = "Δ: change since the last good delays, less the median of each polarization."
    return f"{words}  {more}" if has_change else words


def _rows(solutions: Solutions, change_ns: np.ndarray | None, verdict: Verdict) -> list[str]:
    delays = usable(solutions)[:, 0]
    rows = []
    for number, name in enumerate(solutions.antenna_names):
        start = f"{number:>3} {name[:8]:<8}"
        if number in verdict.left_out:
            rows.append(f"{start}{'left out':>16}")
        elif np.isnan(delays[number]).all():
            rows.append(f"{start}{'flagged':>16}")
        else:
            cells = [_cell(value, "") for value in delays[number]]
            if change_ns is not None:
                cells += [_cell(value, "+") for value in change_ns[number]]
            rows.append(start + "".join(f"{cell:>8}" for cell in cells))
    return rows


def _cell(value: float, sign: str) -> str:
    # Adding zero after rounding makes −0.0 to 0.0.
    return f"{round(float(value), 1) + 0.0:{sign}.1f}".replace("-", "−") if np.isfinite(value) else _NO_NUMBER
