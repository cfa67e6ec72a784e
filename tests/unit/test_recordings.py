"""What is recorded below the root of the raw data: empty files and folders with the recorder's names."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from orca import naming
from orca.errors import InputError, MissingDataError, StorageError
from orca.recordings import (
    Recording,
    block_about,
    block_in,
    hours_recorded,
    middle_of,
    nearest,
    recordings,
    strangers,
    subbands_recorded,
)
from orca.telescope import INTEGRATION_S

BAND = "73MHz"


def at(hour: int, minute: int = 0, second: float = 0, day: int = 10) -> datetime:
    return datetime(2026, 1, day, hour, minute, tzinfo=UTC) + timedelta(seconds=second)


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., Path]:
    """`record(start, tar=True, band=...)`: an empty recording with the right name."""

    def make(start: datetime, *, tar: bool = False, band: str = BAND) -> Path:
        path = naming.raw_path(tmp_path, naming.Observation(band, start), tar=tar)
        path.parent.mkdir(parents=True, exist_ok=True)
        if tar:
            path.touch()
        else:
            path.mkdir()
        return path

    return make


def series(record: Callable[..., Path], start: datetime, count: int) -> list[Path]:
    return [record(start + timedelta(seconds=i * INTEGRATION_S)) for i in range(count)]


def paths(found: list[Recording]) -> list[Path]:
    return [recording.path for recording in found]


def test_recordings_are_in_the_order_of_time_over_hours_and_midnight(
    record: Callable[..., Path], tmp_path: Path
) -> None:
    made = [record(at(22, 59, 50)), record(at(23, 30)), record(at(23, 59, 55)), record(at(0, 0, 5, day=11))]
    record(at(22, 0)), record(at(1, 0, day=11))
    found = recordings(tmp_path, BAND, at(22, 30), at(0, 30, day=11))
    assert paths(found) == made
    assert [r.start for r in found] == [at(22, 59, 50), at(23, 30), at(23, 59, 55), at(0, 0, 5, day=11)]


def test_both_ends_are_included(record: Callable[..., Path], tmp_path: Path) -> None:
    made = [record(at(20, 0, 10)), record(at(20, 0, 20)), record(at(20, 0, 30))]
    assert paths(recordings(tmp_path, BAND, at(20, 0, 10), at(20, 0, 30))) == made
    assert paths(recordings(tmp_path, BAND, at(20, 0, 11), at(20, 0, 29))) == made[1:2]
    assert recordings(tmp_path, BAND, at(20, 0, 21), at(20, 0, 19)) == []


def test_times_of_other_zones_are_understood_and_times_without_one_refused(
    record: Callable[..., Path], tmp_path: Path
) -> None:
    made = record(at(20, 0, 10))
    pacific = timezone(timedelta(hours=-8))
    found = recordings(tmp_path, BAND, at(20).astimezone(pacific), at(20, 1).astimezone(pacific))
    assert paths(found) == [made]
    with pytest.raises(InputError, match="time zone"):
        recordings(tmp_path, BAND, datetime(2026, 1, 10, 20), at(20, 1))


def test_of_a_folder_and_a_tar_of_the_same_integration_the_folder_is_taken(
    record: Callable[..., Path], tmp_path: Path
) -> None:
    folder = record(at(20))
    record(at(20), tar=True)
    tar = record(at(20, 0, 10), tar=True)
    assert paths(recordings(tmp_path, BAND, at(20), at(21))) == [folder, tar]


def test_other_things_that_lie_there_are_no_recordings(record: Callable[..., Path], tmp_path: Path) -> None:
    made = record(at(20))
    for name in (
        ".20260110_200010_73MHz.ms.part", "20260110_200010_73MHz.ms.tar.tmp", "20260110_200010_73MHz.fits",
        "20260110_200010_73MHz_averaged.ms", "20260110_200010_78MHz.ms", "20261399_200010_73MHz.ms", "notes.txt",
        "20260110_200010_73MHz.ms.manifest.json", "20260110_200010_74MHz.ms",
    ):  # fmt: skip
        (made.parent / name).touch()
    (made.parent.parent / "21").touch()  # a file where the folder of an hour should be
    assert paths(recordings(tmp_path, BAND, at(20), at(21, 59))) == [made]


def test_a_subband_may_be_given_as_people_do(record: Callable[..., Path], tmp_path: Path) -> None:
    made = record(at(20))
    assert paths(recordings(tmp_path, "73", at(20), at(21))) == [made]
    with pytest.raises(InputError):
        recordings(tmp_path, "74MHz", at(20), at(21))


def test_without_the_root_there_is_an_error_and_without_the_hour_there_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="no such folder of raw data"):
        recordings(tmp_path / "raw", BAND, at(20), at(21))
    assert recordings(tmp_path, BAND, at(20), at(21)) == []


def test_a_folder_that_cannot_be_read_is_an_error_not_an_empty_night(
    record: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    made = record(at(20))
    real = os.listdir

    def refuse(path: Path) -> list[str]:
        if Path(path) == made.parent:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(StorageError, match="Permission denied"):
        recordings(tmp_path, BAND, at(20), at(21))


def test_the_middle_of_an_integration_is_half_of_it_after_its_start() -> None:
    assert Recording(at(20), Path("a")).centre == at(20, 0, INTEGRATION_S / 2)


def test_the_nearest_is_by_the_middle_and_within_the_tolerance() -> None:
    candidates = [Recording(at(20, 0, 10 * i), Path(str(i))) for i in range(3)]  # middles at 5.0, 15.0, 25.0 s
    for second, expected in ((15, 1), (10.3, 1), (9.7, 0), (-0.5, 0), (30.5, 2)):
        found = nearest(candidates, at(20, 0, second), 6.0)
        assert found is candidates[expected]
    assert nearest(candidates, at(20, 0, -2), 6.0) is None
    assert nearest(candidates, at(20, 0, 32), 6.0) is None
    assert nearest(candidates, at(20, 0, 32), 7.5) is candidates[2]
    assert nearest([], at(20), 1e9) is None


@pytest.mark.parametrize("centre", [at(20, 31, 58), at(21, 0, 0), at(0, 0, 3, day=11), at(23, 59, 58)])
def test_a_block_is_the_integrations_about_its_middle_whatever_hours_they_are_in(
    record: Callable[..., Path], tmp_path: Path, centre: datetime
) -> None:
    made = series(record, centre - timedelta(seconds=30 * INTEGRATION_S), 60)
    found = block_about(tmp_path, BAND, centre, 24)
    assert paths(found) == made[18:42]
    assert abs((found[0].centre - centre) + (found[-1].centre - centre)) < timedelta(seconds=3)


@pytest.mark.parametrize("shift_s", [0.0, 0.4, 2.5, 5.0, 7.5, 9.9])
def test_a_block_has_all_its_integrations_wherever_they_begin(
    record: Callable[..., Path], tmp_path: Path, shift_s: float
) -> None:
    series(record, at(20), 60)
    found = block_about(tmp_path, BAND, at(20, 5, shift_s), 24)
    assert len(found) == 24
    steps = {(b.start - a.start).total_seconds() for a, b in itertools.pairwise(found)}
    assert steps <= {10.0, 11.0}


def test_a_block_of_what_was_recorded_about_a_transit_is_whole_if_it_can_be(
    record: Callable[..., Path], tmp_path: Path
) -> None:
    made = series(record, at(20, 31, 43), 4)
    assert paths(block_about(tmp_path, BAND, at(20, 31, 58), 4)) == made


def test_a_block_with_gaps_is_incomplete_and_takes_nothing_from_beyond(
    record: Callable[..., Path], tmp_path: Path
) -> None:
    centre = at(21)
    made = series(record, centre - timedelta(seconds=30 * INTEGRATION_S), 60)
    for gone in (*made[20:25], made[41]):
        gone.rmdir()
    assert paths(block_about(tmp_path, BAND, centre, 24)) == [*made[18:20], *made[25:41]]
    for path in made:
        if path.exists():
            path.rmdir()
    assert block_about(tmp_path, BAND, centre, 24) == []


def test_subbands_of_a_day_from_the_lowest(record: Callable[..., Path], tmp_path: Path) -> None:
    for band in ("82MHz", "13MHz", "41MHz"):
        record(at(20), band=band)
    record(at(20, day=11), band="55MHz")
    for name in ("truth", "74MHz", "73", "delay"):
        (tmp_path / name / "2026-01-10").mkdir(parents=True)
    assert subbands_recorded(tmp_path, at(0)) == ["13MHz", "41MHz", "82MHz"]
    assert subbands_recorded(tmp_path, at(5, day=11)) == ["55MHz"]
    assert subbands_recorded(tmp_path, at(5, day=12)) == []
    assert subbands_recorded(tmp_path / "nowhere", at(5)) == []


def test_the_fullest_block_is_taken_and_of_equals_the_one_nearest_to_the_middle(
    record: Callable[..., Path], tmp_path: Path
) -> None:
    made = series(record, at(20), 60)
    found = recordings(tmp_path, BAND, at(20), at(21))
    for middle, first in ((at(20, 5), 18), (at(19), 0), (at(23), 36)):
        block = block_in(found, middle, 24)
        assert paths(block) == made[first : first + 24]
    assert abs(middle_of(block_in(found, at(20, 5), 24)) - at(20, 5)) < timedelta(seconds=INTEGRATION_S)
    gap = [*found[:20], *found[30:50]]
    assert paths(block_in(gap, at(20, 4), 12)) == made[8:20]
    assert paths(block_in(gap, at(20, 4), 24)) in (made[:20], made[30:50])
    assert block_in([], at(20), 24) == []


def test_hours_of_a_day_with_recordings(record: Callable[..., Path], tmp_path: Path) -> None:
    record(at(0, 0, 3)), record(at(20)), record(at(23, 59, 59)), record(at(3, day=11)), record(at(4), band="55MHz")
    (record(at(5)).rename(tmp_path / "elsewhere"))
    assert hours_recorded(tmp_path, BAND, at(12)) == [0, 20, 23]


def test_names_that_no_recorder_gives_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "73MHz" / "2026-01-10" / "18"
    for name in ("20260110_180000_73MHz.ms", "20260110_180010_73MHz_retain.ms", "mine.ms", ".hidden.ms", "notes.txt"):
        (folder / name).mkdir(parents=True)
    assert [path.name for path in strangers([folder, tmp_path / "none"])] == [
        "20260110_180010_73MHz_retain.ms",
        "mine.ms",
    ]
