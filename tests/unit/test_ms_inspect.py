"""Checking Measurement Sets: what is right passes untouched, and each defect has its own clear line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from casacore import tables as ct

from orca.errors import (
    DataError,
    DeadDataError,
    GrowingDataError,
    InputError,
    InvalidDataError,
    MissingDataError,
    TruncatedDataError,
)
from orca.ms import growth
from orca.ms.checks import SUBTABLES
from orca.ms.create import create_like
from orca.ms.inspect import inspect

MakeMs = Callable[..., Path]


def make_old(path: Path) -> None:
    for file in [path, *path.rglob("*")]:
        os.utime(file, (time.time() - 3600,) * 2)


def edit(path: Path, subtable: str = "") -> ct.table:
    return ct.table(str(path / subtable), readonly=False, ack=False)


def refused(path: Path, error: type[DataError], words: str, **options: float) -> None:
    """The error is of exactly this class, names the file, says these words, and has one line without C++ in it."""
    with pytest.raises(DataError) as caught:
        inspect(path, **{"settle_s": 0.0, **options})
    text = str(caught.value)
    assert type(caught.value) is error, text
    assert text.startswith(str(path))
    assert text.count(str(path)) == 1
    assert words in text
    assert "\n" not in text
    assert caught.value.remedy


# --- what is right


def test_it_tells_what_is_in_the_file(make_ms: MakeMs) -> None:
    info = inspect(make_ms())
    assert (info.n_rows, info.n_antennas, info.n_channels, info.n_correlations) == (300, 24, 16, 4)
    assert info.subband == "73MHz"
    assert info.receptors.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert info.freq_hz[0] == 73_117_187.5
    assert info.channel_width_hz == 196e6 / 8192
    assert info.time_s == pytest.approx([info.start_s + 5.015510204], abs=1e-5)
    assert info.interval_s == pytest.approx(10.031020408)
    assert info.positions_m.shape == (24, 3)
    assert (info.fill_level, info.zero_share, info.nonfinite_share) == (1.0, 0.0, 0.0)
    assert {"DATA", "FLAG_CATEGORY"} <= set(info.columns)


def test_antennas_are_found_by_number_and_by_name_with_or_without_dash(make_ms: MakeMs) -> None:
    info = inspect(make_ms())
    row = info.antenna_names.index("LWA253")
    assert info.antenna_numbers([3, "LWA253", "lwa-253", "5"]) == sorted({3, 5, row})
    for unknown in (24, -1, "LWA999", "x"):
        with pytest.raises(InputError, match=f"no antenna {unknown}"):
            info.antenna_numbers([unknown])


def test_looking_changes_nothing(copy_ms: MakeMs) -> None:
    ms = copy_ms()
    before = {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in [ms, *ms.rglob("*")]}
    inspect(ms)
    assert {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in [ms, *ms.rglob("*")]} == before


@pytest.mark.parametrize("with_lock", [True, False])
def test_a_read_only_folder_will_do(copy_ms: MakeMs, with_lock: bool) -> None:
    ms = copy_ms()
    if not with_lock:
        (ms / "table.lock").unlink()
    make_old(ms)
    paths = [ms, *ms.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = {str(p): p.stat().st_mtime_ns for p in paths}
    probe = "import sys, os; from orca.ms.inspect import inspect; from pathlib import Path; "
    probe += "ms = Path(sys.argv[1]); assert not os.access(ms, os.W_OK); inspect(ms)"
    # root may write everywhere, unless it gives that right up
    drop = ["setpriv", "--bounding-set", "-dac_override", "--"] if os.geteuid() == 0 else []
    done = subprocess.run([*drop, sys.executable, "-c", probe, str(ms)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert {str(p): p.stat().st_mtime_ns for p in [ms, *ms.rglob("*")]} == before
    for path in paths:
        path.chmod(0o755)


def test_a_file_is_not_refused_for_being_young(copy_ms: MakeMs) -> None:
    ms = copy_ms()
    os.utime(ms / "table.f0")
    assert inspect(ms, settle_s=60).n_rows == 300


def test_an_old_file_is_not_waited_for_and_a_young_one_is(copy_ms: MakeMs, monkeypatch: pytest.MonkeyPatch) -> None:
    def waits(_: float) -> None:
        raise InterruptedError("waits")

    ms = copy_ms()
    monkeypatch.setattr(growth, "PAUSE_S", 60.0)
    monkeypatch.setattr(growth.time, "sleep", waits)
    inspect(ms, settle_s=600)
    os.utime(ms / "table.f0")
    with pytest.raises(InterruptedError):
        inspect(ms, settle_s=600)


def test_several_integrations_in_one_file_are_told_apart(make_ms: MakeMs, tmp_path: Path) -> None:
    path = tmp_path / "two.ms"
    with create_like(make_ms(), path, n_rows=600) as table:
        with ct.table(str(make_ms()), ack=False) as old:
            for name in ("DATA", "FLAG", "ANTENNA1", "ANTENNA2", "UVW"):
                for start in (0, 300):
                    table.putcol(name, old.getcol(name), start, 300)
        table.putcol("TIME_CENTROID", np.repeat([5e9, 5e9 + 10], 300))
    info = inspect(path, settle_s=0)
    assert info.time_s.tolist() == [5e9, 5e9 + 10]


# --- what is not a Measurement Set


def test_a_missing_path(tmp_path: Path) -> None:
    refused(tmp_path / "none.ms", MissingDataError, "no such file")


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.ms").write_text("x")
    refused(tmp_path / "a.ms", InvalidDataError, "is a file, not a Measurement Set")
    (tmp_path / "a.ms.tar").write_text("x")
    refused(tmp_path / "a.ms.tar", InvalidDataError, "Unpack it")


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "a.ms").mkdir()
    refused(tmp_path / "a.ms", InvalidDataError, "is an empty folder")


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "a.ms").mkdir()
    (tmp_path / "a.ms" / "notes.txt").write_text("x")
    refused(tmp_path / "a.ms", InvalidDataError, "without a casacore table")


def test_another_casacore_table(copy_ms: MakeMs) -> None:
    refused(copy_ms() / "ANTENNA", InvalidDataError, "is another casacore table")


def test_a_calibration_table(make_ms: MakeMs, root_of: Callable[[Path], Path]) -> None:
    table = root_of(make_ms()) / "truth" / "73MHz.truth.bandpass"
    refused(table, InvalidDataError, "is a calibration table")


# --- parts missing


@pytest.mark.parametrize("name", SUBTABLES)
def test_a_missing_subtable_is_named(copy_ms: MakeMs, name: str) -> None:
    ms = copy_ms()
    shutil.rmtree(ms / name)
    refused(ms, InvalidDataError, f"lacks the subtable {name}")


@pytest.mark.parametrize("name", ["DATA", "FLAG", "UVW", "TIME_CENTROID"])
def test_a_missing_column_is_named(copy_ms: MakeMs, name: str) -> None:
    ms = copy_ms()
    with edit(ms) as table:
        table.removecols([name])
    refused(ms, InvalidDataError, f"lacks the column {name}")


def test_no_rows(tmp_path: Path) -> None:
    data = ct.makearrcoldesc("DATA", 0j, valuetype="complex", ndim=2)
    ct.default_ms(str(tmp_path / "a.ms"), ct.maketabdesc([data])).close()
    refused(tmp_path / "a.ms", InvalidDataError, "has no rows")


def test_a_copy_without_locks_has_lost_its_rows(copy_ms: MakeMs) -> None:
    ms = copy_ms()
    (ms / "ANTENNA" / "table.lock").unlink()
    refused(ms, InvalidDataError, "Copy it again with its table.lock files")


@pytest.mark.parametrize("name", ["ANTENNA", "SPECTRAL_WINDOW", "POLARIZATION", "FIELD", "DATA_DESCRIPTION"])
def test_a_subtable_without_rows(copy_ms: MakeMs, name: str) -> None:
    ms = copy_ms()
    with edit(ms, name) as table:
        table.removerows(range(table.nrows()))
    refused(ms, InvalidDataError, f"lacks row 0 of {name}")


# --- parts that do not fit


def test_channels_of_the_window_and_of_the_data_differ(copy_ms: MakeMs) -> None:
    ms = copy_ms()
    with edit(ms, "SPECTRAL_WINDOW") as table:
        for name in ("CHAN_FREQ", "CHAN_WIDTH"):
            table.putcell(name, 0, table.getcell(name, 0)[:8])
        table.putcell("NUM_CHAN", 0, 8)
    refused(ms, InvalidDataError, "DATA of row 0 has the shape (16, 4), expected is (8, 4)")


def test_frequencies_and_their_number_differ(copy_ms: MakeMs) -> None:
    ms = copy_ms()
    with edit(ms, "SPECTRAL_WINDOW") as table:
        table.putcell("NUM_CHAN", 0, 17)
    refused(ms, InvalidDataError, "lists 16 frequencies for 17 channels")


def test_correlations_differ(copy_ms: MakeMs) -> None:
    ms = copy_ms()
    with edit(ms, "POLARIZATION") as table:
        table.putcell("NUM_CORR", 0, 2)
    refused(ms, InvalidDataError, "4 products for 2 correlations")


def test_flags_of_another_shape(copy_ms: MakeMs) -> None:
    ms = copy_ms()
    with edit(ms) as table:
        table.putcell("FLAG", 299, np.zeros((8, 4), bool))
    refused(ms, InvalidDataError, "FLAG of row 299 has the shape (8, 4)")


def test_rows_of_antennas_that_are_not_listed(copy_ms: MakeMs) -> None:
    ms = copy_ms()
    with edit(ms) as table:
        table.putcell("ANTENNA2", 100, 24)
    refused(ms, InvalidDataError, "has rows of antenna 24, but lists 24 antennas")


@pytest.mark.parametrize("gone", [[299], [0], list(range(100, 300))])
def test_rows_that_are_missing(copy_ms: MakeMs, gone: list[int]) -> None:
    ms = copy_ms()
    with edit(ms) as table:
        table.removerows(gone)
    refused(ms, InvalidDataError, f"has {300 - len(gone)} rows, which are not 1 integration of")


def test_rows_of_which_some_belong_to_another_time(copy_ms: MakeMs) -> None:
    ms = copy_ms()
    with edit(ms) as table:
        table.putcell("TIME_CENTROID", 7, table.getcell("TIME_CENTROID", 7) + 10)
    refused(ms, InvalidDataError, "which are not 2 integrations")


def test_two_spectral_windows(copy_ms: MakeMs) -> None:
    ms = copy_ms()
    with edit(ms) as table:
        table.putcell("DATA_DESC_ID", 0, 1)
    refused(ms, InvalidDataError, "has 2 spectral windows")


@pytest.mark.parametrize(
    ("value", "words"), [(np.nan, "not positive numbers"), (-1.0, "not positive"), (1e6, "do not increase")]
)
def test_frequencies_that_make_no_sense(copy_ms: MakeMs, value: float, words: str) -> None:
    ms = copy_ms()
    with edit(ms, "SPECTRAL_WINDOW") as table:
        frequency = table.getcell("CHAN_FREQ", 0)
        frequency[9] = value
        table.putcell("CHAN_FREQ", 0, frequency)
    refused(ms, InvalidDataError, words)


@pytest.mark.parametrize(
    ("subtable", "column", "words"),
    [
        ("", "TIME_CENTROID", "times"),
        ("", "UVW", "UVW"),
        ("ANTENNA", "POSITION", "positions"),
        ("FIELD", "PHASE_DIR", "phase"),
    ],
)
def test_numbers_that_are_not_finite(copy_ms: MakeMs, subtable: str, column: str, words: str) -> None:
    ms = copy_ms()
    with edit(ms, subtable) as table:
        table.putcell(column, 0, table.getcell(column, 0) * np.nan)
    refused(ms, InvalidDataError, words)


# --- truncated


@pytest.mark.parametrize("file", ["table.f0", "table.f0i", "table.dat"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.97])
def test_a_file_cut_off_anywhere(copy_ms: MakeMs, file: str, keep: float) -> None:
    ms = copy_ms()
    os.truncate(ms / file, int((ms / file).stat().st_size * keep))
    refused(ms, TruncatedDataError, "")


@pytest.mark.parametrize(
    "file", ["ANTENNA/table.f0", "SPECTRAL_WINDOW/table.dat", "FIELD/table.f0i", "HISTORY/table.dat"]
)
def test_a_subtable_cut_off(copy_ms: MakeMs, file: str) -> None:
    ms = copy_ms()
    os.truncate(ms / file, 0)
    refused(ms, TruncatedDataError, "")


def test_a_tiled_file_cut_off(make_ms: MakeMs, tmp_path: Path) -> None:
    ms = tmp_path / "tiled.ms"
    with create_like(make_ms(), ms) as table, ct.table(str(make_ms()), ack=False) as old:
        for name in ("DATA", "FLAG"):
            table.putcol(name, old.getcol(name))
    inspect(ms, settle_s=0)
    data = max(ms.glob("table.f*_TSM*"), key=lambda file: file.stat().st_size)
    os.truncate(data, data.stat().st_size // 2)
    refused(ms, TruncatedDataError, "rows need")


@pytest.mark.parametrize("file", ["table.f0", "table.f0i"])
def test_a_file_of_the_main_table_missing(copy_ms: MakeMs, file: str) -> None:
    ms = copy_ms()
    (ms / file).unlink()
    refused(ms, TruncatedDataError, file)


def test_casacore_stays_silent(copy_ms: MakeMs, capfd: pytest.CaptureFixture[str]) -> None:
    for file in ("table.f0i", "ANTENNA/table.f0", "table.f0", "table.dat"):
        ms = copy_ms()
        os.truncate(ms / file, (ms / file).stat().st_size // 2)
        refused(ms, TruncatedDataError, "")
        shutil.rmtree(ms)
    assert capfd.readouterr() == ("", "")


# --- dead


def test_zeros_are_dead(make_ms: MakeMs) -> None:
    ms = make_ms(dead_subbands=("73MHz",))
    refused(ms, DeadDataError, "all visibilities are zero")
    refused(ms, DeadDataError, "only 0% of the packets arrived", min_fill_level=0.5)


def test_zeros_count_without_autocorrelations(copy_ms: MakeMs) -> None:
    ms = copy_ms()
    with edit(ms) as table:
        cross = table.getcol("ANTENNA1") != table.getcol("ANTENNA2")
        data = table.getcol("DATA")
        data[cross] = 0
        table.putcol("DATA", data)
    refused(ms, DeadDataError, "all visibilities are zero")


def test_mostly_zeros_are_dead_if_asked(copy_ms: MakeMs) -> None:
    ms = copy_ms()
    with edit(ms) as table:
        data = table.getcol("DATA")
        data[: 3 * 300 // 4] = 0
        table.putcol("DATA", data)
    assert inspect(ms, settle_s=0).zero_share == pytest.approx(0.75, abs=0.05)
    refused(ms, DeadDataError, "of the visibilities are zero", max_zero_share=0.6)


def test_a_low_fill_level_is_refused_only_below_the_limit(copy_ms: MakeMs) -> None:
    ms = copy_ms()
    with edit(ms) as table:
        table.putkeyword("FILL_LEVEL_0", 0.4)
    assert inspect(ms, settle_s=0, min_fill_level=0.4).fill_level == 0.4
    refused(ms, DeadDataError, "only 40% of the packets", min_fill_level=0.5)


def test_a_file_without_fill_level_passes(copy_ms: MakeMs) -> None:
    ms = copy_ms()
    with edit(ms) as table:
        table.removekeyword("FILL_LEVEL_0")
    assert inspect(ms, settle_s=0, min_fill_level=0.9).fill_level is None


def test_not_a_number_everywhere_is_refused_but_a_few_are_counted(copy_ms: MakeMs) -> None:
    ms = copy_ms()
    with edit(ms) as table:
        data = table.getcol("DATA")
        data[:, 0] = np.nan
        table.putcol("DATA", data)
    assert inspect(ms, settle_s=0).nonfinite_share == pytest.approx(1 / 16)
    with edit(ms) as table:
        data[:, :8] = np.inf
        table.putcol("DATA", data)
    refused(ms, InvalidDataError, "50% of the visibilities are not finite")


# --- growing


@pytest.fixture
def writing() -> Callable[[Path], object]:
    """Append to a file every 20 ms while the context lasts."""

    class Writer:
        def __init__(self, path: Path) -> None:
            self.path, self.stop = path, threading.Event()
            self.thread = threading.Thread(target=self.run)

        def run(self) -> None:
            with self.path.open("ab") as file:
                while not self.stop.wait(0.02):
                    file.write(bytes(64))
                    file.flush()

        def __enter__(self) -> None:
            self.thread.start()

        def __exit__(self, *_: object) -> None:
            self.stop.set()
            self.thread.join()

    return Writer


def test_a_whole_file_that_is_written_to(copy_ms: MakeMs, writing: Callable) -> None:
    ms = copy_ms()
    with writing(ms / "table.f0i"):
        time.sleep(0.05)
        refused(ms, GrowingDataError, "is still being written", settle_s=5)


def test_a_file_whose_end_is_not_written_yet(copy_ms: MakeMs, writing: Callable) -> None:
    ms = copy_ms()
    os.truncate(ms / "table.f0i", 50_000)
    with writing(ms / "table.f0i"):
        refused(ms, GrowingDataError, "is still being written", settle_s=5)


def test_a_folder_whose_table_is_not_written_yet(tmp_path: Path, writing: Callable) -> None:
    (tmp_path / "a.ms").mkdir()
    with writing(tmp_path / "a.ms" / "table.f0i"):
        time.sleep(0.05)
        refused(tmp_path / "a.ms", GrowingDataError, "is still being written", settle_s=5)


def test_a_truncated_file_that_does_not_change_any_more_is_truncated(copy_ms: MakeMs) -> None:
    ms = copy_ms()
    os.truncate(ms / "table.f0i", 50_000)
    refused(ms, TruncatedDataError, "MB", settle_s=0.3)
