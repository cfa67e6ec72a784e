"""The report of a calibration for people: a PDF with every antenna, and a PNG of its first page.

Nothing here uses pyplot, so that several threads can draw, and nothing says when it was drawn: equal solutions make
equal files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from PIL import Image

from orca.calibration.report_delays import draw_changes, draw_delays, table_pages
from orca.calibration.report_page import COLOURS as PAIR
from orca.calibration.report_page import EMPTY_IN_MAP, number_antennas, style_axes
from orca.calibration.report_panels import board_pages
from orca.calibration.report_summary import RIGHT, summary_page
from orca.calibration.tables import Solutions
from orca.plots import COLOURS
from orca.quality import Verdict
from orca.quality_numbers import amplitude_change, amplitudes_like, delay_change_ns, usable
from orca.skygrid import DARK
from orca.telescope import datetime_of, subband_of


def bandpass_figures(
    solutions: Solutions,
    verdict: Verdict,
    previous: Solutions | None = None,
    *,
    title: str = "",
    notes: Sequence[str] = (),
) -> Iterator[Figure]:
    """The pages of the report of a bandpass: a summary, then one for each board with the curves of every antenna.

    `write_report` writes them.

    Parameters
    ----------
    solutions, verdict
        A bandpass, and what `orca.quality.judge_bandpass` says about it.
    previous : Solutions, optional
        The last good bandpass: its amplitudes are drawn behind the others.
    title : str
        If left out, subband and time.
    notes : lines of text
        For the first page: which data it was made of, who said which antennas are bad.

    Yields
    ------
    Figure
        Drawn when it is asked for.
    """
    title = title or _title("Bandpass", solutions)
    previous = previous if previous is not None and np.iscomplexobj(previous.values) else None
    figure = summary_page(verdict, title, notes)
    bottom = 0.075 if previous is None else 0.29
    _draw_map(figure, solutions, verdict, bottom)
    if previous is not None:
        change = amplitude_change(solutions, previous)
        change[list(verdict.left_out)] = np.nan
        _draw_amplitude_change(figure, change)
    yield figure
    before = None if previous is None else amplitudes_like(solutions, previous)
    yield from board_pages(solutions, verdict, before, title)


def delay_figures(
    solutions: Solutions,
    verdict: Verdict,
    previous: Solutions | None = None,
    *,
    title: str = "",
    notes: Sequence[str] = (),
) -> Iterator[Figure]:
    """The pages of the report of delays: a summary with the delays and their change, then all of them as a table.

    Parameters are those of `bandpass_figures`.
    """
    title = title or _title("Delays", solutions)
    previous = previous if previous is not None and previous.kind == solutions.kind else None
    change = None if previous is None else delay_change_ns(solutions, previous)
    figure = summary_page(verdict, title, notes)
    draw_delays(figure, (RIGHT + 0.045, 0.535, 0.425, 0.355), solutions, verdict)
    draw_changes(figure, (RIGHT + 0.045, 0.075, 0.425, 0.355), change, verdict)
    yield figure
    yield from table_pages(solutions, change, verdict, title)


# ---------------------------------------------------------------------------------------------------------------------
# Files


def write_report(pdf: Path, picture: Path, figures: Iterable[Figure]) -> None:
    """Write all pages as a PDF, and the first one as a PNG as well; give names in a folder of scratch."""
    with PdfPages(pdf, metadata={"CreationDate": None}) as pages:
        for number, figure in enumerate(figures):
            if number == 0:
                canvas = FigureCanvasAgg(figure)
                canvas.draw()
                Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").save(picture, "PNG")
            pages.savefig(figure)


def _title(what: str, solutions: Solutions) -> str:
    words = [what]
    if solutions.kind != "K Jones" and (band := subband_of(solutions.frequency_hz)):
        words.append(band.name)
    return "   ".join([*words, f"{datetime_of(float(solutions.time_s[-1])):%Y-%m-%d %H:%M} UTC"])


# ---------------------------------------------------------------------------------------------------------------------
# The pictures of a bandpass's first page


def _draw_map(figure: Figure, solutions: Solutions, verdict: Verdict, bottom: float) -> None:
    """Amplitudes of all antennas over frequency, X and Y side by side, flagged ones grey, those left out white."""
    amplitude = np.abs(usable(solutions))
    n_antennas = amplitude.shape[0]
    seen = amplitude[np.isfinite(amplitude)]
    low, high = (0.0, 1.5 * float(np.median(seen))) if seen.size else (0.0, 1.0)
    colours = colormaps[COLOURS].with_extremes(bad=EMPTY_IN_MAP)
    width = np.abs(float(solutions.channel_width_hz[0])) / 2
    mhz = [(solutions.frequency_hz[0] - width) / 1e6, (solutions.frequency_hz[-1] + width) / 1e6]
    height = 0.86 - bottom
    for k, name in enumerate("XY"):
        axes = figure.add_axes((RIGHT + 0.035 + 0.202 * k, bottom, 0.192, height))
        drawn = axes.imshow(
            amplitude[:, :, k],
            aspect="auto",
            origin="lower",
            interpolation="nearest",
            extent=(mhz[0], mhz[1], -0.5, n_antennas - 0.5),
            cmap=colours,
            vmin=low,
            vmax=high,
        )
        for number in verdict.left_out:
            axes.axhspan(number - 0.5, number + 0.5, color="white", linewidth=0)
        style_axes(axes, f"amplitude {name}", "MHz")
        axes.locator_params(axis="x", nbins=4)
        words = number_antennas(axes, "y", n_antennas)
        if k:
            axes.set_yticklabels([])
        else:
            axes.set_ylabel(f"{words}; grey: flagged, white: left out", fontsize=7, color=DARK)
    bar = figure.colorbar(drawn, cax=figure.add_axes((RIGHT + 0.437, bottom, 0.011, height)), extend="max")
    bar.outline.set_linewidth(0.5)
    bar.ax.tick_params(labelsize=7, colors=DARK)


def _draw_amplitude_change(figure: Figure, change: np.ndarray) -> None:
    axes = figure.add_axes((RIGHT + 0.035, 0.075, 0.413, 0.125))
    for k, colour in enumerate(PAIR):
        axes.plot(100 * change[:, k], ".", color=colour, markersize=3, label="XY"[k])
    highest = float(np.nanmax(100 * change)) if np.isfinite(change).any() else 1.0
    axes.set(xlim=(-1, len(change)))
    axes.set_yscale("symlog", linthresh=1.0)  # so that both 0.3 and 300 % can be seen
    axes.set_ylim(0, 1.5 * max(highest, 7.0))
    ticks = [t for t in (0, 1, 10, 100, 1000, 10000) if t <= 1.5 * max(highest, 7.0)]
    axes.set_yticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()
    words = number_antennas(axes, "x", len(change))
    style_axes(axes, "change of amplitude since the last good bandpass, %", words)
