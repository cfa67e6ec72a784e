"""Averaging of channels, beside plain numpy."""

from __future__ import annotations

import numpy as np
import pytest

from orca.averaging import average_block


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 12])
def test_the_mean_is_of_what_is_not_flagged(factor: int) -> None:
    rng = np.random.default_rng(factor)
    data = (rng.normal(size=(7, 12, 4)) + 1j * rng.normal(size=(7, 12, 4))).astype(np.complex64)
    flag = rng.random((7, 12, 4)) < 0.4
    flag[0], flag[1] = True, False
    mean, empty, weight = average_block(data, flag, factor)
    parts, good = data.reshape(7, -1, factor, 4), ~flag.reshape(7, -1, factor, 4)
    count = good.sum(2)
    expected = np.where(count > 0, (parts * good).sum(2) / np.maximum(count, 1), parts.mean(2))
    np.testing.assert_allclose(mean, expected, rtol=2e-6, atol=2e-7)
    np.testing.assert_array_equal(empty, count == 0)
    some = (count > 0).sum(1)
    np.testing.assert_allclose(weight, np.where(some > 0, count.sum(1) / np.maximum(some, 1), 0), rtol=1e-6)


def test_flagged_samples_count_for_nothing_whatever_they_are() -> None:
    data = np.ones((1, 4, 1), np.complex64)
    data[0, 1] = np.nan
    data[0, 2] = 1e30
    flag = np.zeros(data.shape, bool)
    flag[0, 1:3] = True
    mean, empty, weight = average_block(data, flag, 4)
    assert (mean[0, 0, 0], empty.any(), weight[0, 0]) == (1, False, 2)
