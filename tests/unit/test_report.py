"""Reports of calibrations: what is on their pages."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.time import Time
from matplotlib import colors
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from some_solutions import LEVEL, TIME_S, a_bandpass, some_delays
from test_quality import flagged, scaled, shifted

from orca.calibration import report
from orca.calibration.report_page import BAD, COLOURS, EMPTY, PALE, PASS
from orca.calibration.report_summary import RIGHT
from orca.calibration.tables import Solutions
from orca.quality import Verdict, judge_bandpass, judge_delay

pytestmark = pytest.mark.filterwarnings("error")


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text() and text.get_visible()]


def red_words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if colors.same_color(text.get_color(), BAD)]


def lines_of(figure: Figure, colour: str) -> list[np.ndarray]:
    """The stretches of the curves of one colour on a page of panels, in points."""
    found = [c for c in figure.findobj(LineCollection) if colors.same_color(c.get_edgecolor()[0], colour)]
    return [np.asarray(path.vertices) for c in found for path in c.get_paths()]


def panel_of(figure: Figure, name: str) -> tuple[float, float, float]:
    """Left edge of an antenna's panel, its upper edge, and the line between amplitude and phase, in points."""
    [title] = [text for text in figure.findobj(Text) if text.get_text().split()[:1] == [name]]
    x, y = title.get_position()
    return x, y - 5, y - 5 - 66


def amplitude_lines(figure: Figure, name: str, colour: str) -> list[np.ndarray]:
    x, top, middle = panel_of(figure, name)
    return [
        line
        for line in lines_of(figure, colour)
        if x <= line[0, 0] <= x + 94 and (line[:, 1] >= middle).all() and (line[:, 1] <= top).all()
    ]


def bandpass_pages(solutions: Solutions, previous: Solutions | None = None, **options: object) -> list[Figure]:
    verdict = judge_bandpass(solutions, previous=previous, **options)
    return list(report.bandpass_figures(solutions, verdict, previous))


def pdf_of(path: Path, figures: Iterable[Figure]) -> Path:
    """The report, beside which its picture lies."""
    report.write_report(path, path.with_suffix(".png"), figures)
    return path


def count_pages(pdf: Path) -> int:
    return len(re.findall(rb"/Type /Page\b", pdf.read_bytes()))


def pixel(png: Path, x: float, y: float) -> tuple[float, ...]:
    """Colour of the pixel at shares of width and height, from the lower left corner."""
    with Image.open(png) as picture:
        return picture.getpixel((int(x * picture.width), int((1 - y) * picture.height)))


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(round(255 * value) for value in colors.to_rgb(colour))


# ---------------------------------------------------------------------------------------------------------------------
# Bandpass


@pytest.mark.parametrize(("antennas", "pages"), [(24, 2), (32, 2), (40, 3), (96, 4)])
def test_there_is_a_page_for_each_board_and_a_summary(tmp_path: Path, antennas: int, pages: int) -> None:
    solutions = a_bandpass(antennas)
    path = pdf_of(tmp_path / "a.pdf", report.bandpass_figures(solutions, judge_bandpass(solutions)))
    assert count_pages(path) == pages
    for board, figure in enumerate(bandpass_pages(solutions)[1:]):
        last = min(antennas, 32 * board + 32) - 1
        assert f"Board {board}: antennas {32 * board} to {last}" in words(figure)
        numbered = [f"{solutions.antenna_names[number]}  {number}" for number in range(32 * board, last + 1)]
        assert set(numbered) <= set(words(figure))


def test_the_badge_of_a_picture_is_green_or_red(tmp_path: Path) -> None:
    good, bad = a_bandpass(), flagged(a_bandpass(), ..., 1)
    for solutions, colour, text in ((good, PASS, "PASS"), (bad, BAD, "FAIL")):
        verdict = judge_bandpass(solutions)
        png = pdf_of(tmp_path / f"{text}.pdf", report.bandpass_figures(solutions, verdict)).with_suffix(".png")
        assert pixel(png, 0.035, 0.93) == rgb(colour)
        assert text in words(bandpass_pages(solutions)[0])
    with Image.open(png) as picture:
        assert picture.size == (1169, 826)


def test_the_first_page_says_why_it_failed_and_what_was_measured() -> None:
    solutions = flagged(flagged(a_bandpass(96), slice(32, 64)), ..., slice(8), 1)
    verdict = judge_bandpass(solutions)
    [first, *_] = report.bandpass_figures(solutions, verdict, notes=("Made of 24 integrations",))
    found = words(first)
    assert f"Bandpass   73MHz   {Time(TIME_S / 86400, format='mjd').strftime('%Y-%m-%d %H:%M')} UTC" in found
    assert verdict.reasons
    for reason in verdict.reasons:
        assert reason in " ".join(red_words(first))
    assert "board 1 (antennas 32 to 63): 32 of 32 antennas are bad" in found
    assert "Made of 24 integrations" in found
    assert found[found.index("solutions flagged") + 1] == f"{100 * verdict.numbers['flagged_share']:.3g} %"
    assert found[found.index("antennas") + 1] == "96"


def test_what_is_flagged_left_out_or_bad_is_marked_in_its_panel() -> None:
    solutions = scaled(flagged(flagged(flagged(a_bandpass(), 3), 4, slice(None), 1), 5), 6, 8)
    names = solutions.antenna_names
    page = bandpass_pages(solutions, left_out=[5, 7])[1]
    found, red = words(page), red_words(page)
    assert (found.count("left out"), red.count("flagged"), red.count("Y flagged")) == (2, 1, 1)
    assert {word.split()[0] for word in red if word.startswith("LWA")} == {names[3], names[4], names[8]}
    frames = [line for line in lines_of(page, BAD) if len(line) == 5]
    assert len(frames) == 3
    assert {tuple(frame.min(axis=0)) for frame in frames} == {
        (x, middle - 46) for x, _, middle in (panel_of(page, names[k]) for k in (3, 4, 8))
    }


def test_the_curves_are_the_amplitudes_and_phases() -> None:
    solutions = a_bandpass(noise=1e-6)
    values = np.full_like(solutions.values, LEVEL)
    values[0, 2, :, 0] = LEVEL / 2 * np.exp(1j * np.radians(90))
    values[0, 2, :, 1] = LEVEL * np.exp(1j * np.radians(np.linspace(150, 210, 16)))
    values[0, 9, :, 0] = 50 * LEVEL
    page = bandpass_pages(replace(solutions, values=values))[1]
    name = solutions.antenna_names[2]
    x, top, middle = panel_of(page, name)
    [half], [whole] = (amplitude_lines(page, name, colour) for colour in COLOURS)
    assert half.shape == (16, 2)
    np.testing.assert_allclose(half[:, 0] - x, (np.arange(16) + 0.5) * 94 / 16, atol=0.03)
    np.testing.assert_allclose(whole[:, 1] - middle, 2 * (half[:, 1] - middle), atol=0.1)
    # The scale is written beside the first panel of a row.
    highest = float(next(text for text in words(page) if re.fullmatch(r"\d+(\.\d+)?", text) and float(text) > LEVEL))
    np.testing.assert_allclose(whole[:, 1] - middle, LEVEL / highest * (top - middle), atol=0.1)
    # A phase of 90 deg is at three quarters of the lower part; one that wraps is broken in two.
    below = [
        [line for line in lines_of(page, colour) if x <= line[0, 0] <= x + 94 and middle - 46 <= line[0, 1] < middle]
        for colour in COLOURS
    ]
    np.testing.assert_allclose(below[0][0][:, 1], middle - 46 + 0.75 * 46, atol=0.05)
    assert [len(line) for line in below[1]] == [8, 8]
    # What is beyond the scale is drawn at the edge.
    [beyond] = amplitude_lines(page, solutions.antenna_names[9], COLOURS[0])
    _, top, _ = panel_of(page, solutions.antenna_names[9])
    assert (np.abs(beyond[:, 1] - top) < 2).all()


def test_flagged_channels_are_gaps_and_shaded() -> None:
    solutions = flagged(a_bandpass(), 2, [4, 5, 7])  # channel 6 stands alone
    page = bandpass_pages(flagged(solutions, 2, 10, 0))[1]
    x_lines, y_lines = (amplitude_lines(page, solutions.antenna_names[2], colour) for colour in COLOURS)
    assert [len(line) for line in x_lines] == [4, 2, 2, 5]
    assert [len(line) for line in y_lines] == [4, 2, 8]
    assert (x_lines[1][0] == x_lines[1][1]).all()  # a dot
    boxes = [
        np.asarray(path.vertices)
        for c in page.findobj(PolyCollection)
        if len(c.get_facecolor()) and colors.same_color(c.get_facecolor()[0], EMPTY)
        for path in c.get_paths()
    ]
    x, _, _ = panel_of(page, solutions.antenna_names[2])
    edges = sorted((box[:, 0].min() - x, np.ptp(box[:, 0])) for box in boxes)
    np.testing.assert_allclose(edges, [(4 * 94 / 16, 2 * 94 / 16), (7 * 94 / 16, 94 / 16)])


def test_the_last_good_bandpass_is_drawn_behind() -> None:
    solutions, previous = a_bandpass(), scaled(a_bandpass(seed=2), 1.5, 3)
    with_it, without = bandpass_pages(solutions, previous), bandpass_pages(solutions)
    assert lines_of(without[1], PALE) == []
    name = solutions.antenna_names[3]
    pale, now = amplitude_lines(with_it[1], name, PALE), amplitude_lines(with_it[1], name, COLOURS[0])
    assert len(lines_of(with_it[1], PALE)) == 48
    _, _, middle = panel_of(with_it[1], name)
    ratio = (pale[0][:, 1] - middle) / (now[0][:, 1] - middle)
    assert np.median(ratio) == pytest.approx(1.5, rel=0.03)
    title = "change of amplitude since the last good bandpass, %"
    assert title in words(with_it[0])
    assert title not in words(without[0])
    first = bandpass_pages(solutions, previous, left_out=[5])[0]
    [axes] = [axes for axes in first.axes if axes.get_title() == title]
    shown = axes.lines[0].get_ydata()
    assert np.isnan(shown).nonzero()[0].tolist() == [5]
    assert shown[3] == pytest.approx(100 / 3, abs=2)


def test_the_map_shows_amplitudes_with_what_is_flagged_masked() -> None:
    solutions = flagged(a_bandpass(), 3, slice(None), 0)
    [x, y] = [image for axes in bandpass_pages(solutions)[0].axes for image in axes.images]
    np.testing.assert_allclose(y.get_array(), np.abs(solutions.values[0, :, :, 1]), rtol=1e-6)
    assert np.ma.getmaskarray(np.ma.masked_invalid(x.get_array())).nonzero()[0].tolist() == [3] * 16
    assert x.get_clim() == y.get_clim()


# ---------------------------------------------------------------------------------------------------------------------
# Delays


@pytest.mark.parametrize(("antennas", "pages"), [(24, 2), (96, 2), (160, 3)])
def test_delays_have_a_summary_and_tables(tmp_path: Path, antennas: int, pages: int) -> None:
    solutions = some_delays(antennas)
    path = pdf_of(tmp_path / "a.pdf", report.delay_figures(solutions, judge_delay(solutions)))
    assert count_pages(path) == pages


def test_the_table_of_delays_has_every_antenna_and_marks_bad_ones() -> None:
    previous = some_delays(40, seed=2)
    solutions = shifted(flagged(flagged(some_delays(40), 3), 5, ..., 1), 300.0, 35, 0, 0)
    verdict = judge_delay(solutions, left_out=[4], previous=previous)
    [_, page] = report.delay_figures(solutions, verdict, previous)
    rows = {text.split()[1]: text.split() for text in words(page) if re.match(r" *\d+ LWA", text)}
    assert len(rows) == 40
    names, values = solutions.antenna_names, solutions.values[0, :, 0]
    for number, name in enumerate(names):
        if number in (3, 4, 5, 35):
            continue
        assert int(rows[name][0]) == number
        assert [float(cell.replace("−", "-")) for cell in rows[name][2:4]] == pytest.approx(values[number], abs=0.051)
        change = values[number] - previous.values[0, number, 0]
        assert [float(cell.replace("−", "-")) for cell in rows[name][4:]] == pytest.approx(change, abs=0.15)
    assert rows[names[3]][2:] == ["flagged"]
    assert rows[names[4]][2:] == ["left", "out"]
    assert (rows[names[5]][3], rows[names[5]][5]) == ("–", "–")
    assert rows[names[35]][4].startswith("+30")
    assert {text.split()[1] for text in red_words(page) if "LWA" in text} == {names[3], names[5], names[35]}
    [_, alone] = report.delay_figures(solutions, verdict)
    assert len(next(text for text in words(alone) if names[0] in text).split()) == 4


def test_the_changes_are_drawn_with_the_lines_of_the_alarm() -> None:
    previous = some_delays(seed=2)
    solutions = shifted(shifted(some_delays(), 500.0, 7, 0, 1), 9000.0, 8, 0, 1)
    verdict = judge_delay(solutions, left_out=[2], previous=previous)
    first = next(report.delay_figures(solutions, verdict, previous))
    [axes] = [axes for axes in first.axes if axes.get_title().startswith("change since")]
    dashed = [line.get_ydata()[0] for line in axes.lines if colors.same_color(line.get_color(), BAD)]
    assert dashed == [-100, 100]
    points = [line for line in axes.lines if line.get_marker() == "." and line.get_color() == COLOURS[1]]
    drawn = dict(zip(*points[0].get_data(), strict=True))
    assert drawn[7] == pytest.approx(500, abs=1)
    assert not {2, 8} & set(drawn)
    [beyond] = [line for line in axes.lines if line.get_marker() == "^" and len(line.get_xdata())]
    assert beyond.get_xdata().tolist() == [8]
    [plot] = [axes for axes in first.axes if axes.get_title().startswith("delay less")]
    values = np.delete(solutions.values[0, :, 0, 0], 2)
    found = next(line for line in plot.lines if line.get_marker() == "." and line.get_color() == COLOURS[0])
    np.testing.assert_allclose(found.get_ydata(), values - np.median(values), atol=1e-4)


def test_without_earlier_delays_the_report_says_so() -> None:
    solutions = some_delays()
    verdict = judge_delay(solutions)
    assert "there are no earlier delays to compare with" in words(next(report.delay_figures(solutions, verdict)))


# ---------------------------------------------------------------------------------------------------------------------
# Both


def _cases() -> Iterator[tuple[str, Solutions, Solutions | None]]:
    yield "tiny", a_bandpass(8), a_bandpass(8, seed=2)
    yield "averaged", a_bandpass(24, 48, average=4), a_bandpass(24)
    yield "all flagged", flagged(a_bandpass(), ...), flagged(a_bandpass(), ...)
    yield "no number", scaled(a_bandpass(), np.nan, 3), None
    yield "one channel", a_bandpass(24, 1), None
    yield "other kind before", a_bandpass(), some_delays()
    yield "tiny delays", some_delays(8), some_delays(24)
    yield "flagged delays", flagged(some_delays(), ...), some_delays()
    yield "delays after a bandpass", some_delays(), a_bandpass()


@pytest.mark.parametrize(("solutions", "previous"), [c[1:] for c in _cases()], ids=[c[0] for c in _cases()])
def test_whatever_was_solved_can_be_drawn(tmp_path: Path, solutions: Solutions, previous: Solutions | None) -> None:
    delay = solutions.kind == "K Jones"
    verdict = (judge_delay if delay else judge_bandpass)(solutions, previous=previous, left_out=[1])
    figures = (report.delay_figures if delay else report.bandpass_figures)(solutions, verdict, previous)
    pdf = pdf_of(tmp_path / "a.pdf", figures)
    assert count_pages(pdf) == 2
    with Image.open(pdf.with_suffix(".png")) as picture:
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 20


@pytest.mark.parametrize("long", ["antenna after antenna " * 12, "one line"])
def test_all_words_of_the_longest_summary_fit_on_the_page(long: str) -> None:
    solutions = some_delays()
    verdict = judge_delay(solutions, previous=some_delays(seed=2))
    verdict = Verdict(
        "delay",
        False,
        reasons=tuple(f"{k} {long}" for k in range(9)),
        warnings=tuple(f"{k} {long}" for k in range(9)),
        numbers=verdict.numbers,
        worst=tuple((f"LWA{k:03}", long) for k in range(352)),
        boards=tuple((k, long) for k in range(11)),
    )
    options = {"title": "A title, cut to the page " * 5, "notes": [long, "x_$y$_" * 40] * 5}
    first = next(report.delay_figures(solutions, verdict, **options))
    first.canvas.draw()
    width, height = first.canvas.get_width_height()
    texts = [text for text in first.texts if text.get_text()]
    assert sum("more" in text.get_text() for text in texts) >= 4
    boxes = {text: text.get_window_extent() for text in texts}
    for text, box in boxes.items():
        assert 0 < box.x0 < box.x1 < width, text.get_text()
        assert 0 < box.y0 < box.y1 < height, text.get_text()
        if box.y1 < 0.9 * height:
            assert box.x1 < RIGHT * width, text.get_text()
    for text, box in boxes.items():
        for other, second in boxes.items():
            assert text is other or not box.shrunk(0.9, 0.6).overlaps(second.shrunk(0.9, 0.6)), text.get_text()


def test_equal_solutions_make_equal_files_in_several_threads_too(tmp_path: Path) -> None:
    solutions, previous = flagged(a_bandpass(), 3), a_bandpass(seed=2)
    verdict = judge_bandpass(solutions, previous=previous)

    def draw(number: int) -> tuple[bytes, bytes]:
        pdf = pdf_of(tmp_path / f"{number}.pdf", report.bandpass_figures(solutions, verdict, previous))
        return pdf.read_bytes(), pdf.with_suffix(".png").read_bytes()

    once = draw(0)
    time.sleep(1.1)  # a date would tell seconds
    with ThreadPoolExecutor(2) as pool:
        assert all(again == once for again in pool.map(draw, range(1, 4)))
    other = pdf_of(tmp_path / "other.pdf", report.bandpass_figures(solutions, verdict, previous, title="Another"))
    assert other.read_bytes() != once[0]


def test_the_report_of_the_whole_array_is_small(tmp_path: Path) -> None:
    solutions, previous = a_bandpass(352, 192, 0.02), a_bandpass(352, 192, 0.02, seed=2)
    verdict = judge_bandpass(solutions, previous=previous)
    path = pdf_of(tmp_path / "a.pdf", report.bandpass_figures(solutions, verdict, previous))
    assert path.stat().st_size < 5e6
    assert count_pages(path) == 12
