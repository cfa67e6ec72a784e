"""The judgement of calibrations: what passes, what fails, and what is said about it."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from some_solutions import LEVEL, a_bandpass, some_delays

from orca import quality_numbers as measure
from orca.calibration.tables import Solutions
from orca.errors import InputError
from orca.quality import QualityLimits, Verdict, judge_bandpass, judge_delay

pytestmark = pytest.mark.filterwarnings("error")
NAN = float("nan")


def changed(solutions: Solutions, change: Callable[[np.ndarray, np.ndarray], None]) -> Solutions:
    """After `change(values, flags)`, both (n_antennas, n_channels, 2), in place."""
    values, flags = solutions.values.copy(), solutions.flags.copy()
    change(values[0], flags[0])
    return replace(solutions, values=values, flags=flags)


def flagged(solutions: Solutions, *where: object) -> Solutions:
    flags = solutions.flags.copy()
    flags[(0, *where)] = True
    return replace(solutions, flags=flags)


def scaled(solutions: Solutions, factor: complex, *where: object) -> Solutions:
    values = solutions.values.copy()
    values[(0, *where)] *= factor
    return replace(solutions, values=values)


def shifted(solutions: Solutions, by_ns: object, *where: object) -> Solutions:
    values = solutions.values.copy()
    values[(0, *where)] += by_ns
    return replace(solutions, values=values)


def why(verdict: Verdict, solutions: Solutions, number: int) -> str:
    return dict(verdict.worst)[solutions.antenna_names[number]]


# ---------------------------------------------------------------------------------------------------------------------
# Statistics


@pytest.mark.parametrize("axis", [None, 0, 1, 2])
def test_the_median_is_numpys_without_its_warnings(axis: int | None) -> None:
    rng = np.random.default_rng(2)
    values = np.where(rng.random((7, 10, 2)) < 0.3, NAN, rng.standard_normal((7, 10, 2)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = np.nanmedian(values, axis)
    np.testing.assert_array_equal(measure.median(values, axis), expected)
    assert np.isnan(measure.median(np.full((3, 0, 2), NAN), 1)).all()
    assert np.isnan(measure.median(np.full((3, 4), NAN), 1)).all()


def test_the_spread_of_normal_noise_is_its_standard_deviation_whatever_a_few_outliers_do() -> None:
    values = 5 + 3 * np.random.default_rng(1).standard_normal(40_000)
    values[:400] = 1e6
    assert measure.spread(values) == pytest.approx(3, rel=0.03)


@pytest.mark.parametrize("noise", [0.003, 0.03])
@pytest.mark.parametrize(("channels", "average"), [(192, 1), (48, 4)])
def test_the_scatter_is_the_noise_of_a_channel(noise: float, channels: int, average: int) -> None:
    solutions = a_bandpass(64, channels, noise, average=average)
    turns = 300e-9 * (solutions.frequency_hz - solutions.frequency_hz[0])  # a delay as large as the alarm knows it
    found = measure.channel_scatter(measure.usable(solutions) * np.exp(2j * np.pi * turns)[None, :, None])
    # Averaged channels are four times as far apart: the ripple of the simulated bandpass shows a little.
    assert np.median(found.amplitude) == pytest.approx(noise, rel=0.05, abs=0.002 if average > 1 else 0)
    assert np.median(found.phase_deg) == pytest.approx(np.degrees(noise), rel=0.05)


# ---------------------------------------------------------------------------------------------------------------------
# Bandpass


@pytest.mark.parametrize(
    ("antennas", "channels", "average", "noise"),
    [(8, 16, 1, 0.02), (24, 16, 1, 0.015), (24, 48, 4, 0.003), (96, 192, 1, 0.04)],
)
def test_a_good_bandpass_passes_with_room(antennas: int, channels: int, average: int, noise: float) -> None:
    solutions = flagged(a_bandpass(antennas, channels, noise, average=average), 3)  # with a dead antenna
    verdict = judge_bandpass(solutions)
    limits = QualityLimits()
    assert verdict.passed
    assert (verdict.reasons, verdict.warnings, verdict.boards) == ((), (), ())
    assert verdict.line == "PASS"
    for key, limit in (
        ("scatter_amplitude", limits.max_scatter),
        ("scatter_phase_deg", limits.max_phase_scatter_deg),
        ("amplitude_spread", limits.max_amplitude_spread),
        ("flagged_share", limits.max_flagged_share),
    ):
        assert 0 < verdict.numbers[key] < limit / 2, key
    assert verdict.numbers["median_snr"] == pytest.approx(1 / noise)
    assert verdict.numbers["median_amplitude_x"] == pytest.approx(LEVEL, rel=0.2)
    assert verdict.numbers["flagged_share"] == pytest.approx(1 / antennas, abs=1e-6)
    assert [name for name, _ in verdict.worst] == [solutions.antenna_names[3]]


def _noise(values: np.ndarray, flags: np.ndarray) -> None:
    rng = np.random.default_rng(5)
    values[:] = rng.standard_normal(values.shape) + 1j * rng.standard_normal(values.shape)


def _phase_noise(values: np.ndarray, flags: np.ndarray) -> None:
    values *= np.exp(0.5j * np.random.default_rng(5).standard_normal(values.shape))


def _wild(values: np.ndarray, flags: np.ndarray) -> None:
    values *= np.exp(1.2 * np.random.default_rng(5).standard_normal((len(values), 1, 2)))


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        (_noise, ["amplitudes scatter by ", "phases scatter by "]),
        (_phase_noise, ["phases scatter by "]),
        (_wild, ["the antennas' amplitudes differ by "]),
        (
            lambda v, f: f.__setitem__(np.s_[..., 1], True),
            ["polarization Y: 0 of 24 antennas have solutions (0 %), at least 70 %", "50 % of the solutions are"],
        ),
        (
            lambda v, f: f.__setitem__(np.s_[:10, :, 0], True),
            ["polarization X: 14 of 24 antennas have solutions (58.3 %), at least 70 % must"],
        ),
        (
            lambda v, f: f.__setitem__(np.s_[:, :6], True),
            ["37.5 % of the solutions are flagged, above 30 %", "37.5 % of the channels have no solution, above 30 %"],
        ),
        (lambda v, f: f.fill(True), ["all solutions are flagged"]),
        (lambda v, f: v.__setitem__(np.s_[2, 3, 1], NAN), ["1 solution is zero or not finite, and not flagged"]),
        (lambda v, f: v.__setitem__(np.s_[2, 3], np.inf), ["2 solutions are zero or not finite, and not flagged"]),
        (lambda v, f: v.__setitem__(np.s_[2, 3, 1], 0), ["1 solution is zero or not finite, and not flagged"]),
    ],
)  # fmt: skip
def test_a_bad_bandpass_fails_and_says_why(change: Callable[..., None], reasons: list[str]) -> None:
    verdict = judge_bandpass(changed(a_bandpass(), change))
    assert not verdict.passed
    assert len(verdict.reasons) == len(reasons)
    for found, expected in zip(verdict.reasons, reasons, strict=True):
        assert found.startswith(expected)
    assert verdict.line.startswith(f"FAIL: {verdict.reasons[0]}")
    assert ("(and 1 more)" in verdict.line) == (len(reasons) == 2)


def test_a_weak_bandpass_fails() -> None:
    weak = replace(a_bandpass(), snr=np.full((1, 24, 16, 2), 3.5, np.float32))
    assert judge_bandpass(weak).reasons == ("the median SNR is 3.5, below 5",)
    unknown = replace(weak, snr=np.full((1, 24, 16, 2), NAN, np.float32))
    verdict = judge_bandpass(unknown)
    assert verdict.passed
    assert verdict.numbers["median_snr"] is None


def test_limits_can_be_changed() -> None:
    solutions = a_bandpass(noise=0.05)
    assert judge_bandpass(solutions).passed
    verdict = judge_bandpass(solutions, limits=QualityLimits(max_scatter=0.02))
    assert len(verdict.reasons) == 1
    assert verdict.reasons[0].endswith("from channel to channel, above 2 %")


def test_antennas_left_out_do_not_count() -> None:
    def spoil(values: np.ndarray, flags: np.ndarray) -> None:
        flags[:10] = True
        values[10] = NAN

    solutions = flagged(changed(a_bandpass(), spoil), 10)
    assert not judge_bandpass(solutions).passed
    verdict = judge_bandpass(solutions, left_out=[*range(11), 3])
    assert verdict.passed
    assert (verdict.numbers["flagged_share"], verdict.numbers["n_left_out"], verdict.worst) == (0, 11, ())
    assert verdict.left_out == tuple(range(11))
    # What they have does not count either.
    good = a_bandpass()
    wild = scaled(good, 100, slice(0, 5))
    assert judge_bandpass(wild, left_out=range(5)).numbers == judge_bandpass(good, left_out=range(5)).numbers


def test_nothing_is_good_if_no_antenna_is_left() -> None:
    verdict = judge_bandpass(a_bandpass(8), left_out=range(8))
    assert verdict.reasons == ("no antenna is left: all were left out",)
    assert judge_delay(some_delays(8), left_out=range(8)).reasons == verdict.reasons


def test_the_worst_antennas_come_with_number_board_and_reason() -> None:
    def spoil(values: np.ndarray, flags: np.ndarray) -> None:
        flags[40] = True
        flags[41, :, 1] = True
        flags[42, :12] = True
        values[43, :, 0] *= 6
        values[44] *= 1 + 0.5 * np.random.default_rng(4).standard_normal((16, 2))

    solutions = changed(a_bandpass(64), spoil)
    verdict = judge_bandpass(solutions)
    names = [name for name, _ in verdict.worst]
    assert set(names[:2]) == {solutions.antenna_names[k] for k in (43, 44)}  # what is flagged harms nobody
    assert names[2:] == [solutions.antenna_names[k] for k in (40, 41, 42)]
    assert why(verdict, solutions, 40) == "number 40, board 1: X and Y flagged"
    assert why(verdict, solutions, 41) == "number 41, board 1: Y flagged"
    assert why(verdict, solutions, 42) == "number 42, board 1: 75 % flagged"
    level = np.median(np.abs(solutions.values[0, :, :, 0]), axis=1)
    factor = level[43] / np.median(np.delete(level, 40))
    assert why(verdict, solutions, 43) == f"number 43, board 1: X amplitude {factor:.3g} times the median"
    assert "X scatters by " in why(verdict, solutions, 44)
    assert verdict.numbers["bad_antennas"] == 5


def test_a_dead_polarization_is_no_single_antennas_fault() -> None:
    assert judge_bandpass(flagged(a_bandpass(), ..., 1)).worst == ()


def test_a_board_of_bad_antennas_is_named() -> None:
    solutions = flagged(a_bandpass(96), slice(32, 50))
    verdict = judge_bandpass(solutions)
    assert verdict.passed
    assert verdict.boards == ((1, "18 of 32 antennas are bad"),)
    assert verdict.warnings == ("board 1: 18 of 32 antennas are bad",)
    assert judge_bandpass(flagged(solutions, 70)).worst[0][0] == solutions.antenna_names[70]  # before the board's
    assert judge_bandpass(flagged(a_bandpass(96), slice(32, 48))).boards == ()  # half is not most
    assert judge_bandpass(solutions, left_out=range(32, 50)).boards == ()
    assert judge_bandpass(solutions, left_out=range(50, 64)).boards == ((1, "18 of 18 antennas are bad"),)


def test_no_board_is_named_when_the_whole_array_is_bad_or_there_is_one_board_only() -> None:
    assert judge_bandpass(flagged(a_bandpass(96), slice(10, 96))).boards == ()
    assert judge_bandpass(flagged(a_bandpass(24), slice(2, 24))).boards == ()


def test_a_board_whose_amplitudes_are_off_together_is_named_though_no_antenna_is_an_outlier() -> None:
    verdict = judge_bandpass(scaled(a_bandpass(96), 0.5, slice(64, 96)))
    assert verdict.worst == ()
    [(board, reason)] = verdict.boards
    assert board == 2
    assert reason.startswith("amplitudes 0.5")
    assert reason.endswith(" times those of the other boards")


def test_polarizations_that_differ_are_a_warning() -> None:
    verdict = judge_bandpass(scaled(a_bandpass(), 2.5, ..., 0))
    assert verdict.passed
    assert verdict.warnings[0].startswith("the median amplitude of X is ")
    assert verdict.line == f"PASS with a warning: {verdict.warnings[0]}"


def test_a_reference_antenna_without_solutions_is_a_warning() -> None:
    solutions = a_bandpass()
    verdict = judge_bandpass(flagged(solutions, 0))
    assert verdict.warnings == (f"the reference antenna {solutions.antenna_names[0]} has no solutions itself",)
    assert verdict.numbers["reference_antenna"] == solutions.antenna_names[0]


# ---------------------------------------------------------------------------------------------------------------------
# Against the last good bandpass


def test_what_changed_since_the_last_good_bandpass_is_named() -> None:
    previous = a_bandpass(seed=2)
    solutions = scaled(a_bandpass(), 1.6, 7, slice(None), 0)
    verdict = judge_bandpass(solutions, previous=previous)
    assert verdict.passed
    assert verdict.numbers["compared_antennas"] == 24
    assert verdict.numbers["change_amplitude"] == pytest.approx(0.01 * np.sqrt(2) * 0.6745, rel=0.15)
    assert why(verdict, solutions, 7).startswith("number 7, board 0: X changed by 6")
    assert len(verdict.worst) == 1


def test_a_change_of_the_whole_array_is_a_warning_and_no_single_antennas_fault() -> None:
    verdict = judge_bandpass(scaled(a_bandpass(), 1.5), previous=a_bandpass())
    assert verdict.passed
    assert verdict.warnings == ("amplitudes changed by 50 % since the last good bandpass, more than 20 %",)
    assert verdict.worst == ()


def test_antennas_are_compared_by_name_and_channels_by_frequency() -> None:
    solutions = a_bandpass(24, 16, 0.001)
    wide = a_bandpass(24, 48, 0.001, average=4)  # the same subband, averaged: its first four channels are these
    order = np.random.default_rng(1).permutation(24)[:20]
    previous = replace(
        wide,
        antenna_names=tuple(wide.antenna_names[k].replace("LWA", "LWA-") for k in order),
        values=wide.values[:, order],
        flags=wide.flags[:, order],
    )
    verdict = judge_bandpass(solutions, previous=previous)
    assert verdict.numbers["compared_antennas"] == 20
    assert 0 < verdict.numbers["change_amplitude"] < 0.003


@pytest.mark.parametrize(
    ("previous", "warning"),
    [
        (a_bandpass(band=41), "the last good bandpass has no solution in common with this one: not compared"),
        (flagged(a_bandpass(), ...), "the last good bandpass has no solution in common with this one: not compared"),
        (some_delays(), "not compared with the last good one, which is a table of kind K Jones"),
    ],
)
def test_a_previous_table_that_cannot_be_compared_is_a_warning(previous: Solutions, warning: str) -> None:
    verdict = judge_bandpass(a_bandpass(), previous=previous)
    assert verdict.passed
    assert verdict.warnings == (warning,)
    assert verdict.numbers.get("change_amplitude") is None


# ---------------------------------------------------------------------------------------------------------------------
# Delays


@pytest.mark.parametrize("antennas", [8, 24, 96])
def test_good_delays_pass_with_room(antennas: int) -> None:
    solutions = some_delays(antennas)
    verdict = judge_delay(solutions, previous=some_delays(antennas, seed=2))
    assert (verdict.passed, verdict.reasons, verdict.warnings, verdict.worst) == (True, (), (), ())
    away = solutions.values[0, :, 0] - np.median(solutions.values[0, :, 0], axis=0)
    assert verdict.numbers["rms_ns"] == pytest.approx(np.sqrt((away**2).mean()), rel=1e-5)
    largest = np.abs(away).max(axis=1).argmax()
    assert verdict.numbers["largest_antenna"] == solutions.antenna_names[largest]
    assert abs(verdict.numbers["largest_ns"]) == pytest.approx(np.abs(away).max(), rel=1e-5)
    assert verdict.numbers["median_error_ns"] == pytest.approx(0.1)
    assert 0 < verdict.numbers["change_spread_ns"] < 0.4
    assert verdict.numbers["moved_antennas"] == 0
    assert "n_channels" not in verdict.numbers


def test_another_reference_antenna_changes_nothing() -> None:
    previous = some_delays(seed=2)
    one = judge_delay(some_delays(), previous=previous)
    other = judge_delay(shifted(some_delays(), np.array([380.0, -210.0]), ...), previous=previous)
    for key, value in one.numbers.items():
        assert other.numbers[key] == (pytest.approx(value, abs=2e-3) if isinstance(value, float) else value), key
    assert other.passed


def test_a_delay_that_jumped_is_an_alarm_and_passes() -> None:
    solutions = shifted(some_delays(), 250.0, 5, 0, 1)
    verdict = judge_delay(solutions, previous=some_delays(seed=2))
    name = solutions.antenna_names[5]
    assert verdict.passed
    assert verdict.warnings == (
        f"ALARM: 1 of 24 antennas moved by more than 100 ns since the last good delays, most {name} by +250 ns",
    )
    assert why(verdict, solutions, 5).startswith("number 5, board 0: ")
    assert "Y moved by +250." in why(verdict, solutions, 5)
    assert "X" not in why(verdict, solutions, 5)
    assert judge_delay(shifted(some_delays(), 90.0, 5), previous=some_delays()).warnings == ()
    assert judge_delay(
        shifted(some_delays(), 90.0, 5), previous=some_delays(), limits=QualityLimits(alarm_ns=80)
    ).warnings


def test_many_delays_that_jumped_fail() -> None:
    verdict = judge_delay(shifted(some_delays(), -130.0, slice(4, 8)), previous=some_delays())
    assert verdict.reasons == (
        "4 of 24 antennas (16.7 %) moved by more than 100 ns since the last good delays, at most 10 % may",
    )
    assert verdict.numbers["moved_share"] == pytest.approx(4 / 24, abs=1e-6)


def test_a_board_that_slipped_by_a_sample_is_named() -> None:
    verdict = judge_delay(shifted(some_delays(96), 1e9 / 196e6, slice(32, 64)), previous=some_delays(96, seed=2))
    [(board, reason)] = verdict.boards
    assert (board, reason) == (1, "delays moved together by +5.1 ns since the last good ones")
    assert verdict.passed
    assert verdict.worst == ()


def test_a_board_is_not_named_for_what_may_be_noise() -> None:
    previous = some_delays(96, seed=2)
    shift = np.zeros((96, 1, 1))
    shift[32:64] = 8.0
    assert judge_delay(shifted(some_delays(96), shift, ...), previous=previous).boards != ()
    noisy = shifted(previous, 40 * np.random.default_rng(3).standard_normal((96, 1, 2)), ...)
    assert judge_delay(shifted(some_delays(96), shift, ...), previous=noisy).boards == ()


@pytest.mark.parametrize(
    ("solutions", "reason"),
    [
        (shifted(some_delays(), np.random.default_rng(1).uniform(-2e3, 2e3, (24, 1, 2)), ...), "the delays spread by "),
        (some_delays(noise_ns=12.0), "the median error of the delays is 12 ns, above 10 ns"),
        (flagged(some_delays(), ..., 0), "polarization X: 0 of 24 antennas have solutions (0 %), at least 70 % must"),
        (flagged(some_delays(), ...), "all solutions are flagged"),
        (shifted(some_delays(), NAN, 4), "2 solutions are zero or not finite, and not flagged"),
    ],
)  # fmt: skip
def test_bad_delays_fail_and_say_why(solutions: Solutions, reason: str) -> None:
    verdict = judge_delay(solutions, previous=some_delays())
    assert not verdict.passed
    assert verdict.reasons[0].startswith(reason)


def test_unknown_errors_of_delays_are_not_judged() -> None:
    verdict = judge_delay(replace(some_delays(), errors=np.zeros((1, 24, 1, 2), np.float32)))
    assert verdict.passed
    assert verdict.numbers["median_error_ns"] is None


def test_earlier_delays_of_other_antennas_are_a_warning() -> None:
    others = replace(some_delays(), antenna_names=tuple(f"ANT{k}" for k in range(24)))
    verdict = judge_delay(some_delays(), previous=others)
    assert verdict.passed
    assert verdict.warnings == ("the last good delays have no antenna in common with these: not compared",)


# ---------------------------------------------------------------------------------------------------------------------
# Both


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(InputError, match=r"K Jones is not a bandpass\. Give B Jones or G Jones"):
        judge_bandpass(some_delays())
    with pytest.raises(InputError, match="B Jones is not a delay"):
        judge_delay(a_bandpass())
    with pytest.raises(InputError, match="there is no antenna 24 to leave out"):
        judge_bandpass(a_bandpass(), left_out=[24])
    twice = replace(a_bandpass(), time_s=np.array([1.0, 2.0]))
    with pytest.raises(InputError, match="has 2 times"):
        judge_bandpass(twice)


@pytest.mark.parametrize(
    "verdict",
    [
        judge_bandpass(a_bandpass(), previous=a_bandpass(seed=2)),
        judge_bandpass(flagged(a_bandpass(96), slice(32, 64)), left_out=[1]),
        judge_bandpass(flagged(a_bandpass(), ...), previous=a_bandpass()),
        judge_delay(shifted(some_delays(), 500.0, 3), previous=some_delays()),
        judge_delay(flagged(some_delays(), ...), previous=some_delays()),
    ],
)
def test_a_verdict_is_json(verdict: Verdict) -> None:
    read = json.loads(json.dumps(verdict.plain(), allow_nan=False))
    assert read["passed"] is verdict.passed
    assert read["line"] == verdict.line
    assert read["reasons"] == list(verdict.reasons)
    assert read["numbers"] == verdict.numbers
    assert [(item["antenna"], item["why"]) for item in read["worst"]] == list(verdict.worst)
    assert [(item["board"], item["why"]) for item in read["boards"]] == list(verdict.boards)
    assert read["left_out"] == list(verdict.left_out)


@pytest.mark.parametrize(
    ("module", "absent"),
    [("orca.quality_limits", ("numpy", "numba", "casacore")), ("orca.quality", ("matplotlib", "astropy"))],
)
def test_the_judgement_imports_nothing_for_pictures_and_its_limits_are_light(
    module: str, absent: tuple[str, ...]
) -> None:
    code = f"import sys, {module}; print([m for m in {absent!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(("bad", "passed", "warned"), [(6, True, False), (8, True, True), (13, False, False)])
def test_an_array_of_which_much_was_left_out_beforehand_is_told(bad: int, passed: bool, warned: bool) -> None:
    verdict = judge_bandpass(flagged(a_bandpass(), np.s_[:bad]), left_out=range(bad))
    words = f"{bad} of 24 antennas were left out beforehand"
    assert verdict.passed == passed
    assert any(words in reason for reason in verdict.reasons) == (not passed)
    assert (words in verdict.warnings) == warned
