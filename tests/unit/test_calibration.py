"""Calibration tables and their application, against the simulator's truth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from casacore import tables as ct

from orca import telescope
from orca.calibration.apply import jones
from orca.calibration.tables import Solutions, make_solutions, read_table, write_table
from orca.errors import InputError, InvalidDataError, MismatchError, MissingDataError
from orca.ms.simulate import SimulationOptions, simulate
from orca.ms.stage import stage
from orca.ms.truth import truth_paths

SMALL = {"antennas": 24, "channels": 16, "noise": 0.0}


@pytest.fixture(scope="module")
def corrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corrupted")
    simulate(root, SimulationOptions(**SMALL))
    return root


@pytest.fixture(scope="module")
def ms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With noise: without, XY and YX are zero, and zeros are flagged."""
    [path] = simulate(tmp_path_factory.mktemp("noisy"), SimulationOptions(antennas=24, channels=16))
    return path


@pytest.fixture(scope="module")
def true_ms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    [path] = simulate(tmp_path_factory.mktemp("true"), SimulationOptions(**SMALL, gains=False))
    return path


@pytest.fixture(scope="module")
def tables(corrupted: Path) -> list[Path]:
    truth = truth_paths(corrupted, "73MHz")
    return [truth.delay, truth.bandpass]


def column(path: Path, name: str) -> np.ndarray:
    with ct.table(str(path), ack=False) as table:
        return table.getcol(name)


def cross(path: Path) -> np.ndarray:
    return column(path, "ANTENNA1") != column(path, "ANTENNA2")


def bandpass(ms: Path, **changes: object) -> Solutions:
    names = tuple(column(ms / "ANTENNA", "NAME"))
    frequency = column(ms / "SPECTRAL_WINDOW", "CHAN_FREQ")[0]
    rng = np.random.default_rng(3)
    values = 1 + 0.3 * (rng.standard_normal((24, 16, 2)) + 1j * rng.standard_normal((24, 16, 2)))
    solutions = make_solutions(
        "B Jones", values, time_s=5e9, antenna_names=names, frequency_hz=frequency, channel_width_hz=23925.78125
    )
    return replace(solutions, **changes)


def test_applying_the_true_tables_gives_the_true_visibilities(
    corrupted: Path, true_ms: Path, tables: list[Path], tmp_path: Path
) -> None:
    ms = next(corrupted.glob("73MHz/*/*/*.ms"))
    stage([ms], tmp_path / "out.ms", tables=tables)
    rows = cross(ms)
    truth, raw, found = (column(p, "DATA")[rows] for p in (true_ms, ms, tmp_path / "out.ms"))
    assert np.abs(raw - truth).max() > 0.1 * np.abs(truth).max()
    assert np.abs(found - truth).max() < 1e-5 * np.abs(truth).max()


def test_what_is_written_is_read_again(ms: Path, tmp_path: Path) -> None:
    flags = np.zeros((1, 24, 16, 2), bool)
    flags[0, 3, 5, 1] = True
    written = bandpass(ms, flags=flags, reference_antenna=7)
    write_table(tmp_path / "b", written, ms)
    [read] = read_table(tmp_path / "b")
    np.testing.assert_array_equal(read.values, written.values)
    np.testing.assert_array_equal(read.flags, flags)
    np.testing.assert_allclose(read.frequency_hz, written.frequency_hz)
    assert (read.kind, read.reference_antenna, read.antenna_names) == ("B Jones", 7, written.antenna_names)


def test_a_flagged_solution_flags_exactly_the_correlations_that_need_it(ms: Path, tmp_path: Path) -> None:
    flags = np.zeros((1, 24, 16, 2), bool)
    flags[0, 3, 5, 1] = True  # Y of antenna 3 in channel 5
    write_table(tmp_path / "b", bandpass(ms, flags=flags), ms)
    stage([ms], tmp_path / "out.ms", tables=[tmp_path / "b"])
    flag = column(tmp_path / "out.ms", "FLAG")
    first, second = column(ms, "ANTENNA1") == 3, column(ms, "ANTENNA2") == 3
    expected = np.zeros(flag.shape, bool)
    expected[first, 5, 2:] = True  # YX and YY
    expected[second, 5, 1] = True  # XY and YY
    expected[second, 5, 3] = True
    np.testing.assert_array_equal(flag, expected)


def test_antennas_are_matched_by_name_not_by_number(ms: Path, tmp_path: Path) -> None:
    solutions = bandpass(ms)
    write_table(tmp_path / "b", solutions, ms)
    order = np.random.default_rng(1).permutation(24)
    with ct.table(str(tmp_path / "b"), readonly=False, ack=False) as table:
        for name in ("CPARAM", "FLAG"):
            table.putcol(name, table.getcol(name)[order])
    with ct.table(str(tmp_path / "b" / "ANTENNA"), readonly=False, ack=False) as table:
        dashed = [f"{name[:3]}-{name[3:]}" for name in np.array(table.getcol("NAME"))[order]]
        table.putcol("NAME", dashed)
    found = jones([tmp_path / "b"], solutions.antenna_names, solutions.frequency_hz, 23925.78125, 5e9)
    np.testing.assert_allclose(found.gains, solutions.values[0], rtol=1e-6)


def test_of_several_times_the_nearest_counts(ms: Path, tmp_path: Path) -> None:
    one = bandpass(ms)
    several = replace(
        one,
        time_s=np.array([5e9, 5e9 + 600]),
        values=np.concatenate([one.values, 2 * one.values]),
        flags=np.zeros((2, 24, 16, 2), bool),
        snr=np.ones((2, 24, 16, 2), np.float32),
        errors=np.ones((2, 24, 16, 2), np.float32),
    )
    write_table(tmp_path / "b", several, ms)
    for time_s, factor in ((5e9 + 290, 1), (5e9 + 310, 2)):
        found = jones([tmp_path / "b"], one.antenna_names, one.frequency_hz, 23925.78125, time_s)
        np.testing.assert_allclose(found.gains, factor * one.values[0], rtol=1e-6)


def test_wide_channels_take_the_mean_of_the_unflagged_solutions_inside(ms: Path, tmp_path: Path) -> None:
    flags = np.zeros((1, 24, 16, 2), bool)
    flags[0, :, 0] = True
    flags[0, :, 4:8] = True
    one = bandpass(ms, flags=flags)
    write_table(tmp_path / "b", one, ms)
    wide = one.frequency_hz.reshape(4, 4).mean(1)
    found = jones([tmp_path / "b"], one.antenna_names, wide, 4 * 23925.78125, 5e9)
    np.testing.assert_allclose(found.gains[:, 0], one.values[0, :, 1:4].mean(1), rtol=1e-5)
    np.testing.assert_allclose(found.gains[:, 2], one.values[0, :, 8:12].mean(1), rtol=1e-5)
    assert found.flags[:, 1].all()
    assert not found.flags[:, [0, 2, 3]].any()


@pytest.mark.parametrize("by_casa", [True, False])
def test_a_delay_turns_no_phase_at_its_reference(ms: Path, tmp_path: Path, by_casa: bool) -> None:
    one = bandpass(ms)
    delays = np.random.default_rng(2).normal(0, 20, (24, 1, 2))
    solutions = make_solutions(
        "K Jones", delays, time_s=5e9, antenna_names=one.antenna_names, frequency_hz=one.frequency_hz,
        channel_width_hz=23925.78125,
    )  # fmt: skip
    write_table(tmp_path / "k", solutions, ms)
    reference = one.frequency_hz.mean()
    if not by_casa:  # then the keyword is missing, and REF_FREQUENCY counts
        reference = 7.0e7
        with ct.table(str(tmp_path / "k"), readonly=False, ack=False) as table:
            table.removekeyword("CASA_Version")
        with ct.table(str(tmp_path / "k" / "SPECTRAL_WINDOW"), readonly=False, ack=False) as table:
            table.putcell("REF_FREQUENCY", 0, reference)
    found = jones([tmp_path / "k"], one.antenna_names, one.frequency_hz, 23925.78125, 5e9)
    turns = delays.astype(np.float32) * 1e-9 * (one.frequency_hz - reference)[None, :, None]
    np.testing.assert_allclose(found.gains, np.exp(2j * np.pi * turns), atol=1e-6)


def test_a_table_of_another_subband_is_refused(ms: Path, tmp_path: Path) -> None:
    one = bandpass(ms)
    write_table(tmp_path / "b", one, ms)
    with pytest.raises(MismatchError, match="another subband"):
        jones([tmp_path / "b"], one.antenna_names, one.frequency_hz + 4.59375e6, 23925.78125, 5e9)


def test_one_delay_table_serves_all_subbands(ms: Path, tmp_path: Path) -> None:
    one = bandpass(ms)
    solutions = make_solutions(
        "K Jones", np.full((24, 1, 2), 8.0), time_s=5e9, antenna_names=one.antenna_names,
        frequency_hz=one.frequency_hz, channel_width_hz=23925.78125,
    )  # fmt: skip
    write_table(tmp_path / "k", solutions, ms)
    other_hz = one.frequency_hz - 4 * 4.59375e6
    found = jones([tmp_path / "k"], one.antenna_names, other_hz, 23925.78125, 5e9)
    turns = 8e-9 * (other_hz - one.frequency_hz.mean())
    np.testing.assert_allclose(found.gains[0, :, 0], np.exp(2j * np.pi * turns), atol=1e-5)


def test_a_table_of_another_number_of_antennas_is_refused(ms: Path, tmp_path: Path) -> None:
    one = bandpass(ms)
    write_table(tmp_path / "b", one, ms)
    with pytest.raises(MismatchError, match="has 24 antennas, the observation 23"):
        jones([tmp_path / "b"], one.antenna_names[1:], one.frequency_hz, 23925.78125, 5e9)


def test_what_is_no_table_is_named(ms: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path, error in ((tmp_path / "none", MissingDataError), (tmp_path / "folder", InvalidDataError)):
        with pytest.raises(error, match=path.name):
            read_table(path)
    with pytest.raises(InvalidDataError, match="not a calibration table"):
        read_table(ms)


def test_given_antennas_are_flagged_by_number_and_name(ms: Path, tmp_path: Path) -> None:
    names = list(column(ms / "ANTENNA", "NAME"))
    stage([ms], tmp_path / "out.ms", flag_antennas=(2, f"{names[9][:3]}-{names[9][3:]}"))
    flag = column(tmp_path / "out.ms", "FLAG")
    touched = np.isin(column(ms, "ANTENNA1"), (2, 9)) | np.isin(column(ms, "ANTENNA2"), (2, 9))
    assert flag[touched].all()
    assert not flag[~touched].any()
    with pytest.raises(InputError, match="LWA-999"):
        stage([ms], tmp_path / "other.ms", flag_antennas=("LWA-999",))


def test_samples_that_cannot_be_visibilities_are_flagged(ms: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(ms, tmp_path / "in.ms")
    with ct.table(str(tmp_path / "in.ms"), readonly=False, ack=False) as table:
        data = table.getcol("DATA")
        data[5, 3, 0], data[6, 4, 1], data[7, 5, 2] = np.nan, np.inf, 0
        table.putcol("DATA", data)
    staged = stage([tmp_path / "in.ms"], tmp_path / "out.ms")
    flag, found = column(tmp_path / "out.ms", "FLAG"), column(tmp_path / "out.ms", "DATA")
    assert [tuple(i) for i in np.argwhere(flag)] == [(5, 3, 0), (6, 4, 1), (7, 5, 2)]
    assert np.isfinite(found).all()
    assert staged.flagged_share == pytest.approx(3 / flag.size)


def test_integrations_together_are_rephased_to_the_middle_one(tmp_path: Path) -> None:
    """The visibilities must be those that the sources have, seen from the one phase centre."""
    import json

    from orca.geometry import lmn

    sources = simulate(tmp_path, SimulationOptions(**SMALL, gains=False, beam=False, integrations=30))
    chosen = [sources[0], sources[15], sources[29]]
    staged = stage(chosen, tmp_path / "out.ms")
    out = tmp_path / "out.ms"
    centre = column(chosen[1] / "FIELD", "PHASE_DIR")[0, 0]
    np.testing.assert_allclose(column(out / "FIELD", "PHASE_DIR")[0, 0], centre)
    np.testing.assert_allclose(np.unique(column(out, "TIME")), [column(s, "TIME")[0] for s in chosen])
    assert staged.n_rows == 3 * 300
    sky = json.loads(next((tmp_path / "truth").rglob("*_180000_73MHz*.json")).read_text())
    wavelengths = 299792458.0 / column(out / "SPECTRAL_WINDOW", "CHAN_FREQ")[0]
    uvw, data, rows = column(out, "UVW"), column(out, "DATA"), cross(out)
    expected = np.zeros(data.shape[:2], complex)
    for source in sky["sources"]:
        l, m, n = lmn(source["ra_rad"], source["dec_rad"], *centre)
        path_m = uvw @ np.array([l, m, n - 1])
        expected += np.array(source["flux_jy"]) * np.exp(2j * np.pi * path_m[:, None] / wavelengths)
    scale = np.abs(expected[rows]).max()
    # the aberration differs by some 0.1 arcsec over the 5 minutes, which the rotation leaves out
    assert np.abs(data[rows][:, :, 0] - expected[rows]).max() < 3e-3 * scale


def full_band(ms: Path) -> list[Solutions]:
    """A table as the telescope's newest: 16 windows of 192 channels, not in the order of frequency."""
    rng = np.random.default_rng(5)
    names = tuple(column(ms / "ANTENNA", "NAME"))
    windows = []
    for number in rng.permutation(16):
        band = telescope.SUBBANDS[number]
        shape = (24, 192, 2)
        values = 40 * (1 + 0.3 * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)))
        windows.append(
            make_solutions(
                "B Jones", values, time_s=5e9, antenna_names=names, frequency_hz=band.frequencies_hz(),
                channel_width_hz=telescope.CHANNEL_WIDTH_HZ, flags=rng.uniform(size=shape) < 0.1,
                snr=rng.uniform(3, 100, shape), errors=rng.uniform(0.1, 1, shape), reference_antenna=2,
            )
        )  # fmt: skip
    return windows


def test_a_table_of_sixteen_windows_is_read_as_it_was_written(ms: Path, tmp_path: Path) -> None:
    written = full_band(ms)
    write_table(tmp_path / "b", written, ms)
    read = read_table(tmp_path / "b")
    assert len(read) == 16
    for one, other in zip(written, read, strict=True):
        for name in ("values", "flags", "snr", "errors", "frequency_hz", "channel_width_hz", "time_s"):
            np.testing.assert_array_equal(getattr(other, name), getattr(one, name))
        assert (other.kind, other.antenna_names) == (one.kind, one.antenna_names)
        assert (other.reference_antenna, other.path) == (2, tmp_path / "b")


@pytest.mark.parametrize("average", [1, 4])
def test_the_window_is_found_by_frequency_and_averaged_where_channels_are_wider(
    ms: Path, tmp_path: Path, average: int
) -> None:
    """192 channels of a subband as recorded, and 48 of averaged data."""
    windows = full_band(ms)
    write_table(tmp_path / "b", windows, ms)
    for band in (telescope.subband(13), telescope.subband(55), telescope.subband(82)):
        [window] = [w for w in windows if abs(w.frequency_hz[0] - band.first_channel_hz) < 1]
        frequency = band.frequencies_hz(192, average)
        found = jones([tmp_path / "b"], window.antenna_names, frequency, average * telescope.CHANNEL_WIDTH_HZ, 5e9)
        good = ~window.flags[0].reshape(24, 192 // average, average, 2)
        values = window.values[0].reshape(good.shape)
        count = good.sum(2)
        mean = np.where(good, values, 0).sum(2) / np.maximum(count, 1)
        np.testing.assert_array_equal(found.flags, count == 0)
        np.testing.assert_allclose(found.gains, np.where(count == 0, 1, mean), rtol=1e-5)


def test_windows_of_different_kinds_or_arrays_do_not_fit_into_one_table(ms: Path, tmp_path: Path) -> None:
    one = bandpass(ms)
    for other in (replace(one, kind="G Jones"), replace(one, antenna_names=one.antenna_names[::-1])):
        with pytest.raises(InputError, match="different kinds or arrays"):
            write_table(tmp_path / "b", [one, other], ms)
    with pytest.raises(InputError, match="no solutions to write"):
        write_table(tmp_path / "b", [], ms)


def test_a_table_that_is_written_again_holds_nothing_of_the_first(ms: Path, tmp_path: Path) -> None:
    write_table(tmp_path / "b", full_band(ms), ms)
    write_table(tmp_path / "b", bandpass(ms), ms)
    [read] = read_table(tmp_path / "b")
    assert read.values.shape == (1, 24, 16, 2)
    assert len(column(tmp_path / "b" / "SPECTRAL_WINDOW", "NUM_CHAN")) == 1


@pytest.mark.parametrize("kind", ["B Jones", "K Jones"])
def test_errors_are_kept(ms: Path, tmp_path: Path, kind: str) -> None:
    one = bandpass(ms)
    rng = np.random.default_rng(6)
    shape = (24, 1 if kind == "K Jones" else 16, 2)
    errors, snr = rng.uniform(0.1, 1, shape), rng.uniform(3, 50, shape)
    written = make_solutions(
        kind, rng.normal(1, 0.1, shape), time_s=5e9, antenna_names=one.antenna_names, frequency_hz=one.frequency_hz,
        channel_width_hz=23925.78125, errors=errors, snr=snr,
    )  # fmt: skip
    write_table(tmp_path / "t", written, ms)
    [read] = read_table(tmp_path / "t")
    np.testing.assert_array_equal(read.errors[0], errors.astype(np.float32))
    np.testing.assert_array_equal(read.snr[0], snr.astype(np.float32))
    np.testing.assert_array_equal(column(tmp_path / "t", "PARAMERR")[:, :, 1], errors[:, :, 1].astype(np.float32))
