"""Which integrations are added up: those that cannot be used are left out, with the reason, and leave no trace."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from file_times import age
from waiting import wait_for

from orca.calibration import gains
from orca.calibration.accumulate import Accumulator, Sums
from orca.calibration.gains import Summed, sum_integrations
from orca.errors import DataError, DeadDataError, InputError, InvalidDataError, TruncatedDataError
from orca.ms.acceptance import Acceptance
from orca.ms.inspect import inspect
from orca.sky import SkyModel, sky_model
from orca.skyoptions import SkyOptions

START = datetime(2026, 1, 10, 20, 31, tzinfo=UTC)
EVERYTHING = (0.0, np.inf)


@pytest.fixture
def sets(simulations: Callable[..., list[Path]], tmp_path: Path) -> list[Path]:
    """Copies of three integrations, an hour old."""
    originals = simulations(integrations=3, start=START)
    return [age(Path(shutil.copytree(ms, tmp_path / "raw" / ms.name))) for ms in originals]


def summed(sources: list[Path], folder: Path, **options: Any) -> Summed:
    return sum_integrations(sources, folder, sky=SkyOptions(), uv_range_lambda=EVERYTHING, **options)


def assert_same(found: Sums, expected: Sums) -> None:
    for name in ("vm", "mm", "power", "samples"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert found.time_s == expected.time_s


def assert_leaves_out(sets: list[Path], bad: Path, why: str, folder: Path, **options: Any) -> None:
    """The sums are exactly those of the other sets."""
    found = summed(sets, folder / "found", **options)
    rest = [path for path in sets if path != bad]
    assert list(found.used) == rest
    assert list(found.left_out) == [bad]
    assert why in found.left_out[bad]
    assert_same(found.sums, summed(rest, folder / "expected").sums)


def cut(ms: Path, share: float = 0.5) -> Path:
    largest = max(ms.glob("table.f*"), key=lambda file: file.stat().st_size)
    with largest.open("r+b") as file:
        file.truncate(int(share * largest.stat().st_size))
    return age(ms)


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_truncated_one_is_left_out(sets: list[Path], tmp_path: Path, position: int) -> None:
    assert_leaves_out(sets, cut(sets[position]), "rows need", tmp_path)


@pytest.mark.parametrize("position", [0, 1, 2])
def test_one_that_has_vanished_is_left_out(sets: list[Path], tmp_path: Path, position: int) -> None:
    shutil.rmtree(sets[position])
    assert_leaves_out(sets, sets[position], "no such file", tmp_path)


@pytest.mark.parametrize("position", [0, 2])
def test_one_that_was_recorded_as_zeros_is_left_out(
    sets: list[Path], make_ms: Callable[..., Path], tmp_path: Path, position: int
) -> None:
    zeros = make_ms(start=START, dead_subbands=("73MHz",))
    sets[position] = zeros
    assert_leaves_out(sets, zeros, "of the packets arrived", tmp_path)


@pytest.mark.parametrize("other", [{"subbands": ("78MHz",)}, {"antennas": 20}])
def test_one_of_another_subband_or_array_is_left_out(
    sets: list[Path], make_ms: Callable[..., Path], tmp_path: Path, other: dict[str, Any], monkeypatch: Any
) -> None:
    stranger = make_ms(start=START, **other)
    sets[1] = stranger
    calls = count_calls(monkeypatch)
    assert_leaves_out(sets, stranger, "other antennas or channels than", tmp_path)
    assert len(calls) == 3 + 2  # it touches nothing, so nothing is read twice


def count_calls(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    calls: list[Path] = []
    real = Accumulator.add

    def counting(self: Accumulator, info: Any, *rest: Any) -> None:
        calls.append(info.path)
        real(self, info, *rest)

    monkeypatch.setattr(Accumulator, "add", counting)
    return calls


WRITER = """
import sys, time
while True:
    with open(sys.argv[1], "ab") as file:
        file.write(bytes(100))
    time.sleep(0.02)
"""
"""Another process, which writes whatever this one does."""


def test_one_that_is_still_being_written_is_left_out(sets: list[Path], tmp_path: Path) -> None:
    file = max(sets[1].glob("table.f*"), key=lambda file: file.stat().st_size)
    size = file.stat().st_size
    with subprocess.Popen([sys.executable, "-c", WRITER, file]) as writer:
        try:
            wait_for(lambda: file.stat().st_size > size, "the first writing")
            found = summed(sets, tmp_path / "found")
        finally:
            writer.kill()
    assert found.used == (sets[0], sets[2])
    assert found.left_out == {sets[1]: "is still being written"}
    assert_same(found.sums, summed([sets[0], sets[2]], tmp_path / "expected").sums)


@pytest.mark.parametrize("tar", [False, True])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_one_that_breaks_after_a_part_of_it_was_added_leaves_no_trace(
    simulations: Callable[..., list[Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    position: int,
    tar: bool,
) -> None:
    sets = simulations(integrations=3, start=START, tar=tar)
    real = Accumulator.add

    def breaking(self: Accumulator, info: Any, *rest: Any) -> None:
        real(self, info, *rest)
        if info.path.name.split(".")[0] == sets[position].name.split(".")[0]:
            self.sums.vm[::2] += 1
            raise TruncatedDataError("cannot be read to its end", info.path)

    monkeypatch.setattr(Accumulator, "add", breaking)
    found = summed(sets, tmp_path / "found")
    monkeypatch.setattr(Accumulator, "add", real)
    rest = [path for path in sets if path != sets[position]]
    assert list(found.used) == rest
    assert found.left_out == {sets[position]: "cannot be read to its end"}
    assert_same(found.sums, summed(rest, tmp_path / "expected").sums)


def test_one_that_changes_while_it_is_added_leaves_no_trace(
    sets: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole when it is looked at, and replaced before it is read to its end."""
    expected = summed([sets[0], sets[1]], tmp_path / "expected").sums
    real = Accumulator.add

    def replaced(self: Accumulator, info: Any, *rest: Any) -> None:
        real(self, info, *rest)
        if info.path == sets[2]:
            (sets[2] / "table.dat").touch()

    monkeypatch.setattr(Accumulator, "add", replaced)
    found = summed(sets, tmp_path / "found")
    assert found.left_out == {sets[2]: "is still being written"}
    assert_same(found.sums, expected)


def test_a_file_with_a_hole_that_no_check_sees_is_left_out(sets: list[Path], tmp_path: Path) -> None:
    """The index of a storage manager is damaged: it opens, and its first, middle and last cells can be read."""
    small = next(file for file in sorted(sets[1].glob("table.f*")) if file.stat().st_size > 0)
    content = bytearray(small.read_bytes())
    content[: len(content) // 2] = bytes(len(content) // 2)
    small.write_bytes(content)
    age(sets[1])
    found = summed(sets, tmp_path / "found")
    assert found.used == (sets[0], sets[2])
    assert_same(found.sums, summed([sets[0], sets[2]], tmp_path / "expected").sums)


def test_tars_and_folders_give_the_same_sums(simulations: Callable[..., list[Path]], tmp_path: Path) -> None:
    folders = simulations(integrations=3, start=START)
    tars = simulations(integrations=3, start=START, tar=True)
    found = summed(tars, tmp_path / "work")
    assert list(found.used) == tars
    assert_same(found.sums, summed(folders, tmp_path / "other").sums)
    # one is unpacked at a time, and only the first stays: tables are made like it
    assert [path.name for path in (tmp_path / "work").iterdir()] == [f"{tars[0].name}.unpacked"]
    assert found.sums.like.path.is_dir()


def test_a_broken_tar_is_left_out_and_another_one_serves_as_the_first(
    simulations: Callable[..., list[Path]], tmp_path: Path
) -> None:
    originals = simulations(integrations=3, start=START, tar=True)
    (tmp_path / "raw").mkdir()
    tars = [Path(shutil.copy2(tar, tmp_path / "raw")) for tar in originals]
    with tars[0].open("r+b") as file:
        file.truncate(tars[0].stat().st_size // 2)
    age(tmp_path / "raw")
    found = summed(tars, tmp_path / "work")
    assert list(found.used) == tars[1:]
    assert "ends too early" in found.left_out[tars[0]]
    assert found.sums.like.path.is_dir()
    assert [path.name for path in (tmp_path / "work").iterdir()] == [f"{tars[1].name}.unpacked"]


def test_other_files_in_the_folder_are_left_alone(
    simulations: Callable[..., list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tars = simulations(integrations=3, start=START, tar=True)
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    real = Accumulator.add

    def breaking(self: Accumulator, info: Any, *rest: Any) -> None:
        real(self, info, *rest)
        if "20260110_203110" in str(info.path):
            raise TruncatedDataError("cannot be read to its end", info.path)

    monkeypatch.setattr(Accumulator, "add", breaking)
    found = summed(tars, folder)
    assert len(found.used) == 2
    assert (folder / "mine.txt").read_text() == "mine"


def test_fewer_than_the_minimum_is_an_error_that_says_why(sets: list[Path], tmp_path: Path) -> None:
    shutil.rmtree(sets[0])
    cut(sets[2])
    with pytest.raises(InvalidDataError) as caught:
        summed(sets, tmp_path / "work", minimum=2)
    text = str(caught.value)
    assert "1 of 3 integrations can be used, needed are 2" in text
    assert f"{sets[0].name} there is no such file" in text
    assert sets[2].name in text
    assert len(summed(sets, tmp_path / "work", minimum=1).used) == 1


def test_of_a_single_one_the_error_is_its_own(
    sets: list[Path], simulations: Callable[..., list[Path]], tmp_path: Path
) -> None:
    cut(sets[0])
    with pytest.raises(TruncatedDataError) as caught:
        summed(sets[:1], tmp_path / "work")
    assert "integrations" not in caught.value.problem
    assert caught.value.path == str(sets[0])
    [tar] = simulations(start=START, tar=True, dead_subbands=("73MHz",))
    with pytest.raises(DeadDataError, match="of the packets arrived") as dead:
        summed([tar], tmp_path / "other")
    assert dead.value.path == str(tar)  # not that of what it was unpacked into


def test_none_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="0 of 0 integrations can be used"):
        summed([], tmp_path)


def test_the_limits_of_the_data_are_those_that_are_asked_for(
    sets: list[Path], make_ms: Callable[..., Path], tmp_path: Path
) -> None:
    zeros = make_ms(start=START, dead_subbands=("73MHz",))
    accept = Acceptance(min_fill_level=0.0, max_zero_share=2.0)
    found = summed([sets[0], zeros], tmp_path / "found", acceptance=accept)
    assert found.used == (sets[0], zeros)
    assert found.sums.time_s[0] == found.sums.time_s[1] - 0  # the same integration
    expected = summed([sets[0]], tmp_path / "expected").sums
    np.testing.assert_array_equal(found.sums.vm, expected.vm)  # zeros do not count
    np.testing.assert_array_equal(found.sums.samples, expected.samples)


def test_sources_below_the_horizon_are_refused(make_ms: Callable[..., Path], tmp_path: Path) -> None:
    ms = make_ms(start=datetime(2026, 1, 10, 9, 0, tzinfo=UTC))
    options = {"sky": SkyOptions(sources=("Cyg A",)), "uv_range_lambda": EVERYTHING}
    with pytest.raises(
        InputError, match=r"no source of the sky model is left: Cyg A is too low \(.*deg\)\. Take a time"
    ):
        sum_integrations([ms], tmp_path, **options)


@pytest.mark.parametrize("position", [0, 2])
def test_one_without_a_source_that_is_up_is_left_out(
    sets: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, position: int
) -> None:
    low_s = inspect(sets[position], settle_s=0).time_s[0]

    def setting(time_s: float, frequency_hz: np.ndarray, options: SkyOptions) -> SkyModel:
        if abs(time_s - low_s) < 1:
            raise InputError("none of the sources is up")
        return sky_model(time_s, frequency_hz, options)

    monkeypatch.setattr(gains, "sky_model", setting)
    assert_leaves_out(sets, sets[position], "none of the sources is up", tmp_path)
