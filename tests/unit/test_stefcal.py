"""Gains from sums, beside the least squares of an independent method in double precision."""

from __future__ import annotations

import numpy as np
import pytest
from some_sums import Made, aligned, exact_gains, some_sums

from orca.calibration.stefcal import Gains, solve


def solved(made: Made, use: np.ndarray | None = None, **changes: float) -> Gains:
    sums = made.sums
    chosen = np.ones(sums.power.shape, bool) if use is None else use
    limits = {"min_baselines": 4, "max_iterations": 300, "tolerance": 1e-7} | changes
    return solve(sums.first, sums.second, sums.vm, sums.mm, chosen, **limits)


@pytest.mark.parametrize(("antennas", "noise"), [(6, 0.0), (6, 0.1), (24, 0.0), (24, 0.3), (24, 1.0)])
def test_gains_are_the_least_squares_solution(antennas: int, noise: float) -> None:
    made = some_sums(antennas, 4, noise=noise)
    sums = made.sums
    sums.mm[3, 1, 0] = 0  # a baseline without data
    sums.vm[3, 1, 0] = 0
    found = solved(made)
    assert found.converged.all()
    for c in range(4):
        for k in range(2):
            exact = exact_gains(sums.first, sums.second, sums.vm[:, c, k], sums.mm[:, c, k], antennas)
            off = aligned(found.values[:, c, k].astype(complex), exact) - exact
            assert np.linalg.norm(off) < 1e-6 * np.linalg.norm(exact)


def test_without_noise_they_are_the_true_gains_and_the_errors_vanish() -> None:
    made = some_sums()
    found = solved(made)
    np.testing.assert_allclose(aligned(found.values, made.gains), made.gains, atol=3e-6)
    assert found.errors.max() < 1e-6


@pytest.mark.parametrize(("antennas", "too_large"), [(24, 0.03), (8, 0.07), (5, 0.12)])
def test_errors_are_the_scatter_over_many_realisations_of_the_noise(antennas: int, too_large: float) -> None:
    """The channels are the realisations. Of few antennas the errors are a little too large, never too small."""
    n = 1500
    rng = np.random.default_rng(4)
    one = rng.uniform(0.5, 1.5, (antennas, 1, 2)) * np.exp(2j * np.pi * rng.uniform(0, 1, (antennas, 1, 2)))
    made = some_sums(antennas, n, noise=0.03, gains=np.repeat(one, n, 1), same_weights=True)
    found = solved(made, tolerance=1e-6)
    off = aligned(found.values, made.gains) - made.gains
    real_scatter = np.sqrt((np.abs(off) ** 2).mean(1) / 2)
    predicted = np.sqrt((found.errors.astype(float) ** 2).mean(1))
    assert 0.98 < predicted.mean() / real_scatter.mean() < 1 + too_large
    np.testing.assert_allclose(predicted / real_scatter, 1, atol=2 * too_large + 0.04)


def test_errors_are_real_for_an_antenna_with_few_baselines() -> None:
    n = 3000
    gains = np.ones((24, n, 2), complex)
    made = some_sums(24, n, noise=0.05, gains=gains)
    few = (made.sums.first == 0) & (made.sums.second > 5)
    made.sums.mm[few] = 0
    found = solved(made, tolerance=1e-6)
    assert (found.baselines[0] == 5).all()
    off = aligned(found.values, gains) - gains
    real_scatter = np.sqrt((np.abs(off[0]) ** 2).mean() / 2)
    assert np.sqrt((found.errors[0].astype(float) ** 2).mean()) == pytest.approx(real_scatter, rel=0.1)


def test_an_antenna_with_too_few_baselines_has_no_solution() -> None:
    made = some_sums(8, 2)
    lost = (made.sums.first == 0) & (made.sums.second > 3)
    made.sums.mm[lost, 1, 0] = 0  # antenna 0 has 3 baselines left there
    found = solved(made)
    assert (found.values[0, 1, 0], found.errors[0, 1, 0], found.baselines[0, 1, 0]) == (0, 0, 0)
    assert found.baselines[1, 1, 0] == 6
    assert (np.delete(found.values[:, 1, 0], 0) != 0).all()
    assert (found.values[0, 0] != 0).all()
    assert solved(made, min_baselines=3).baselines[0, 1, 0] == 3


def test_who_loses_a_partner_may_have_too_few_baselines_in_turn() -> None:
    made = some_sums(9, 1)
    first, second = made.sums.first, made.sums.second
    partners = {8: (0, 1), 7: (8, 0, 1), 6: (7, 0, 1, 2)}  # 8 has 3 with 7; then 7 has 3 with 6; then 6
    for antenna, kept in partners.items():
        own = (first == antenna) | (second == antenna)
        other = np.where(first == antenna, second, first)
        linked = [a for a in partners if antenna in partners[a]]
        made.sums.mm[own & ~np.isin(other, [*kept, *linked])] = 0
    found = solved(made)
    assert (found.values[6:] == 0).all()
    assert (found.values[:6] != 0).all()
    assert (found.baselines[:6] == 5).all()
    assert (solved(made, min_baselines=3).values != 0).all()


def test_where_nobody_has_enough_baselines_there_is_nothing() -> None:
    made = some_sums(4, 2)
    found = solved(made)
    assert not found.converged.any()
    assert (found.values == 0).all()
    assert (found.iterations == 0).all()


def test_what_does_not_take_part_changes_nothing_for_the_others() -> None:
    made = some_sums(8, 6, noise=0.1)
    use = np.ones((8, 6, 2), bool)
    use[2], use[:, 3], use[5, 1, 1] = False, False, False
    found = solved(made, use)
    assert (found.values[~use] == 0).all()
    assert (found.values[use] != 0).all()
    for changed in (made.sums.first == 2, made.sums.second == 2):
        made.sums.vm[changed] *= 1000
    np.testing.assert_array_equal(solved(made, use).values, found.values)


def test_who_does_not_converge_is_known() -> None:
    made = some_sums(noise=0.3)
    found = solved(made, max_iterations=2)
    assert not found.converged.any()
    assert (found.iterations == 2).all()
    assert solved(made).iterations.max() < 100


@pytest.mark.parametrize("tolerance", [1e-8, 1e-12, 1e-300])
def test_a_tolerance_below_single_precision_still_converges(tolerance: float) -> None:
    found = solved(some_sums(noise=0.3), tolerance=tolerance)
    assert found.converged.all()


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_and_the_number_of_channels_do_not_matter(threads: int) -> None:
    made = some_sums(channels=7, noise=0.3)
    found = solved(made, threads=threads)
    for c in range(7):
        one = Made(made.sums, made.gains)
        alone = solve(
            one.sums.first, one.sums.second,
            np.ascontiguousarray(one.sums.vm[:, c : c + 1]), np.ascontiguousarray(one.sums.mm[:, c : c + 1]),
            np.ones((24, 1, 2), bool), min_baselines=4, max_iterations=300, tolerance=1e-7,
        )  # fmt: skip
        np.testing.assert_allclose(aligned(found.values[:, c : c + 1], alone.values), alone.values, atol=2e-6)


def test_one_polarization_without_signal_does_not_touch_the_other() -> None:
    made = some_sums(noise=0.1)
    both = solved(made)
    made.sums.mm[..., 1] = 0
    found = solved(made)
    np.testing.assert_array_equal(found.values[..., 0], both.values[..., 0])
    assert (found.values[..., 1] == 0).all()
    assert not found.converged[:, 1].any()
