"""The reference antenna: which one is taken, and what becomes of the others."""

from __future__ import annotations

import numpy as np
import pytest

from orca.calibration.reference import choose_reference, common_reference, not_connected, refer
from orca.calibration.tables import Solutions, make_solutions

PLACES = np.column_stack([np.arange(24.0), np.zeros(24), np.zeros(24)])  # in a row: 11 and 12 are in the middle


def no_flags(channels: int = 16) -> np.ndarray:
    return np.zeros((24, channels, 2), bool)


def gains(seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(0.5, 2, (24, 1, 2)) * np.exp(2j * np.pi * rng.uniform(0, 1, (24, 16, 2)))


def test_the_wanted_antenna_is_taken_as_long_as_it_has_half_of_the_solutions() -> None:
    flags = no_flags()
    flags[3, :8] = True
    assert choose_reference(flags, PLACES, 3) == 3
    flags[3, 8, 0] = True
    assert choose_reference(flags, PLACES, 3) in (11, 12)


def test_channels_that_nobody_has_do_not_count() -> None:
    flags = no_flags()
    flags[:, :12] = True
    assert choose_reference(flags, PLACES, 3) == 3


def test_another_one_is_complete_and_in_the_middle_of_those_that_work() -> None:
    flags = no_flags()
    flags[10:14, 0, 0] = True
    assert choose_reference(flags, PLACES, None) in (9, 14)
    flags[:12] = True
    flags[17, 3] = True
    assert choose_reference(flags, PLACES, 5) in (16, 18)


def test_an_antenna_with_one_polarization_is_none() -> None:
    flags = no_flags()
    flags[3, :, 1] = True
    assert choose_reference(flags, PLACES, 3) != 3
    flags[:20, :, 1] = True
    assert choose_reference(flags, PLACES, 3) in (21, 22)


def test_where_a_polarization_has_no_solutions_at_all_the_other_one_decides() -> None:
    flags = no_flags()
    flags[..., 1] = True
    assert choose_reference(flags, PLACES, 3) == 3
    flags[3] = True
    assert choose_reference(flags, PLACES, 3) in (11, 12)


def test_where_nobody_has_both_there_is_none() -> None:
    flags = no_flags()
    flags[:12, :, 0], flags[12:, :, 1] = True, True
    assert choose_reference(flags, PLACES, 3) is None
    assert choose_reference(~no_flags(), PLACES, 3) is None
    assert choose_reference(~no_flags(), PLACES, None) is None


def test_all_phases_are_relative_to_the_reference_antenna() -> None:
    values = gains()
    found = refer(values, no_flags(), 5)
    np.testing.assert_allclose(found[5].imag, 0, atol=1e-12)
    assert (found[5].real > 0).all()
    np.testing.assert_allclose(np.abs(found), np.abs(values))
    np.testing.assert_allclose(found[3] * found[8].conj(), values[3] * values[8].conj())


def test_a_channel_that_the_reference_lacks_is_aligned_with_the_nearest_that_it_has() -> None:
    rng = np.random.default_rng(2)
    smooth = rng.uniform(0.5, 2, (24, 1, 2)) * np.exp(2j * np.pi * rng.uniform(0, 1, (24, 1, 2)))
    smooth = np.repeat(smooth, 16, 1)
    values = smooth * np.exp(2j * np.pi * rng.uniform(0, 1, (1, 16, 2)))  # any common phase in each channel
    flags = no_flags()
    flags[5, [0, 7, 8], 0] = True
    flags[4, 7, 0], flags[6, 6, 0] = True, True
    values[flags] = 1e6
    found = refer(values, flags, 5)
    expected = smooth * np.exp(-1j * np.angle(smooth[5]))
    np.testing.assert_allclose(found[~flags], expected[~flags])


def window(values: np.ndarray, flags: np.ndarray, reference: int, first_hz: float = 73e6) -> Solutions:
    return make_solutions(
        "B Jones",
        refer(values, flags, reference),
        time_s=5e9,
        antenna_names=tuple(f"LWA{i:03d}" for i in range(24)),
        frequency_hz=first_hz + 23925.78125 * np.arange(16),
        channel_width_hz=23925.78125,
        flags=flags,
        reference_antenna=reference,
    )


def test_windows_get_a_reference_that_each_of_them_has() -> None:
    first, second, third = (gains(seed) for seed in range(3))
    lacking = no_flags()
    lacking[5] = True  # the reference of the first window has nothing in the third, and a third of all is little
    windows = [window(first, no_flags(), 5), window(second, no_flags(), 5), window(third, lacking, 11)]
    found = common_reference(windows, PLACES, 5)
    assert found is not None
    common, referred = found
    assert common != 5
    for one, values in zip(referred, (first, second, third), strict=True):
        assert one.reference_antenna == common
        expected = refer(values, no_flags(), common)
        good = ~one.flags[0]
        np.testing.assert_allclose(one.values[0][good], expected[good], atol=1e-6)


def test_windows_without_a_common_antenna_have_no_common_reference() -> None:
    low, high = no_flags(), no_flags()
    low[:12], high[12:] = True, True
    assert common_reference([window(gains(), low, 15), window(gains(), high, 5)], PLACES, 15) is None


def test_a_polarization_that_is_missing_in_one_window_alone_does_not_matter() -> None:
    one = no_flags()
    one[..., 1] = True
    found = common_reference([window(gains(), one, 4), window(gains(2), no_flags(), 5)], PLACES, 5)
    assert found is not None
    assert found[0] == 5


@pytest.mark.parametrize(
    ("pairs", "alive", "expected"),
    [
        ([(0, 1), (1, 2), (3, 4)], (0, 1, 2, 3, 4), [3, 4]),
        ([(0, 1), (2, 3), (3, 4), (4, 5)], (0, 1, 2, 3, 4, 5), [0, 1]),
        ([(4, 5), (3, 5), (2, 3), (1, 2), (0, 1)], (0, 1, 2, 3, 4, 5), []),
        ([(0, 1), (1, 2), (2, 3), (3, 4)], (0, 1, 3, 4, 5), None),  # 2 connects nothing: two pairs and one alone
        ([], (), []),
    ],
)
def test_what_no_chain_of_baselines_connects_with_the_largest_group(
    pairs: list[tuple[int, int]], alive: tuple[int, ...], expected: list[int] | None
) -> None:
    first, second = np.triu_indices(6, 1)
    joined = np.array([(p, q) in pairs for p, q in zip(first, second, strict=True)])
    found = list(not_connected(first, second, joined, np.isin(np.arange(6), alive)))
    if expected is None:
        assert found in ([0, 1, 5], [3, 4, 5])
    else:
        assert found == expected
