"""Spectra of a Measurement Set, beside a computation of its own in NumPy."""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from casacore import tables as ct
from pydantic import ValidationError

from orca import naming
from orca.calibration.apply import jones
from orca.calibration.tables import make_solutions, write_table
from orca.errors import DataError, GrowingDataError, InputError
from orca.ms import spectrum
from orca.ms.acceptance import Acceptance
from orca.ms.inspect import inspect
from orca.ms.members import Rejected
from orca.ms.reduce import reduce_block
from orca.ms.spectrum import Spectra, spectra, spectra_of
from orca.ms.truth import truth_paths
from orca.reduction_options import ReductionOptions
from orca.spectrum_options import BASELINES, SpectrumOptions, polarizations

QUIET = Acceptance(settle_s=0)
C_M_S = 299_792_458.0


def column(ms: Path, name: str) -> np.ndarray:
    with ct.table(str(ms), ack=False) as table:
        return np.asarray(table.getcol(name))


def put(ms: Path, name: str, values: np.ndarray) -> None:
    with ct.table(str(ms), readonly=False, ack=False) as table:
        table.putcol(name, values)


def made(ms: Path, tmp_path: Path, tables: tuple[Path, ...] = (), bad: tuple[Any, ...] = (), **options: Any) -> Spectra:
    return spectra(
        ms, SpectrumOptions(**options), tables=tables, bad_antennas=bad, acceptance=QUIET, scratch=tmp_path / "scratch"
    )


def name_of(ms: Path, antenna: int) -> str:
    return inspect(ms).antenna_names[antenna]


@pytest.fixture
def spoilt(copy_ms: Callable[..., Path]) -> Path:
    """One integration with flags, zeros, and samples that are no numbers."""
    ms = copy_ms(rfi=2)
    rng = np.random.default_rng(1)
    data, flag = column(ms, "DATA"), column(ms, "FLAG")
    flag |= rng.random(flag.shape) < 0.2
    flag[:, 5] = True
    data[rng.random(data.shape) < 0.05] = 0
    data[rng.random(data.shape) < 0.05] = np.nan
    data[rng.random(data.shape) < 0.05] = complex(0, np.inf)
    put(ms, "DATA", data)
    put(ms, "FLAG", flag)
    return ms


@pytest.fixture
def flagged_tables(make_ms: Callable[..., Path], root_of: Callable[[Path], Path], tmp_path: Path) -> tuple[Path, Path]:
    """The true delays and the true bandpass, of which some solutions are flagged."""
    truth = truth_paths(root_of(make_ms(rfi=2)), "73MHz")
    bandpass = Path(shutil.copytree(truth.bandpass, tmp_path / "some.bandpass"))
    flag = column(bandpass, "FLAG")
    flag[3] = True
    flag[7, :, 1] = True
    flag[:, 11] = True
    put(bandpass, "FLAG", flag)
    return truth.delay, bandpass


def by_numpy(ms: Path, tables: tuple[Path, ...], bad: tuple[int, ...] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated amplitudes (n_rows, n_channels, n_correlations), and which of them count."""
    info = inspect(ms)
    data, flag = column(ms, "DATA").astype(complex), column(ms, "FLAG")
    first, second = column(ms, "ANTENNA1"), column(ms, "ANTENNA2")
    solved = jones(tables, info.antenna_names, info.freq_hz, info.channel_width_hz, float(info.time_s[0]))
    p, q = info.receptors.T
    gain = solved.gains[first][:, :, p] * solved.gains[second][:, :, q].conj()
    good = ~flag & ~solved.flags[first][:, :, p] & ~solved.flags[second][:, :, q]
    good &= ~(np.isin(first, bad) | np.isin(second, bad))[:, None, None]
    good &= np.isfinite(data) & (data != 0)
    return np.where(good, np.abs(np.where(good, data, 1) / gain), 0), good


def mean_of(amplitude: np.ndarray, good: np.ndarray) -> np.ndarray:
    count = good.sum(0)
    return np.where(count > 0, amplitude.sum(0) / np.maximum(count, 1), np.nan)


@pytest.mark.parametrize("calibrated", [False, True])
def test_the_mean_is_that_of_the_samples_and_gains_that_are_not_flagged(
    spoilt: Path, flagged_tables: tuple[Path, Path], tmp_path: Path, calibrated: bool
) -> None:
    tables = flagged_tables if calibrated else ()
    found = made(spoilt, tmp_path, tables, bad=(2, "LWA-999"), flag_antennas=f"9,{name_of(spoilt, 12)}", baselines=())
    amplitude, good = by_numpy(spoilt, tables, (2, 9, 12))
    cross = column(spoilt, "ANTENNA1") != column(spoilt, "ANTENNA2")
    wanted = mean_of(amplitude[cross], good[cross])
    np.testing.assert_allclose(found.values["cross"], wanted, rtol=2e-6)
    empty = [5, 11] if calibrated else [5]
    assert np.flatnonzero(np.isnan(wanted).any(1)).tolist() == empty
    assert found.used["cross"] == pytest.approx(good[cross].mean())
    info = inspect(spoilt)
    assert (found.subband, found.centre_s, found.start_s) == ("73MHz", info.time_s[0], info.start_s)
    np.testing.assert_array_equal(found.freq_hz, info.freq_hz)


def test_one_bad_antenna_does_not_lower_the_mean(simulations: Callable[..., list[Path]], tmp_path: Path) -> None:
    """The pipeline before counted what was flagged as zeros."""
    [ms] = simulations()
    all_of_them = made(ms, tmp_path).values["cross"]
    without_one = made(ms, tmp_path, bad=(4,)).values["cross"]
    amplitude, good = by_numpy(ms, (), (4,))
    cross = column(ms, "ANTENNA1") != column(ms, "ANTENNA2")
    np.testing.assert_allclose(without_one, mean_of(amplitude[cross], good[cross]), rtol=2e-6)
    as_zeros = amplitude[cross].mean(0)
    assert np.median(as_zeros / without_one) == pytest.approx(1 - 2 / 24, rel=1e-3)
    assert np.abs(without_one / all_of_them - 1).max() < 0.25


def test_a_baseline_is_found_in_either_order_and_its_correlations_follow_its_name(
    spoilt: Path, flagged_tables: tuple[Path, Path], tmp_path: Path
) -> None:
    one, other = name_of(spoilt, 5), name_of(spoilt, 8)
    plain, turned = f"{one}&{other}", f"{other}&{one}"
    amplitude, good = by_numpy(spoilt, flagged_tables)
    row = (column(spoilt, "ANTENNA1") == 5) & (column(spoilt, "ANTENNA2") == 8)
    wanted = mean_of(amplitude[row], good[row])
    forwards = made(spoilt, tmp_path, flagged_tables, baselines=plain)
    backwards = made(
        spoilt, tmp_path, flagged_tables, baselines=turned.replace("&", ":").lower().replace("lwa", "LWA-")
    )
    np.testing.assert_allclose(forwards.values[plain], wanted, rtol=2e-6)
    np.testing.assert_allclose(backwards.values[turned], wanted[:, [0, 2, 1, 3]], rtol=2e-6)
    assert forwards.used[plain] == pytest.approx(good[row].mean())


def test_a_baseline_that_is_stored_in_the_other_order_is_found(copy_ms: Callable[..., Path], tmp_path: Path) -> None:
    ms = copy_ms()
    name = f"{name_of(ms, 5)}&{name_of(ms, 8)}"
    before = made(ms, tmp_path, baselines=name).values[name]
    first, second = column(ms, "ANTENNA1"), column(ms, "ANTENNA2")
    row = int(np.flatnonzero((first == 5) & (second == 8))[0])
    first[row], second[row] = 8, 5
    put(ms, "ANTENNA1", first)
    put(ms, "ANTENNA2", second)
    with ct.table(str(ms), readonly=False, ack=False) as table:
        table.putcell("DATA", row, table.getcell("DATA", row)[:, [0, 2, 1, 3]].conj())
    np.testing.assert_allclose(made(ms, tmp_path, baselines=name).values[name], before, rtol=1e-6)


def test_autocorrelations_are_those_of_the_antennas_asked_for(
    spoilt: Path, flagged_tables: tuple[Path, Path], tmp_path: Path
) -> None:
    name = name_of(spoilt, 6)
    found = made(spoilt, tmp_path, flagged_tables, autos=name)
    amplitude, good = by_numpy(spoilt, flagged_tables)
    row = (column(spoilt, "ANTENNA1") == 6) & (column(spoilt, "ANTENNA2") == 6)
    np.testing.assert_allclose(found.values[f"auto-{name}"], mean_of(amplitude[row], good[row]), rtol=2e-6)


def test_an_antenna_that_the_array_lacks_is_named_and_its_spectrum_is_empty(
    make_ms: Callable[..., Path], tmp_path: Path
) -> None:
    ms = make_ms()
    found = made(ms, tmp_path, baselines=f"{name_of(ms, 0)}:LWA901", autos="LWA902")
    empty = f"{name_of(ms, 0)}&LWA901"
    assert found.notes == (f"{empty}: the array has no antenna LWA901", "auto-LWA902: the array has no antenna LWA902")
    for name in (empty, "auto-LWA902"):
        assert np.isnan(found.values[name]).all()
        assert (found.values[name].shape, found.used[name]) == ((16, 4), 0)
    assert np.isfinite(found.values["cross"]).all()


def a_source(ms: Path, l: float, m: float, stokes: tuple[float, float]) -> None:
    """Replace the data by a point source with Stokes I and V."""
    info = inspect(ms)
    u, v, w = column(ms, "UVW").T
    path_m = u * l + v * m + w * (np.sqrt(1 - l * l - m * m) - 1)
    phasor = np.exp(2j * np.pi * path_m[:, None] * info.freq_hz / C_M_S)[:, :, None]
    brightness = np.array([stokes[0], 1j * stokes[1], -1j * stokes[1], stokes[0]])
    put(ms, "DATA", (phasor * brightness).astype(np.complex64))


def place(ms: Path, l: float, m: float) -> str:
    """Right ascension and declination of direction cosines about the phase centre, in degrees."""
    ra0, dec0 = inspect(ms).phase_centre_rad
    n = np.sqrt(1 - l * l - m * m)
    dec = np.arcsin(m * np.cos(dec0) + n * np.sin(dec0))
    ra = ra0 + np.arctan2(l, n * np.cos(dec0) - m * np.sin(dec0))
    return f"{np.degrees(ra) % 360:.9f},{np.degrees(dec):.9f}"


def stokes_of(found: Spectra) -> np.ndarray:
    [name] = [name for name in found.values if name.startswith("stokes-")]
    assert polarizations(name) == ("I", "V")
    return found.values[name]


def test_stokes_towards_a_source_has_its_flux_and_the_mirrored_place_has_not(
    copy_ms: Callable[..., Path], tmp_path: Path
) -> None:
    ms = copy_ms()
    a_source(ms, 0.3, -0.2, (120.0, 30.0))
    there = stokes_of(made(ms, tmp_path, towards=place(ms, 0.3, -0.2)))
    np.testing.assert_allclose(there, np.broadcast_to([120.0, 30.0], (16, 2)), rtol=1e-4)
    for l, m in ((-0.3, 0.2), (-0.3, -0.2), (0.3, 0.2)):
        assert np.abs(stokes_of(made(ms, tmp_path, towards=place(ms, l, m)))).max() < 60


def test_what_is_flagged_does_not_count_in_stokes(
    copy_ms: Callable[..., Path], flagged_tables: tuple[Path, Path], tmp_path: Path
) -> None:
    ms = copy_ms(rfi=2)
    a_source(ms, 0.1, 0.4, (50.0, -5.0))
    info = inspect(ms)
    solved = jones(flagged_tables, info.antenna_names, info.freq_hz, info.channel_width_hz, float(info.time_s[0]))
    p, q = info.receptors.T
    gain = solved.gains[column(ms, "ANTENNA1")][:, :, p] * solved.gains[column(ms, "ANTENNA2")][:, :, q].conj()
    data, flag = column(ms, "DATA") * gain, column(ms, "FLAG")
    rng = np.random.default_rng(2)
    flag |= rng.random(flag.shape) < 0.1
    data = np.where(flag, 1e6, data)
    data[rng.random(data.shape) < 0.1] = 0
    put(ms, "DATA", data.astype(np.complex64))
    put(ms, "FLAG", flag)
    found = stokes_of(made(ms, tmp_path, flagged_tables, towards=place(ms, 0.1, 0.4)))
    channels = np.arange(16) != 11
    np.testing.assert_allclose(found[channels], np.broadcast_to([50.0, -5.0], (15, 2)), rtol=1e-3)
    assert np.isnan(found[11]).all()


def test_below_the_horizon_there_is_nothing(make_ms: Callable[..., Path], tmp_path: Path) -> None:
    found = made(make_ms(), tmp_path, towards="05:34:31,-80:00:00")
    assert found.notes == ("stokes-J053431-800000: below the horizon",)
    assert np.isnan(stokes_of(found)).all()


def test_an_averaged_set_gives_spectra_at_its_own_resolution(
    simulations: Callable[..., list[Path]], root_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    [raw] = simulations(rfi=2)
    [member] = reduce_block([raw], tmp_path, ReductionOptions(), acceptance=QUIET).members
    truth = truth_paths(root_of(raw), "73MHz")
    tables = (truth.delay, truth.bandpass)
    found = made(member.averaged, tmp_path, tables, baselines=())
    amplitude, good = by_numpy(member.averaged, tables)
    cross = column(raw, "ANTENNA1") != column(raw, "ANTENNA2")
    assert found.values["cross"].shape == (4, 4)
    np.testing.assert_allclose(found.values["cross"], mean_of(amplitude[cross], good[cross]), rtol=2e-6)


def test_correlations_that_were_not_recorded_are_empty(make_ms: Callable[..., Path], tmp_path: Path) -> None:
    from orca.ms.split import split

    ms = make_ms()
    split(ms, tmp_path / "two.ms")
    whole = made(ms, tmp_path, towards="Cyg A")
    found = made(tmp_path / "two.ms", tmp_path, towards="Cyg A")
    np.testing.assert_allclose(found.values["cross"][:, [0, 3]], whole.values["cross"][:, [0, 3]])
    assert np.isnan(found.values["cross"][:, [1, 2]]).all()
    np.testing.assert_allclose(stokes_of(found)[:, 0], stokes_of(whole)[:, 0])
    assert np.isnan(stokes_of(found)[:, 1]).all()


def test_blocks_of_rows_do_not_show(spoilt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"baselines": f"{name_of(spoilt, 1)}:{name_of(spoilt, 20)}", "towards": "Cyg A"}
    whole = made(spoilt, tmp_path, **options)
    monkeypatch.setattr(spectrum, "ROWS", 7)
    parts = made(spoilt, tmp_path, **options)
    assert whole.used == parts.used
    for name, values in whole.values.items():
        np.testing.assert_allclose(parts.values[name], values, rtol=1e-5)


def test_memory_does_not_grow_with_the_rows(simulations: Callable[..., list[Path]], tmp_path: Path) -> None:
    """Beyond its first block of rows the pass keeps nothing of what it reads."""
    import tracemalloc

    peaks = []
    for antennas in (48, 96):
        [ms] = simulations(antennas=antennas)
        tracemalloc.start()
        made(ms, tmp_path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert column(ms, "DATA").nbytes > 2.2 * peaks[-1] or antennas == 48
    assert peaks[1] < 2.5 * peaks[0]


def test_a_tar_is_the_same_and_leaves_nothing_behind(simulations: Callable[..., list[Path]], tmp_path: Path) -> None:
    [plain], [tar] = simulations(), simulations(tar=True)
    whole, packed = made(plain, tmp_path), made(tar, tmp_path)
    np.testing.assert_array_equal(packed.values["cross"], whole.values["cross"])
    assert packed.source == tar
    assert not any((tmp_path / "scratch").rglob("*.ms"))


def _truncate(ms: Path) -> None:
    data = max(ms.glob("table.f*"), key=lambda path: path.stat().st_size)
    os.truncate(data, data.stat().st_size // 2)


def _zero(ms: Path) -> None:
    put(ms, "DATA", 0 * column(ms, "DATA"))


def _empty(ms: Path) -> None:
    with ct.table(str(ms), readonly=False, ack=False) as table:
        table.putkeyword("FILL_LEVEL_0", 0.1)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (_truncate, "rows need|cannot be read to its end"),
        (_zero, "visibilities are zero"),
        (_empty, "packets arrived"),
        (shutil.rmtree, "no such file"),
    ],
)
def test_a_set_that_cannot_be_used_is_named_and_the_others_are_made(
    simulations: Callable[..., list[Path]], tmp_path: Path, harm: Callable[[Path], None], reason: str
) -> None:
    sources = [Path(shutil.copytree(ms, tmp_path / ms.name)) for ms in simulations(integrations=3)]
    harm(sources[1])
    accept = Acceptance(settle_s=0, min_fill_level=0.5)
    first, second, third = spectra_of(sources, acceptance=accept, scratch=tmp_path / "scratch")
    assert [first.source, second.source, third.source] == sources
    assert isinstance(second, Rejected)
    assert re.search(reason, second.reason), second.reason
    assert isinstance(first, Spectra)
    assert isinstance(third, Spectra)


def test_each_of_a_batch_has_the_solutions_of_its_own_time(
    simulations: Callable[..., list[Path]], tmp_path: Path
) -> None:
    sources = simulations(integrations=3)
    info = inspect(sources[0])
    one = make_solutions(
        "B Jones",
        np.ones((info.n_antennas, info.n_channels, 2)),
        time_s=0,
        antenna_names=info.antenna_names,
        frequency_hz=info.freq_hz,
        channel_width_hz=info.channel_width_hz,
    )
    times = np.array([inspect(source).time_s[0] for source in sources])
    parts = {name: np.repeat(getattr(one, name), 3, axis=0) for name in ("values", "flags", "snr", "errors")}
    parts["values"] = parts["values"] * np.array([1, 2, 4]).reshape(3, 1, 1, 1).astype(np.complex64)
    table = tmp_path / "changing.gains"
    write_table(table, replace(one, time_s=times, **parts), sources[0])
    together = spectra_of(sources, tables=[table], acceptance=QUIET, scratch=tmp_path)
    for k, (source, found) in enumerate(zip(sources, together, strict=True)):
        assert isinstance(found, Spectra)
        plain = made(source, tmp_path).values["cross"]
        np.testing.assert_allclose(found.values["cross"], plain / 4.0**k, rtol=1e-5)


def test_a_set_that_is_still_written_is_refused(copy_ms: Callable[..., Path], tmp_path: Path) -> None:
    ms = copy_ms()
    stop = threading.Event()

    def write() -> None:
        while not stop.wait(0.02):
            os.utime(ms / "table.f0", ns=(time.time_ns(), time.time_ns()))

    os.utime(ms / "table.f0")
    writer = threading.Thread(target=write)
    writer.start()
    try:
        with pytest.raises(GrowingDataError):
            spectra(ms, acceptance=Acceptance(settle_s=2.0), scratch=tmp_path)
    finally:
        stop.set()
        writer.join()


def test_several_integrations_in_one_set_are_refused(simulations: Callable[..., list[Path]], tmp_path: Path) -> None:
    from orca.ms.stage import stage

    stage(simulations(integrations=2), tmp_path / "two.ms", acceptance=QUIET)
    with pytest.raises(DataError, match="has 2 integrations"):
        made(tmp_path / "two.ms", tmp_path)


def test_what_is_asked_for_must_be_there(make_ms: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no antenna LWA-999"):
        made(make_ms(), tmp_path, flag_antennas="LWA-999")
    with pytest.raises(InputError, match="no source 'Nova'"):
        made(make_ms(), tmp_path, towards="Nova")


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ("cross", *BASELINES)),
        ({"baselines": "none"}, ("cross",)),
        ({"baselines": ["LWA-128:LWA-160", "LWA160&LWA128"]}, ("cross", "LWA128&LWA160")),
        ({"baselines": "none", "autos": "LWA-001,lwa001", "towards": "Cyg A"}, ("cross", "auto-LWA001", "stokes-CygA")),
        ({"baselines": (), "towards": "19:59:28.4,-40:44:02"}, ("cross", "stokes-J195928-404402")),
        ({"baselines": (), "towards": "299.868,40.734"}, ("cross", "stokes-J195928+404402")),
    ],
)
def test_spectra_have_names_that_can_be_folders(options: dict[str, Any], names: tuple[str, ...]) -> None:
    made = SpectrumOptions(**options)
    assert made.names == names
    for name in made.names:
        for label in polarizations(name):
            path = naming.dynspec_path("root", name, date(2026, 1, 10), label)
            parsed = naming.parse(path)
            assert (parsed.spectrum, parsed.polarization) == (name, label)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"baselines": "LWA128"}, "is no baseline"),
        ({"baselines": "LWA128:LWA-128"}, "is no baseline"),
        ({"baselines": "128:160"}, "give antennas by name"),
        ({"autos": "12"}, "give antennas by name"),
        ({"towards": "400,20"}, "is no place"),
        ({"towards": "a,b"}, "is no angle"),
        ({"towards": "../x"}, "neither a source nor a place"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        SpectrumOptions(**options)
