"""The first page of a report: pass or fail and why, the numbers, the worst antennas."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from orca.calibration.report_page import BAD, PASS, WARNING, new_page
from orca.quality import Verdict
from orca.skygrid import DARK

RIGHT = 0.515
"""Left edge of the pictures, as share of the page's width; the words are to the left of it."""
_LEFT, _TOP, _BOTTOM = 0.03, 0.885, 0.035
_LINE, _SIZE, _CHARACTERS = 0.0196, 8.0, 84
"""Height of a line as share of the page's, size of its letters, and how many of them it holds."""
_MOST_REASONS, _MOST_WARNINGS, _MOST_BOARDS, _MOST_NOTES = 7, 6, 4, 4
"""Lines of each at most, so that all of them fit above the page's end; notes get more if there is room."""
_TITLE = 66
"""Letters of a title that fit at full size."""

_LABELS = {
    "n_antennas": "antennas",
    "n_left_out": "left out beforehand",
    "antennas_flagged_x": "X flagged, antennas",
    "antennas_flagged_y": "Y flagged, antennas",
    "flagged_share": "solutions flagged",
    "channels_flagged": "channels flagged",
    "median_snr": "median SNR",
    "scatter_amplitude": "scatter of amplitude",
    "scatter_phase_deg": "scatter of phase, deg",
    "amplitude_spread": "spread between antennas",
    "median_amplitude_x": "median amplitude X",
    "median_amplitude_y": "median amplitude Y",
    "change_amplitude": "change since the last",
    "rms_ns": "rms, ns",
    "spread_ns": "robust spread, ns",
    "largest_ns": "largest, ns",
    "largest_antenna": "   of",
    "median_error_ns": "median error, ns",
    "largest_error_ns": "largest error of the fit, ns",
    "compared_antennas": "antennas compared",
    "moved_antennas": "moved beyond the alarm",
    "change_rms_ns": "rms of the change, ns",
    "change_spread_ns": "robust, ns",
    "largest_change_ns": "largest change, ns",
    "largest_change_antenna": "   of",
    "bad_antennas": "bad antennas",
    "bad_boards": "bad boards",
    "reference_antenna": "reference antenna",
}
_SHARES = ("flagged_share", "scatter_amplitude", "amplitude_spread", "change_amplitude")


def summary_page(verdict: Verdict, title: str, notes: Sequence[str]) -> Figure:
    """A page with everything that is said in words; its right half is free for pictures."""
    figure = new_page()
    colour = PASS if verdict.passed else BAD
    figure.add_artist(Rectangle((_LEFT, 0.92), 0.1, 0.057, facecolor=colour, edgecolor="none"))
    words = "PASS" if verdict.passed else "FAIL"
    figure.text(_LEFT + 0.05, 0.947, words, fontsize=22, weight="bold", color="white", ha="center", va="center")
    size = min(15.0, 15.0 * _TITLE / max(1, len(title)))
    figure.text(_LEFT + 0.115, 0.947, title, fontsize=size, weight="bold", color=DARK, va="center", parse_math=False)
    column = _Column(figure)
    if verdict.reasons:
        column.heading("Why it failed", BAD)
        column.items(verdict.reasons, _MOST_REASONS, BAD)
    if verdict.warnings:
        column.heading("Warnings", WARNING)
        column.items(verdict.warnings, _MOST_WARNINGS, WARNING)
    column.heading("Numbers", DARK)
    column.table([(_LABELS[key], _value(key, verdict)) for key in _LABELS if key in verdict.numbers])
    if verdict.boards:
        column.heading("Bad boards", DARK)
        column.items(
            [f"board {board} (antennas {32 * board} to {32 * board + 31}): {why}" for board, why in verdict.boards],
            _MOST_BOARDS,
        )
    note_lines = min(_MOST_NOTES, sum(len(_wrapped(note)) for note in notes)) + (1.6 if notes else 0)
    column.heading("Worst antennas", DARK)
    worst = [f"{name}, {why}" for name, why in verdict.worst] or ["none is bad"]
    column.items(worst, max(2, int(column.room - note_lines)))
    if notes:
        column.heading("Notes", DARK)
        column.items(notes, int(column.room))
    return figure


def _value(key: str, verdict: Verdict) -> str:
    value = verdict.numbers[key]
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    if key in _SHARES:
        return f"{100 * value:.3g} %"
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _CHARACTERS, subsequent_indent="   ") or [""]


class _Column:
    """Writes line after line."""

    def __init__(self, figure: Figure) -> None:
        self._figure = figure
        self._y = _TOP

    @property
    def room(self) -> float:
        """How many lines are left."""
        return (self._y - _BOTTOM) / _LINE

    def _write(self, x: float, words: str, colour: str, **style: object) -> None:
        style = {"fontsize": _SIZE, **style}
        self._figure.text(x, self._y, words, color=colour, va="center", parse_math=False, **style)  # type: ignore[arg-type]

    def heading(self, words: str, colour: str) -> None:
        self._y -= 0.4 * _LINE
        self._write(_LEFT, words, colour, weight="bold", fontsize=9.5)
        self._y -= 1.2 * _LINE

    def items(self, texts: Sequence[str], most_lines: int, colour: str = DARK) -> None:
        """Write texts, each wrapped, as many as fit into a number of lines; the rest is counted."""
        for k, text in enumerate(texts):
            lines = _wrapped(text)
            left = len(texts) - k
            if most_lines < len(lines) + (left > 1):
                self._write(_LEFT, f"… and {left} more", colour)
                self._y -= _LINE
                return
            for line in lines:
                self._write(_LEFT, line, colour)
                self._y -= _LINE
            most_lines -= len(lines)

    def table(self, rows: Sequence[tuple[str, str]]) -> None:
        """Write names and values in two columns."""
        half = (len(rows) + 1) // 2
        for k in range(half):
            for x, row in ((_LEFT, k), (_LEFT + 0.235, k + half)):
                if row < len(rows):
                    self._write(x, rows[row][0], DARK)
                    self._write(x + 0.205, rows[row][1], DARK, ha="right", weight="bold")
            self._y -= _LINE
