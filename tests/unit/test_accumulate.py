"""Sums over the data of Measurement Sets, beside explicit sums in double precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from casacore import tables as ct

from orca.calibration import accumulate as accumulate_module
from orca.calibration.accumulate import Accumulator, Sums, empty_sums
from orca.errors import InvalidDataError, MismatchError, TruncatedDataError
from orca.ms.blocks import Ring
from orca.ms.create import create_like
from orca.ms.info import MsInfo
from orca.ms.inspect import inspect
from orca.sky import SkyModel, sky_model
from orca.telescope import lmn

START = datetime(2026, 1, 10, 20, 31, tzinfo=UTC)
EVERYTHING = (0.0, np.inf)
C_M_S = 299792458.0


def column(path: Path, name: str) -> np.ndarray:
    with ct.table(str(path), ack=False) as table:
        return table.getcol(name)


def put(path: Path, **columns: np.ndarray) -> None:
    with ct.table(str(path), readonly=False, ack=False) as table:
        for name, values in columns.items():
            table.putcol(name, values)


def test_rows_with_flag_row_do_not_count(copy_ms: Callable[..., Path]) -> None:
    ms = copy_ms(start=START)
    rows = column(ms, "FLAG_ROW")
    rows[[0, 1, 30]] = True  # an autocorrelation and two baselines
    put(ms, FLAG_ROW=rows)
    sums = summed([ms])
    first, second = (column(ms, name)[[1, 30]] for name in ("ANTENNA1", "ANTENNA2"))
    empty = ~sums.mm.any((1, 2))
    assert {(sums.first[b], sums.second[b]) for b in np.flatnonzero(empty)} == set(zip(first, second, strict=True))
    assert sums.samples[:, 0, 0].tolist() == [0.0, *[1.0] * 23]


def model_of(ms: Path) -> SkyModel:
    info = inspect(ms, settle_s=0)
    return sky_model(float(info.time_s.mean()), info.freq_hz)


def summed(sets: list[Path], uv_range: tuple[float, float] = EVERYTHING) -> Sums:
    sums = empty_sums(inspect(sets[0], settle_s=0))
    for ms in sets:
        accumulate(sums, inspect(ms, settle_s=0), model_of(ms), uv_range)
    return sums


def accumulate(sums: Sums, info: MsInfo, sky: SkyModel, uv_range: tuple[float, float]) -> None:
    with Accumulator(sums) as adding:
        adding.add(info, sky, uv_range)


def test_sets_added_in_one_go_make_the_same_sums_as_one_by_one(simulations: Callable[..., list[Path]]) -> None:
    """More rows than buffers, so that these are used again while earlier ones wait."""
    sets = simulations(integrations=3, antennas=40, channels=4)
    together = empty_sums(inspect(sets[0], settle_s=0))
    with Accumulator(together) as adding:
        adding._ring = Ring(accumulate_module._AHEAD + 1, rows=16)
        for ms in sets:
            adding.add(inspect(ms, settle_s=0), model_of(ms), EVERYTHING)
    apart = summed(sets)
    for name in ("vm", "mm", "power", "samples"):
        assert np.array_equal(getattr(together, name), getattr(apart, name)), name
    assert together.time_s == apart.time_s
    assert together.mm.all()


def explicit(sets: list[Path], hands: tuple[int, int] = (0, 3), uv_range: tuple[float, float] = EVERYTHING) -> tuple:
    """sum V M* and sum |M|^2, (n_antennas, n_antennas, n_channels, 2): row by row, in float64, from the columns."""
    n_antennas = len(column(sets[0] / "ANTENNA", "NAME"))
    frequency = column(sets[0] / "SPECTRAL_WINDOW", "CHAN_FREQ")[0]
    vm = np.zeros((n_antennas, n_antennas, frequency.size, 2), complex)
    mm = np.zeros(vm.shape)
    for ms in sets:
        sky = model_of(ms)
        l, m, n = lmn(sky.ra_rad, sky.dec_rad, *column(ms / "FIELD", "PHASE_DIR")[0, 0])
        first, second, uvw = (column(ms, name) for name in ("ANTENNA1", "ANTENNA2", "UVW"))
        data, flag = column(ms, "DATA"), column(ms, "FLAG")
        for row, (p, q) in enumerate(zip(first, second, strict=True)):
            length = np.sqrt(uvw[row, 0] ** 2 + uvw[row, 1] ** 2) * frequency.mean() / C_M_S
            if p == q or not uv_range[0] < length < uv_range[1]:
                continue
            metres = uvw[row, 0] * l + uvw[row, 1] * m + uvw[row, 2] * (n - 1)
            phase = np.exp(2j * np.pi * metres[:, None] * frequency / C_M_S)
            for k, hand in enumerate(hands):
                model = (sky.flux_jy[:, :, k] * phase).sum(0)
                values = data[row, :, hand].astype(complex)
                good = ~flag[row, :, hand] & (values != 0) & np.isfinite(values)
                product = np.where(good, values, 0) * model.conj()
                vm[min(p, q), max(p, q), :, k] += product if p < q else product.conj()
                mm[min(p, q), max(p, q), :, k] += np.where(good, np.abs(model) ** 2, 0)
    return vm, mm


def assert_equal_sums(sums: Sums, expected: tuple) -> None:
    vm, mm = (array[sums.first, sums.second] for array in expected)
    assert np.abs(sums.vm - vm).max() < 1e-6 * np.abs(vm).max()
    np.testing.assert_allclose(sums.mm, mm, rtol=1e-5, atol=1e-6 * mm.max())
    np.testing.assert_array_equal(sums.mm == 0, mm == 0)


def test_each_set_is_multiplied_with_the_model_of_its_own_time_and_phase_centre(
    simulations: Callable[..., list[Path]],
) -> None:
    sets = simulations(integrations=30, start=START)
    sets = [sets[0], sets[12], sets[29]]  # over these five minutes the zenith moves by more than a degree
    centres = [inspect(ms, settle_s=0).phase_centre_rad[0] for ms in sets]
    assert np.ptp(centres) > np.radians(1)
    sums = summed(sets)
    assert_equal_sums(sums, explicit(sets))
    assert sums.time_s == [inspect(ms, settle_s=0).time_s[0] for ms in sets]
    assert len(model_of(sets[0]).names) > 1


def test_the_range_of_uv_is_true_on_both_sides_and_w_does_not_count(copy_ms: Callable[..., Path]) -> None:
    ms = copy_ms(start=START)
    uvw = column(ms, "UVW")
    uvw[:, 2] += np.random.default_rng(3).uniform(-200, 200, len(uvw))  # from the zenith there is hardly any
    put(ms, UVW=uvw)
    sums = summed([ms], (10.0, 60.0))
    assert_equal_sums(sums, explicit([ms], uv_range=(10.0, 60.0)))
    there = (sums.mm > 0).all((1, 2))
    assert 0.1 < there.mean() < 0.9


def test_flags_zeros_and_what_is_not_finite_are_left_out(copy_ms: Callable[..., Path]) -> None:
    ms = copy_ms(start=START)
    data, flag = column(ms, "DATA"), column(ms, "FLAG")
    rng = np.random.default_rng(1)
    flag |= rng.uniform(size=flag.shape) < 0.1
    for value in (0, np.nan, np.inf, complex(1, np.nan), complex(np.inf, 0)):
        data[rng.uniform(size=data.shape) < 0.01] = value
    data[flag] = 1e9
    put(ms, DATA=data, FLAG=flag)
    sums = summed([ms])
    assert_equal_sums(sums, explicit([ms]))
    assert np.isfinite(sums.vm).all()


def test_the_order_of_the_antennas_in_a_row_does_not_matter(copy_ms: Callable[..., Path]) -> None:
    ms = copy_ms(start=START)
    before = summed([ms])
    first, second = column(ms, "ANTENNA1"), column(ms, "ANTENNA2")
    turned = np.random.default_rng(2).uniform(size=first.size) < 0.5
    uvw, data = column(ms, "UVW"), column(ms, "DATA")
    uvw[turned] *= -1
    data[turned] = data[turned].conj()
    put(ms, ANTENNA1=np.where(turned, second, first), ANTENNA2=np.where(turned, first, second), UVW=uvw, DATA=data)
    sums = summed([ms])
    assert np.abs(sums.vm - before.vm).max() < 1e-6 * np.abs(before.vm).max()
    np.testing.assert_allclose(sums.mm, before.mm, rtol=1e-6)
    assert_equal_sums(sums, explicit([ms]))


def test_data_of_two_correlations_serve_as_well_as_those_of_four(make_ms: Callable[..., Path], tmp_path: Path) -> None:
    ms = make_ms(start=START)
    with create_like(ms, tmp_path / "xxyy.ms", correlations=(0, 3)) as table:
        table.putcol("DATA", np.ascontiguousarray(column(ms, "DATA")[:, :, [0, 3]]))
        table.putcol("FLAG", np.ascontiguousarray(column(ms, "FLAG")[:, :, [0, 3]]))
    whole, half = summed([ms]), summed([tmp_path / "xxyy.ms"])
    np.testing.assert_array_equal(half.vm, whole.vm)
    np.testing.assert_array_equal(half.power, whole.power)
    with create_like(ms, tmp_path / "xx.ms", correlations=(0,)) as table:
        table.putcol("DATA", np.ascontiguousarray(column(ms, "DATA")[:, :, [0]]))
        table.putcol("FLAG", np.ascontiguousarray(column(ms, "FLAG")[:, :, [0]]))
    with pytest.raises(InvalidDataError, match="lacks XX or YY"):
        summed([tmp_path / "xx.ms"])


def test_autocorrelations_are_averaged_without_flags_and_zeros(copy_ms: Callable[..., Path]) -> None:
    ms = copy_ms(start=START)
    rows = np.flatnonzero(column(ms, "ANTENNA1") == column(ms, "ANTENNA2"))
    data, flag = column(ms, "DATA"), column(ms, "FLAG")
    plain = data[rows][:, :, [0, 3]].real.astype(float)
    data[rows[4], 3, 0], flag[rows[5], 2, 3], data[rows[6], 1, 0] = 0, True, np.nan
    put(ms, DATA=data, FLAG=flag)
    sums = empty_sums(inspect(ms, settle_s=0))
    for _ in range(2):
        accumulate(sums, inspect(ms, settle_s=0), model_of(ms), (10.0, 60.0))
    expected = plain.copy()
    expected[4, 3, 0], expected[5, 2, 1], expected[6, 1, 0] = np.nan, np.nan, np.nan
    np.testing.assert_allclose(sums.autocorrelation, expected, rtol=1e-12)
    assert set(np.unique(sums.samples)) == {0, 2}


def test_memory_does_not_grow_with_the_number_of_sets(simulations: Callable[..., list[Path]]) -> None:
    sets = simulations(integrations=3, start=START)
    sums = empty_sums(inspect(sets[0], settle_s=0))
    arrays = [sums.vm, sums.mm, sums.power, sums.samples]
    for ms in sets:
        accumulate(sums, inspect(ms, settle_s=0), model_of(ms), EVERYTHING)
    assert all(now is then for now, then in zip((sums.vm, sums.mm, sums.power, sums.samples), arrays, strict=True))
    assert sums.vm.nbytes + sums.mm.nbytes == 276 * 16 * 2 * 12


def test_another_array_or_subband_is_refused_and_nothing_is_added(
    make_ms: Callable[..., Path], simulations: Callable[..., list[Path]]
) -> None:
    ms = make_ms(start=START)
    sums = summed([ms])
    before = sums.vm.copy()
    for other in (make_ms(start=START, antennas=20), make_ms(start=START, subbands=("55MHz",))):
        with pytest.raises(MismatchError, match="other antennas or channels than"):
            accumulate(sums, inspect(other, settle_s=0), model_of(other), EVERYTHING)
    np.testing.assert_array_equal(sums.vm, before)
    assert len(sums.time_s) == 1


def test_channels_with_a_gap_are_refused(make_ms: Callable[..., Path]) -> None:
    """The kernel turns the phase of a source by the same angle from one channel to the next."""
    ms = make_ms(start=START)
    frequency = np.delete(np.arange(17), 5) * 23925.78125 + 73e6
    info = replace(inspect(ms, settle_s=0), freq_hz=frequency)
    with pytest.raises(InvalidDataError, match="not evenly spaced"):
        accumulate(empty_sums(info), info, sky_model(info.time_s[0], frequency), EVERYTHING)


def test_a_single_channel_is_fine(make_ms: Callable[..., Path]) -> None:
    ms = make_ms(start=START, channels=1)
    assert_equal_sums(summed([ms]), explicit([ms]))


def test_a_file_that_ends_early_is_an_error(copy_ms: Callable[..., Path]) -> None:
    ms = copy_ms(start=START, channels=96)
    info, sky = inspect(ms, settle_s=0), model_of(ms)
    largest = max(ms.glob("table.f*"), key=lambda file: file.stat().st_size)
    with largest.open("r+b") as file:
        file.truncate(largest.stat().st_size // 2)
    with pytest.raises(TruncatedDataError):
        accumulate(empty_sums(info), info, sky, EVERYTHING)
