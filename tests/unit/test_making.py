"""A whole calibration, from Measurement Sets to table and report, beside the truth."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from orca.antennas import BadAntennas
from orca.calibration import making
from orca.calibration.made import NUMBERS, PDF, PICTURE, TABLE, Calibrated
from orca.calibration.making import Knowledge, make_bandpass, make_delays
from orca.calibration.options import BlockOptions, DelayOptions, SolveOptions
from orca.calibration.tables import read_table
from orca.errors import InputError, InvalidDataError
from orca.ms.truth import read_truth
from orca.skyoptions import SkyOptions

START = datetime(2026, 1, 10, 20, 31, tzinfo=UTC)
BANDS = ("41MHz", "50MHz", "59MHz", "73MHz", "82MHz")
NOTHING_KNOWN = Knowledge(BadAntennas((), "nobody", None))
SOLVE = SolveOptions(uv="all", reference_antenna="LWA-114")
COMMON = {"title": "of a test", "sky": SkyOptions(), "solve": SOLVE, "knowledge": NOTHING_KNOWN}


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports have tests of their own, and would take most of the time here."""
    monkeypatch.setattr(making, "write_report", lambda pdf, picture, _: (pdf.touch(), picture.touch()))


def a_bandpass(sets: list[Path], folder: Path, **changes: object) -> Calibrated:
    folder.mkdir()
    options = COMMON | {"block": BlockOptions()}
    return make_bandpass(sets, folder, **(options | changes))


def delays_of(sources: dict[str, Path], folder: Path, **changes: object) -> Calibrated:
    folder.mkdir()
    options = COMMON | {"options": DelayOptions()}
    return make_delays(sources, folder, **(options | changes))


@pytest.fixture
def by_band(simulations: Callable[..., list[Path]]) -> dict[str, Path]:
    return dict(zip(BANDS, simulations(start=START, subbands=BANDS, antennas=24, channels=48), strict=True))


def test_a_bandpass_is_made_of_a_block(
    simulations: Callable[..., list[Path]], root_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    sets = simulations(integrations=3, start=START)
    made = a_bandpass(sets, tmp_path / "work")
    [table] = read_table(tmp_path / "work" / TABLE)
    truth = read_truth(root_of(sets[0]), "73MHz").gains
    expected = truth * np.exp(-1j * np.angle(truth[table.reference_antenna]))
    good = ~table.flags[0]
    assert good.mean() > 0.99
    assert np.sqrt(np.mean(np.abs(table.values[0] - expected)[good] ** 2)) < 2 * np.mean(table.errors[0][good])
    assert made.used == tuple(sets)
    assert made.time_s == table.time_s[0]
    assert (made.numbers["n_integrations"], made.numbers["subband"]) == (3, "73MHz")
    told = json.loads((tmp_path / "work" / NUMBERS).read_text())
    assert told["passed"] is made.passed
    assert all((tmp_path / "work" / name).exists() for name in (PDF, PICTURE))


@pytest.mark.parametrize(("wanted", "of"), [(None, 3), (24, 24)])
def test_an_incomplete_block_is_used_and_that_is_said(
    simulations: Callable[..., list[Path]], tmp_path: Path, wanted: int | None, of: int
) -> None:
    sets = simulations(integrations=3, start=START)
    gone = sets[1].with_name("20260110_203500_73MHz.ms")
    made = a_bandpass([sets[0], gone, sets[2]], tmp_path / "work", block=BlockOptions(integrations=wanted))
    assert made.used == (sets[0], sets[2])
    assert made.left_out == {gone.name: "there is no such file or folder"}
    notes = json.loads((tmp_path / "work" / NUMBERS).read_text())["warnings"]
    assert f"only 2 of {of} integrations were used" in notes


def test_too_few_integrations_are_an_error(simulations: Callable[..., list[Path]], tmp_path: Path) -> None:
    sets = simulations(integrations=3, start=START)
    with pytest.raises(InvalidDataError, match="3 of 3 integrations can be used, needed are 4"):
        a_bandpass(sets, tmp_path / "work", block=BlockOptions(min_integrations=4))
    assert not (tmp_path / "work" / TABLE).exists()


def test_delays_are_made_of_several_subbands(
    by_band: dict[str, Path], root_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    made = delays_of(by_band, tmp_path / "work", missing=("46MHz",))
    [table] = read_table(tmp_path / "work" / TABLE)
    delays = read_truth(root_of(by_band["73MHz"]), "73MHz").delays_ns
    off = table.values[0, :, 0] - (delays - delays[table.reference_antenna])
    assert not table.flags.any()
    assert np.sqrt(np.mean(off**2)) < 1.5  # with half of the subbands the simulated bend counts as delay
    assert made.numbers["n_subbands"] == 5
    assert "not recorded then: 46MHz" in json.loads((tmp_path / "work" / NUMBERS).read_text())["warnings"]


def test_an_antenna_with_one_dead_polarization_has_the_delay_of_the_other_one(
    simulations: Callable[..., list[Path]], root_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    sets = simulations(start=START, subbands=BANDS, channels=48, dead_polarizations=("12X",))
    delays_of(dict(zip(BANDS, sets, strict=True)), tmp_path / "work")
    [table] = read_table(tmp_path / "work" / TABLE)
    assert [tuple(place) for place in np.argwhere(table.flags[0, :, 0])] == [(12, 0)]
    delays = read_truth(root_of(sets[0]), BANDS[0]).delays_ns
    expected = delays[12, 1] - delays[table.reference_antenna, 1]
    assert table.values[0, 12, 0, 1] == pytest.approx(expected, abs=3)


def test_subbands_that_cannot_be_used_are_left_out(by_band: dict[str, Path], tmp_path: Path) -> None:
    gone = tmp_path / "20260110_203100_55MHz.ms"
    made = delays_of(by_band | {"55MHz": gone}, tmp_path / "work")
    assert made.numbers["subbands"] == ", ".join(BANDS)
    assert made.left_out == {gone.name: "there is no such file or folder"}
    with pytest.raises(InvalidDataError, match="5 of 6 subbands can be used, needed are 6"):
        delays_of(by_band | {"55MHz": gone}, tmp_path / "other", options=DelayOptions(min_subbands=6))


@pytest.mark.parametrize("position", [0, 2])
def test_a_subband_of_another_array_is_left_out_even_if_it_is_the_first(
    by_band: dict[str, Path], simulations: Callable[..., list[Path]], tmp_path: Path, position: int
) -> None:
    odd = BANDS[position]
    [stranger] = simulations(start=START, subbands=(odd,), antennas=20, channels=48)
    rest = {band: path for band, path in by_band.items() if band != odd}
    expected = delays_of(rest, tmp_path / "expected")
    made = delays_of(by_band | {odd: stranger}, tmp_path / "work")
    assert made.left_out == {stranger.name: f"has other antennas than {next(iter(rest))}"}
    assert made.used == expected.used == tuple(rest.values())
    [found], [alone] = (read_table(tmp_path / name / TABLE) for name in ("work", "expected"))
    np.testing.assert_array_equal(found.values, alone.values)
    with pytest.raises(InvalidDataError, match=r"1 of 2 subbands can be used, needed are 2 .* has other antennas than"):
        delays_of({odd: stranger, "73MHz": by_band["73MHz"]}, tmp_path / "two")


def test_a_reference_antenna_that_is_dead_in_one_subband_is_replaced_in_all(
    by_band: dict[str, Path], simulations: Callable[..., list[Path]], root_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    truth = read_truth(root_of(by_band["73MHz"]), "73MHz")
    wanted = truth.antenna_names.index("LWA114")
    [broken] = simulations(start=START, subbands=("59MHz",), channels=48, dead_antennas=(wanted,))
    delays_of(by_band | {"59MHz": broken}, tmp_path / "work")
    [table] = read_table(tmp_path / "work" / TABLE)
    assert table.reference_antenna != wanted
    others = np.arange(24) != wanted
    off = table.values[0, :, 0] - (truth.delays_ns - truth.delays_ns[table.reference_antenna])
    assert np.sqrt(np.mean(off[others] ** 2)) < 1.5
    name = truth.antenna_names[table.reference_antenna]
    notes = json.loads((tmp_path / "work" / NUMBERS).read_text())["warnings"]
    assert f"reference antenna of all subbands is {name}" in notes


def test_known_bad_antennas_are_left_out_and_the_report_says_who_says_so(
    simulations: Callable[..., list[Path]], tmp_path: Path
) -> None:
    sets = simulations(integrations=3, start=START)
    known = Knowledge(BadAntennas((4,), "a list", "the list is old"))
    a_bandpass(sets, tmp_path / "work", knowledge=known)
    [table] = read_table(tmp_path / "work" / TABLE)
    assert table.flags[0, 4].all()
    told = json.loads((tmp_path / "work" / NUMBERS).read_text())
    assert "the list is old" in told["warnings"]
    assert any("(4): known to be bad" in note for note in told["antenna_notes"])


def test_without_a_source_above_the_horizon_nothing_is_made(make_ms: Callable[..., Path], tmp_path: Path) -> None:
    ms = make_ms(start=START - timedelta(hours=12))
    with pytest.raises(InputError, match="no source of the sky model is left"):
        a_bandpass([ms], tmp_path / "work", sky=SkyOptions(sources=("Cyg A",), min_elevation_deg=60))
    assert not (tmp_path / "work" / TABLE).exists()
