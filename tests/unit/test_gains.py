"""Gains of simulated data, beside the truth: what is solved, what is flagged, and what is said about it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from some_sums import some_sums

from orca.calibration.accumulate import Sums
from orca.calibration.gains import Solved, solve_gains, sum_integrations
from orca.calibration.options import SolveOptions
from orca.calibration.tables import Solutions, make_solutions, write_table
from orca.errors import InputError, InvalidDataError
from orca.ms.truth import Truth, read_truth
from orca.skyoptions import SkyOptions

START = datetime(2026, 1, 10, 20, 31, tzinfo=UTC)
NAMED = SolveOptions(uv="all", reference_antenna="LWA-114")


@pytest.fixture
def solved(
    simulations: Callable[..., list[Path]], root_of: Callable[[Path], Path], tmp_path: Path
) -> Callable[..., tuple[Solved, Truth]]:
    """`solved(options, bad=..., rfi=2, ...)`: gains of three integrations, and the truth."""

    def solve(
        options: SolveOptions = NAMED, *, bad: tuple[int | str, ...] = (), delay: Path | None = None, **simulated: Any
    ) -> tuple[Solved, Truth]:
        sets = simulations(**{"integrations": 3, "start": START, **simulated})
        sums = sum_integrations(sets, tmp_path, sky=SkyOptions(), uv_range_lambda=options.uv_range_lambda).sums
        return solve_gains(sums, options, bad=bad, delay=delay), read_truth(root_of(sets[0]), "73MHz")

    return solve


def referred(gains: np.ndarray, reference: int) -> np.ndarray:
    """True gains with the phases of the reference antenna taken out."""
    return gains * np.exp(-1j * np.angle(gains[reference]))[None]


def error_of_phase(solutions: Solutions) -> np.ndarray:
    """Errors of the gains across their direction, (n_antennas, n_channels, 2), with the reference antenna's phase."""
    snr = np.where(solutions.flags[0], np.inf, solutions.snr[0])
    error = np.abs(solutions.values[0]) * np.hypot(1 / snr, 1 / snr[solutions.reference_antenna])
    return np.where(solutions.flags[0], 0, error)


def assert_true(found: Solved, truth: Truth, share: float = 0.99) -> None:
    """What is not flagged is the truth, as far as its errors go; what is dead is flagged, and little else."""
    solutions = found.solutions
    good = ~solutions.flags[0]
    dead = np.broadcast_to(truth.dead_polarizations[:, None, :], good.shape)
    assert not good[dead].any()
    assert good[~dead].mean() > share
    others = np.arange(len(good)) != solutions.reference_antenna
    off = (solutions.values[0] - referred(truth.gains, solutions.reference_antenna))[others][good[others]]
    reach = np.abs(off) / np.hypot(solutions.errors[0], error_of_phase(solutions))[others][good[others]]
    assert np.sqrt(np.mean(reach**2)) == pytest.approx(1, abs=0.15)
    assert reach.max() < 5
    assert (solutions.values[0][~good] == 1).all()
    assert (solutions.errors[0][~good] == 0).all()
    assert (solutions.snr[0][~good] == 0).all()
    np.testing.assert_allclose(
        solutions.snr[0][good], np.abs(solutions.values[0][good]) / solutions.errors[0][good], rtol=1e-4
    )


def test_the_truth_is_found_within_the_errors(solved: Callable[..., tuple[Solved, Truth]]) -> None:
    found, truth = solved()
    assert_true(found, truth)
    assert found.solutions.reference_antenna == truth.antenna_names.index("LWA114")
    assert (found.bad, found.left_out, found.notes, found.unconverged) == ({}, (), (), 0)
    np.testing.assert_allclose(found.solutions.values[0, found.solutions.reference_antenna].imag, 0, atol=1e-6)
    assert (found.solutions.values[0, found.solutions.reference_antenna].real > 0).all()


def test_without_noise_it_is_the_truth(solved: Callable[..., tuple[Solved, Truth]]) -> None:
    """The model of the solver has no sources below 20 deg, the simulator has them from 2 deg on."""
    found, truth = solved(noise=0.0, min_elevation_deg=20.0)
    good = ~found.solutions.flags[0]
    assert good.all()
    expected = referred(truth.gains, found.solutions.reference_antenna)
    assert np.abs(found.solutions.values[0] - expected).max() < 1e-5


def test_lines_of_interference_cost_their_channels_alone(solved: Callable[..., tuple[Solved, Truth]]) -> None:
    from orca.ms import synthetic
    from orca.telescope import subband, time_s_of

    lines = synthetic.interference(2, 24, 16, subband(73).index, time_s_of(START), 0).line
    found, truth = solved(rfi=2)
    flags = found.solutions.flags[0]
    assert flags[:, lines >= 0].all()
    assert flags[:, lines < 0].mean() < 0.01
    assert_true(found, truth, 0.99 * 14 / 16)


def test_dead_antennas_are_found_and_named(solved: Callable[..., tuple[Solved, Truth]]) -> None:
    found, truth = solved(dead_antennas=(3, 11))
    assert found.solutions.flags[0, [3, 11]].all()
    assert sorted(found.bad) == [3, 11]
    assert all("weaker" in why for why in found.bad.values())
    assert_true(found, truth)


def test_of_an_antenna_with_one_dead_polarization_the_other_one_is_solved(
    solved: Callable[..., tuple[Solved, Truth]],
) -> None:
    found, truth = solved(dead_polarizations=("12X", "5Y"))
    assert found.solutions.flags[0, 12, :, 0].all()
    assert found.solutions.flags[0, 5, :, 1].all()
    assert sorted(found.bad) == [5, 12]
    for number, polarization in ((12, "X"), (5, "Y")):
        assert re.fullmatch(rf"[\d.]+ dB weaker than the other \w+( antennas)? \({polarization}\)", found.bad[number])
    assert found.left_out == ()
    assert_true(found, truth)  # the other polarization, and all other antennas


def test_a_dead_polarization_of_an_antenna_that_is_known_to_be_bad_changes_nothing(
    solved: Callable[..., tuple[Solved, Truth]],
) -> None:
    found, _ = solved(dead_polarizations=("12X",), bad=(12,))
    assert (found.bad, found.left_out) == ({12: "known to be bad"}, (12,))
    assert found.solutions.flags[0, 12].all()


def test_a_polarization_that_has_no_autocorrelations_at_all_does_not_touch_the_other() -> None:
    made = some_sums(noise=0.05)
    made.sums.power[..., 1], made.sums.samples[..., 1] = 0, 0
    found = solve_gains(made.sums, SolveOptions())
    assert found.solutions.flags[..., 1].all()
    assert not found.solutions.flags[..., 0].any()
    assert found.bad == dict.fromkeys(range(24), "no power (Y)")


def test_each_polarization_says_for_itself_why_it_is_bad() -> None:
    gains = np.ones((24, 16, 2), complex)
    gains[4, :, 1] = 0.05
    made = some_sums(noise=0.6, gains=gains)
    made.sums.power[4, :, 0] = 0
    made.sums.power[7] = 0
    found = solve_gains(made.sums, SolveOptions(min_snr=3.0))
    assert found.bad == {4: "no power (X); its solutions do not reach an SNR of 3 (Y)", 7: "no power"}
    assert found.left_out == (7,)
    assert found.solutions.flags[0, [4, 7]].all()


def test_dead_antennas_without_autocorrelations_are_seen_in_their_gains(
    simulations: Callable[..., list[Path]], root_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    sets = simulations(integrations=3, start=START, dead_antennas=(3,), dead_polarizations=("12X",))
    sums = sum_integrations(sets, tmp_path, sky=SkyOptions(), uv_range_lambda=(0, np.inf)).sums
    sums.power[:], sums.samples[:] = 0, 0
    found = solve_gains(sums, NAMED)
    assert sorted(found.bad) == [3, 12]
    assert found.left_out == ()
    assert any("no autocorrelations" in note for note in found.notes)
    assert_true(found, read_truth(root_of(sets[0]), "73MHz"))


def test_a_flagged_reference_antenna_is_replaced_and_that_is_said(
    solved: Callable[..., tuple[Solved, Truth]],
) -> None:
    found, truth = solved(bad=("LWA-114",))
    chosen = truth.antenna_names[found.solutions.reference_antenna]
    assert chosen != "LWA114"
    assert found.notes == (f"reference antenna LWA-114 is flagged: {chosen} is taken",)
    assert not found.solutions.flags[0, found.solutions.reference_antenna].any()
    assert_true(found, truth, 0.9)


def test_a_reference_antenna_that_is_not_there_is_replaced_and_that_is_said(
    solved: Callable[..., tuple[Solved, Truth]],
) -> None:
    found, truth = solved(SolveOptions(uv="all", reference_antenna="LWA-007"))
    chosen = truth.antenna_names[found.solutions.reference_antenna]
    assert found.notes == (f"reference antenna LWA-007 is not in the array: {chosen} is taken",)
    assert_true(found, truth)


def test_the_reference_antenna_may_be_given_by_number(solved: Callable[..., tuple[Solved, Truth]]) -> None:
    found, truth = solved(SolveOptions(uv="all", reference_antenna="5"))
    assert (found.solutions.reference_antenna, found.notes) == (5, ())
    assert_true(found, truth)


def test_what_is_known_or_asked_for_is_left_out(solved: Callable[..., tuple[Solved, Truth]]) -> None:
    options = SolveOptions(uv="all", flag_antennas=("7", "LWA-253"), flag_channels=("2-4", "9"))
    found, truth = solved(options, bad=(1, "LWA-051", "LWA-999", 300))
    expected = {1: "known to be bad", truth.antenna_names.index("LWA051"): "known to be bad"}
    expected |= dict.fromkeys((7, truth.antenna_names.index("LWA253")), "left out on request")
    assert found.bad == expected
    assert found.left_out == tuple(sorted(expected))
    flags = found.solutions.flags[0]
    assert flags[list(expected)].all()
    assert flags[:, [2, 3, 4, 9]].all()
    left = np.delete(np.delete(flags, list(expected), 0), [2, 3, 4, 9], 1)
    assert left.mean() < 0.01


def test_an_antenna_of_the_options_that_does_not_exist_is_an_error(
    solved: Callable[..., tuple[Solved, Truth]],
) -> None:
    with pytest.raises(InputError, match="has no antenna LWA-999"):
        solved(SolveOptions(flag_antennas=("LWA-999",)))


@pytest.mark.parametrize("where", ["bandpass with the delays taken out first", "flagged"])
def test_with_a_delay_table_first_the_product_is_the_same(
    solved: Callable[..., tuple[Solved, Truth]], make_ms: Callable[..., Path], tmp_path: Path, where: str
) -> None:
    alone, truth = solved()
    delays = truth.delays_ns - truth.delays_ns[[alone.solutions.reference_antenna]]
    flags = np.zeros((24, 1, 2), bool)
    flags[6, 0, 1] = where == "flagged"
    middle = truth.frequency_hz + 7e6  # as those of all subbands together
    table = make_solutions(
        "K Jones", delays[:, None], time_s=5e9, antenna_names=truth.antenna_names, frequency_hz=middle,
        channel_width_hz=23925.78125, flags=flags,
    )  # fmt: skip
    write_table(tmp_path / "delay", table, make_ms(integrations=3, start=START))
    after, _ = solved(delay=tmp_path / "delay")
    turns = 1e-9 * delays[:, None] * (truth.frequency_hz - middle.mean())[None, :, None]
    good = ~alone.solutions.flags[0] & ~after.solutions.flags[0]
    product = after.solutions.values[0] * np.exp(2j * np.pi * turns)
    if where == "flagged":
        assert after.solutions.flags[0, 6, :, 1].all()
        assert after.bad == {6: "it has no delay (Y)"}
        within = 5 * np.median(alone.solutions.errors)  # one antenna less
    else:
        np.testing.assert_array_equal(after.solutions.flags, alone.solutions.flags)
        within = 1e-5
    assert good.mean() > 0.97
    assert np.abs(product - alone.solutions.values[0])[good].max() < within


def test_what_does_not_converge_is_flagged_and_said(solved: Callable[..., tuple[Solved, Truth]]) -> None:
    with pytest.raises(InvalidDataError, match=r"no antenna has a solution .* 100\.0% .* did not converge in 2 steps"):
        solved(SolveOptions(uv="all", max_iterations=2))
    made = some_sums(noise=0.01)
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((276, 3, 2)) + 1j * rng.standard_normal((276, 3, 2))
    made.sums.vm[:, 5:8] = noise  # where there is nothing but noise, many gains are equally bad
    found = solve_gains(made.sums, SolveOptions(max_iterations=30, min_snr=0))
    assert found.solutions.flags[0, :, 5:8].all()
    assert not np.delete(found.solutions.flags[0], [5, 6, 7], 1).any()
    assert found.unconverged == pytest.approx(3 / 16)
    assert found.notes == ("18.8% of the channels did not converge in 30 steps",)


def test_solutions_below_the_least_snr_are_flagged() -> None:
    gains = np.ones((24, 16, 2), complex)
    gains[4] = 0.15
    made = some_sums(noise=0.6, gains=gains)
    free = solve_gains(replace_sums(made.sums), SolveOptions(min_snr=0.0))
    made = some_sums(noise=0.6, gains=gains)
    found = solve_gains(made.sums, SolveOptions(min_snr=3.0))
    assert not free.solutions.flags[0, 4].any()
    assert found.solutions.flags[0, 4].all()
    assert list(found.bad) == [4]
    assert np.delete(found.solutions.flags[0], 4, 0).mean() < 0.01
    assert found.solutions.snr[~found.solutions.flags].min() >= 3


def replace_sums(sums: Sums) -> Sums:
    return replace(sums, vm=sums.vm.copy(), mm=sums.mm.copy())


def test_an_antenna_too_far_away_for_the_range_of_uv_is_flagged_and_named(
    solved: Callable[..., tuple[Solved, Truth]],
) -> None:
    found, truth = solved(SolveOptions(uv="-60"))
    flagged = np.flatnonzero(found.solutions.flags[0].all((1, 2)))
    assert 0 < flagged.size < 12
    assert set(flagged) == set(found.bad)
    assert any("baselines within the range of uv" in why for why in found.bad.values())
    good = ~truth.dead
    good[flagged] = False
    off = found.solutions.values[0] - referred(truth.gains, found.solutions.reference_antenna)
    assert np.median(np.abs(off[good])) < 2 * np.median(found.solutions.errors[0][good])


def test_errors_are_the_scatter_over_many_realisations_of_the_noise() -> None:
    """The channels are the realisations. The reference antenna's phase adds to others', and calibrates nothing."""
    n, reference = 1500, 5
    rng = np.random.default_rng(4)
    one = rng.uniform(0.5, 1.5, (24, 1, 2)) * np.exp(2j * np.pi * rng.uniform(0, 1, (24, 1, 2)))
    made = some_sums(24, n, noise=0.1, gains=np.repeat(one, n, 1), same_weights=True)
    options = SolveOptions(reference_antenna=str(reference), template_sigma=100, tolerance=1e-5)
    solutions = solve_gains(made.sums, options).solutions
    assert (solutions.reference_antenna, solutions.flags.any()) == (reference, False)
    values = solutions.values[0].astype(complex)
    errors = np.sqrt((solutions.errors[0].astype(float) ** 2).mean(1))
    turned = values * referred(one, reference).conj() / np.abs(one)
    np.testing.assert_allclose(np.abs(values).std(1), errors, rtol=0.15)
    across = np.sqrt((error_of_phase(solutions) ** 2).mean(1))
    others = np.arange(24) != reference
    np.testing.assert_allclose(turned.imag.std(1)[others], across[others], rtol=0.15)
    first, second = made.sums.first, made.sums.second
    scatter = (values[first] * values[second].conj()).std(1)  # of what data are divided by
    amplitude = np.abs(one[:, 0])
    expected = np.sqrt(2) * np.hypot(amplitude[first] * errors[second], amplitude[second] * errors[first])
    np.testing.assert_allclose(scatter, expected, rtol=0.15)


def test_a_group_that_nothing_connects_with_the_others_is_flagged_and_named() -> None:
    made = some_sums()
    island = np.zeros(24, bool)
    island[[2, 5, 9, 13, 17, 20]] = True
    apart = island[made.sums.first] != island[made.sums.second]
    made.sums.mm[apart], made.sums.vm[apart] = 0, 0
    found = solve_gains(made.sums, SolveOptions())
    np.testing.assert_array_equal(found.solutions.flags[0].all((1, 2)), island)
    assert sorted(found.bad) == list(np.flatnonzero(island))
    assert all("connects it with the others" in why for why in found.bad.values())
    expected = referred(made.gains, found.solutions.reference_antenna)[~island]
    np.testing.assert_allclose(found.solutions.values[0, ~island], expected, atol=1e-5)


def test_a_group_may_be_apart_in_one_polarization_alone() -> None:
    made = some_sums()
    island = np.isin(np.arange(24), [2, 5, 9, 13, 17, 20])
    apart = island[made.sums.first] != island[made.sums.second]
    made.sums.mm[apart, :, 0], made.sums.vm[apart, :, 0] = 0, 0
    found = solve_gains(made.sums, SolveOptions())
    np.testing.assert_array_equal(found.solutions.flags[0, :, :, 0].all(1), island)
    assert not found.solutions.flags[0, :, :, 1].any()
    why = "no baseline within the range of uv connects it with the others (X)"
    assert found.bad == dict.fromkeys(np.flatnonzero(island), why)


def test_one_polarization_without_any_signal_leaves_the_other() -> None:
    made = some_sums(noise=0.05)
    made.sums.mm[..., 1], made.sums.vm[..., 1] = 0, 0
    found = solve_gains(made.sums, SolveOptions())
    assert found.solutions.flags[..., 1].all()
    assert found.bad == {}
    assert not found.solutions.flags[..., 0].any()
    off = found.solutions.values[0, :, :, 0] - referred(made.gains, found.solutions.reference_antenna)[:, :, 0]
    assert np.abs(off).max() < 6 * found.solutions.errors.max()


def test_nothing_at_all_is_an_error() -> None:
    made = some_sums()
    made.sums.mm[:], made.sums.vm[:] = 0, 0
    with pytest.raises(InvalidDataError, match="no antenna has a solution"):
        solve_gains(made.sums, SolveOptions())


def test_an_array_of_few_antennas_can_be_solved() -> None:
    made = some_sums(5, 4, noise=0.02)
    found = solve_gains(made.sums, SolveOptions())
    assert not found.solutions.flags.any()
    expected = referred(made.gains, found.solutions.reference_antenna)
    np.testing.assert_allclose(found.solutions.values[0], expected, atol=0.2)
