"""Delays from gains: the simulator's own ones, with its noise, and lines whose errors are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from orca import telescope
from orca.calibration.delays import fit_delays
from orca.calibration.tables import Solutions, make_solutions
from orca.errors import InvalidDataError, MismatchError
from orca.ms import synthetic

BANDS = [band for band in telescope.SUBBANDS if band.first_channel_hz > 40e6]
SNR_OF_A_SUBBAND = 1 / 0.03
"""Of one solution of 24 antennas in one integration; 352 antennas have four times as much."""


def windows(
    *, antennas: int = 24, channels: int = 192, noise: float = 1 / SNR_OF_A_SUBBAND, left_out: tuple[str, ...] = ()
) -> list[Solutions]:
    """The simulator's gains with noise, relative to antenna 0."""
    array = synthetic.antennas(antennas)
    rng = np.random.default_rng(1)
    found = []
    for band in BANDS:
        values = synthetic.gains(array.index, band, band.frequencies_hz(channels), 0)
        values *= 1 + noise * (rng.standard_normal(values.shape) + 1j * rng.standard_normal(values.shape))
        if band.name not in left_out:
            found.append(a_window(values * np.exp(-1j * np.angle(values[:1])), band, array.names))
    return found


def a_window(values: np.ndarray, band: telescope.Subband, names: tuple[str, ...]) -> Solutions:
    return make_solutions(
        "B Jones",
        values,
        time_s=5e9,
        antenna_names=names,
        frequency_hz=band.frequencies_hz(values.shape[1]),
        channel_width_hz=telescope.CHANNEL_WIDTH_HZ,
        reference_antenna=0,
    )


def lines(delays_ns: np.ndarray, noise_rad: float | np.ndarray, seed: int = 1, channels: int = 96) -> list[Solutions]:
    """Gains (n_antennas, 2) that are nothing but a delay, an offset, and noise of the phase."""
    rng = np.random.default_rng(seed)
    offset = rng.uniform(0, 2 * np.pi, delays_ns.shape)[:, None]
    names = tuple(f"LWA{i + 1:03d}" for i in range(len(delays_ns)))
    found = []
    for band in BANDS:
        frequency = band.frequencies_hz(channels)
        phase = 2e-9 * np.pi * delays_ns[:, None] * frequency[None, :, None] + offset
        phase = phase + noise_rad * rng.standard_normal(phase.shape)
        found.append(a_window(np.exp(1j * phase), band, names))
    return found


def truth(antennas: int = 24) -> np.ndarray:
    delays = synthetic.delays_ns(synthetic.antennas(antennas).index, 0)
    return delays - delays[:1]


@pytest.mark.parametrize("channels", [192, 16])
def test_delays_are_those_of_the_truth_within_a_tenth_of_a_nanosecond(channels: int) -> None:
    found = fit_delays(windows(channels=channels))
    assert not found.flags.any()
    off = found.values_ns - truth()
    assert np.sqrt(np.mean(off**2)) < 0.1
    np.testing.assert_allclose(found.values_ns[0], 0, atol=1e-12)
    assert found.frequency_hz.size == len(BANDS) * channels


@pytest.mark.parametrize("left_out", [("59MHz",), ("41MHz", "82MHz"), ("46MHz", "50MHz", "64MHz")])
def test_missing_subbands_cost_little(left_out: tuple[str, ...]) -> None:
    """The bend of the simulated phases is no longer orthogonal to a line; 3 ns are a 30th of a turn at 10 MHz."""
    found = fit_delays(windows(left_out=left_out))
    assert found.frequency_hz.size == (len(BANDS) - len(left_out)) * 192
    assert not found.flags.any()
    assert np.sqrt(np.mean((found.values_ns - truth()) ** 2)) < 1.5
    straight = np.random.default_rng(2).normal(0, 20, (24, 2))
    some = [w for w, band in zip(lines(straight, 0.1), BANDS, strict=True) if band.name not in left_out]
    assert np.sqrt(np.mean((fit_delays(some).values_ns - straight) ** 2)) < 0.1


def test_phases_that_turn_many_times_are_followed() -> None:
    delays = np.random.default_rng(3).uniform(-2000, 2000, (24, 2))
    found = fit_delays(lines(delays, 0.2))
    np.testing.assert_allclose(found.values_ns, delays, atol=0.4)
    one = fit_delays(lines(delays, 0.1)[4:5])  # a single subband
    np.testing.assert_allclose(one.values_ns, delays, atol=50)


def test_errors_are_the_scatter_over_many_realisations() -> None:
    delays = np.zeros((500, 2))
    for noise in (0.05, 0.4):
        found = fit_delays(lines(delays, noise)[:2])
        scatter = np.sqrt(np.mean(found.values_ns**2))
        assert np.sqrt(np.mean(found.errors_ns**2)) == pytest.approx(scatter, rel=0.06)
        assert found.coherence.mean() == pytest.approx(np.exp(-(noise**2) / 2), rel=0.01)


def test_errors_include_the_noise_of_the_reference_antenna() -> None:
    noise = np.array([0.3, 0.1, 0.3, 0.6])[:, None, None]  # of the first, which is the reference, and of others
    found = []
    for seed in range(150):
        made = lines(np.zeros((4, 2)), noise, seed)[:2]
        found.append(fit_delays([replace(w, values=w.values * w.values[:, :1].conj()) for w in made]))
    scatter = np.sqrt(np.mean([delays.values_ns**2 for delays in found], axis=(0, 2)))[1:]
    reported = np.sqrt(np.mean([delays.errors_ns**2 for delays in found], axis=(0, 2)))[1:]
    np.testing.assert_allclose(reported, scatter, rtol=0.15)


def test_an_antenna_whose_phases_are_random_is_flagged() -> None:
    made = lines(np.zeros((200, 2)), 0.1, channels=4)
    rng = np.random.default_rng(4)
    for w in made:
        w.values[0, 50:, :, 0] *= np.exp(2j * np.pi * rng.uniform(0, 1, (150, 4)))
    found = fit_delays(made)
    assert found.flags[50:, 0].all()
    assert not found.flags[:50].any()
    assert not found.flags[50:, 1].any()
    assert (found.values_ns[50:, 0] == 0).all()


def test_an_antenna_with_few_channels_needs_a_clear_line() -> None:
    made = lines(np.full((200, 2), 30.0), 0.2, channels=30)[:1]
    rng = np.random.default_rng(4)
    for w in made:
        w.values[0, 100:] *= np.exp(2j * np.pi * rng.uniform(0, 1, (100, 30, 2)))
    found = fit_delays(made)
    assert found.flags[100:].all()
    assert not found.flags[:100].any()
    np.testing.assert_allclose(found.values_ns[:100], 30, atol=150)


@pytest.mark.parametrize("min_coherence", [0.5, 0.0])
def test_an_antenna_with_too_few_channels_is_flagged(min_coherence: float) -> None:
    made = lines(np.zeros((24, 2)), 0.1)
    for number, w in enumerate(made):
        w.flags[0, 3, :, 0] = True
        w.flags[0, 4, :, 0] = number > 0
        w.flags[0, 4, 24:, 0] = True  # 24 are left, and 23
        w.flags[0, 5, 23:, 1] = True
        w.flags[0, 5, :, 1] |= number > 0
    found = fit_delays(made, min_coherence)
    assert [tuple(i) for i in np.argwhere(found.flags)] == [(3, 0), (5, 1)]
    assert found.errors_ns[3, 0] == 0


def test_flagged_solutions_do_not_count_whatever_they_hold() -> None:
    delays = np.random.default_rng(5).normal(0, 20, (24, 2))
    made = lines(delays, 0.05)
    rng = np.random.default_rng(6)
    for w in made:
        bad = rng.uniform(size=w.values.shape) < 0.2
        w.values[bad] = 1e9 * np.exp(2j * np.pi * rng.uniform(0, 1, bad.sum()))
        w.flags[bad] = True
        w.values[0, 7, 3] = 0
    np.testing.assert_allclose(fit_delays(made).values_ns, delays, atol=0.1)


def test_windows_may_come_in_any_order() -> None:
    made = lines(np.random.default_rng(5).normal(0, 20, (24, 2)), 0.05)
    np.testing.assert_allclose(fit_delays(made[::-1]).values_ns, fit_delays(made).values_ns, atol=1e-9)


def test_windows_that_do_not_belong_together_are_refused() -> None:
    one, other, *_ = lines(np.zeros((24, 2)), 0.1)
    with pytest.raises(InvalidDataError, match="no solutions"):
        fit_delays([])
    with pytest.raises(MismatchError, match="different arrays"):
        fit_delays([one, replace(other, antenna_names=other.antenna_names[::-1])])
    with pytest.raises(MismatchError, match="referred to different antennas"):
        fit_delays([one, replace(other, reference_antenna=3)])
