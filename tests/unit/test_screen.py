"""Which solutions are taken for bad, with gains whose faults are known."""

from __future__ import annotations

import numpy as np
import pytest

from orca.calibration.screen import screen


def gains(antennas: int = 24, channels: int = 16, noise: float = 0.02, seed: int = 1) -> np.ndarray:
    """Gains of any phase and level with relative noise."""
    rng = np.random.default_rng(seed)
    shape = (antennas, channels, 2)
    level = rng.uniform(0.5, 2, (antennas, 1, 2)) * np.exp(2j * np.pi * rng.uniform(0, 1, (antennas, 1, 2)))
    return level * (1 + noise * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)))


def nothing(values: np.ndarray) -> np.ndarray:
    return np.zeros(values.shape, bool)


@pytest.mark.parametrize("antennas", [3, 5, 8, 24, 100])
@pytest.mark.parametrize("noise", [0.3, 0.1, 0.01, 0.0])
def test_noise_alone_is_hardly_ever_flagged(antennas: int, noise: float) -> None:
    """An SNR of 3 is the least that a solution has."""
    flagged = [screen(v, nothing(v))[0].mean() for v in (gains(antennas, 16, noise, seed) for seed in range(20))]
    assert np.mean(flagged) < 1e-3


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 8])
def test_few_channels_are_hardly_ever_flagged(channels: int) -> None:
    flagged = [screen(v, nothing(v))[0].mean() for v in (gains(24, channels, 0.1, seed) for seed in range(50))]
    assert np.mean(flagged) < 1e-3


@pytest.mark.parametrize("slope", [0.004, -0.004])
def test_a_band_that_slopes_alike_in_all_antennas_is_no_fault_at_its_ends(slope: float) -> None:
    """Analog filters do that, and the noise of the median over all antennas is far below it."""
    values = gains(100, 192, 0.001) * (1 + slope * np.arange(192))[None, :, None]
    values *= 1 + 0.02 * np.sin(np.arange(192) / 10)[None, :, None]
    values *= 1 + 0.03 * np.exp(-(((np.arange(192) - 90) / 6) ** 2) / 2)[None, :, None]  # and a bump
    assert not screen(values, nothing(values))[0].any()
    missing = nothing(values)
    missing[:, [*range(5), *range(60, 75), 191]] = True
    np.testing.assert_array_equal(screen(values, missing)[0], missing)


def test_interference_is_seen_in_a_band_that_slopes_and_at_its_very_ends() -> None:
    values = gains(100, 192, 0.001) * (1 + 0.004 * np.arange(192))[None, :, None]
    lines = {0: 1.05, 1: 0.9, 70: 1.02, 71: 3.0, 120: 1.3, 191: 0.95}
    for c, factor in lines.items():
        values[:, c] *= factor
    flags, _ = screen(values, nothing(values))
    assert list(np.flatnonzero(flags.all((0, 2)))) == list(lines)
    assert flags.sum() == len(lines) * 200


def test_a_solution_off_the_template_is_flagged_from_seven_sigma_on() -> None:
    values = gains(noise=0.02)
    values[5, 3, 0] *= 1 + 0.02 * 10
    values[6, 4, 1] *= 1 - 0.02 * 10
    values[7, 5, 0] *= 1 + 0.02 * 3
    flags, dead = screen(values, nothing(values))
    assert [tuple(i) for i in np.argwhere(flags)] == [(5, 3, 0), (6, 4, 1)]
    assert dead == {}
    assert screen(values, nothing(values), sigma=20)[0].sum() == 0


@pytest.mark.parametrize("factor", [0.8, 1.3, 30.0])
def test_interference_in_all_antennas_is_flagged_in_its_channel(factor: float) -> None:
    values = gains()
    rng = np.random.default_rng(2)
    for c, k in ((0, 0), (9, 0), (10, 0), (15, 1)):
        values[:, c, k] *= factor * rng.lognormal(0, 0.01, 24)
    flags, dead = screen(values, nothing(values))
    expected = nothing(values)
    expected[:, [0, 9, 10], 0], expected[:, 15, 1] = True, True
    np.testing.assert_array_equal(flags, expected)
    assert dead == {}


def test_an_antenna_that_hears_nothing_is_flagged_and_named() -> None:
    values = gains()
    values[4] *= 0.01
    values[9, :, 1] *= 0.03
    flags, dead = screen(values, nothing(values))
    expected = nothing(values)
    expected[4], expected[9, :, 1] = True, True
    np.testing.assert_array_equal(flags, expected)
    assert sorted(dead) == [(4, 0), (4, 1), (9, 1)]
    assert all(why.startswith("its amplitude is ") for why in dead.values())


def test_a_strong_or_a_weak_antenna_is_none_that_is_dead() -> None:
    values = gains()
    values[4] *= 0.3
    values[5] *= 20
    assert not screen(values, nothing(values))[0].any()


def test_a_channel_that_more_than_half_of_the_antennas_lack_is_flagged() -> None:
    values = gains()
    flags = nothing(values)
    flags[:13, 2, 0] = True
    flags[:12, 3, 0] = True
    found, _ = screen(values, flags)
    assert found[:, 2, 0].all()
    np.testing.assert_array_equal(found[:, 3], flags[:, 3])
    np.testing.assert_array_equal(found[:, 2, 1], False)
    np.testing.assert_array_equal(screen(values, flags, max_missing_share=0.6)[0], flags)


def test_dead_antennas_do_not_count_among_those_that_lack_a_channel() -> None:
    values = gains()
    flags = nothing(values)
    flags[:10] = True
    flags[10:15, 2, 0] = True  # 5 of 14
    np.testing.assert_array_equal(screen(values, flags)[0], flags)


def test_an_antenna_of_which_most_is_off_is_flagged_and_named() -> None:
    values = gains()
    values[3, :, 0] *= np.random.default_rng(2).lognormal(0, 2, 16)
    flags, dead = screen(values, nothing(values))
    assert flags[3, :, 0].all()
    assert not flags[3, :, 1].any()
    assert flags.sum() == 16
    assert dead == {(3, 0): "most of its solutions are missing, or off those of the others"}


def test_what_is_flagged_stays_so_and_the_input_is_left_alone() -> None:
    values = gains()
    flags = np.random.default_rng(3).uniform(size=values.shape) < 0.1
    values[flags] *= 1e6  # what is flagged may be anything
    before = flags.copy()
    found, _ = screen(values, flags)
    np.testing.assert_array_equal(found, before)
    np.testing.assert_array_equal(flags, before)


@pytest.mark.filterwarnings("error")
def test_everything_flagged_is_no_trouble() -> None:
    values = gains()
    flags, dead = screen(values, ~nothing(values))
    assert flags.all()
    assert dead == {}
    half = nothing(values)
    half[..., 0] = True
    np.testing.assert_array_equal(screen(values, half)[0], half)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.nan, np.inf, 0])
def test_what_is_no_number_or_zero_is_flagged(value: float) -> None:
    values = gains()
    values[5, 3, 0] = value
    values[7, :, 1] = value
    flags, _ = screen(values, nothing(values))
    expected = nothing(values)
    expected[5, 3, 0], expected[7, :, 1] = True, True
    np.testing.assert_array_equal(flags, expected)


def test_a_weak_antenna_may_scatter_as_its_errors_say_and_no_more() -> None:
    flagged, told = [], []
    for seed in range(20):
        values = gains(noise=0.02, seed=seed)
        errors = 0.02 * np.abs(values)
        rng = np.random.default_rng(seed)
        values[8] *= 0.3 * (1 + 0.1 * (rng.standard_normal((16, 2)) + 1j * rng.standard_normal((16, 2))))
        errors[8] = 0.1 * np.abs(values[8])
        flagged.append(screen(values, nothing(values), errors)[0].mean())
        told.append(screen(values, nothing(values))[0][8].mean())
        values[8, 3, 0] *= 3
        errors[8, 3, 0] *= 30  # as of a sample that is off: it does not excuse itself
        assert screen(values, nothing(values), errors)[0][8, 3, 0]
    assert np.mean(flagged) < 1e-3
    assert np.mean(told) > 0.05
