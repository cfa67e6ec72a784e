"""Which recordings a calibration takes: empty folders with the recorder's names."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from orca import naming, telescope
from orca.calibration.options import BlockOptions, DelayOptions
from orca.calibration.planning import Table, in_ranges, not_recorded, plan_bandpasses, plan_delay, transit_on
from orca.errors import InputError, MissingDataError
from orca.sky import CYG_A

DAY = date(2026, 1, 10)
BLOCK = BlockOptions(integrations=6)
Record = Callable[..., list[str]]


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """`record(band, start, count)`: names of empty recordings."""

    def make(band: str, start: datetime, count: int = 1) -> list[str]:
        starts = [start + timedelta(seconds=k * telescope.INTEGRATION_S) for k in range(count)]
        for each in starts:
            naming.raw_path(tmp_path, naming.Observation(band, each)).mkdir(parents=True)
        return [naming.stamp(each) for each in starts]

    return make


def at(hour: int, minute: int = 0, second: int = 0) -> datetime:
    return datetime(2026, 1, 10, hour, minute, second, tzinfo=UTC)


def planned(raw: Path, *hours: int, band: str = "73MHz") -> list[Table]:
    return plan_bandpasses(DAY, [band], list(hours) or None, raw, raw / "out", BLOCK)


def test_of_a_whole_hour_the_block_in_its_middle_is_taken(record: Record, tmp_path: Path) -> None:
    record("73MHz", at(20), 358)
    [table] = planned(tmp_path, 20)
    assert len(table.sources) == 6
    assert abs(table.time - at(20, 30)) < timedelta(seconds=telescope.INTEGRATION_S)
    assert table.path().parent.name == "20"


@pytest.mark.parametrize(
    ("minute", "count", "taken"), [(2, 20, slice(14, 20)), (50, 20, slice(0, 6)), (57, 3, slice(0, 3))]
)
def test_of_an_hour_with_data_elsewhere_the_block_nearest_to_the_middle_is_taken(
    record: Record, tmp_path: Path, minute: int, count: int, taken: slice
) -> None:
    names = record("73MHz", at(20, minute), count)
    record("73MHz", at(21), 30)
    [table] = planned(tmp_path, 20)
    assert list(table.sources) == names[taken]
    assert table.time.hour == 20


def test_a_full_block_is_taken_before_one_with_gaps_that_is_nearer(record: Record, tmp_path: Path) -> None:
    record("73MHz", at(20, 29), 5)
    names = record("73MHz", at(20, 40), 6)
    assert [list(table.sources) for table in planned(tmp_path, 20)] == [names]


def test_where_nothing_was_recorded_the_hours_with_data_are_named(record: Record, tmp_path: Path) -> None:
    record("73MHz", at(18)), record("73MHz", at(19, 59))
    for hours, wanted in (((20,), "from 2026-01-10 20:00 to 21:00 UTC"), ((), "about 2026-01-10 20:31:57 UTC")):
        [table] = planned(tmp_path, *hours)
        with pytest.raises(MissingDataError, match=f"nothing was recorded {wanted}") as caught:
            table.still_there()
        assert str(caught.value.remedy).endswith("73MHz in the hours 18, 19: orca run bandpass --hour 18")


def test_where_a_subband_was_not_recorded_those_that_were_are_named(record: Record, tmp_path: Path) -> None:
    for band in ("46MHz", "50MHz", "73MHz"):
        record(band, at(20, 31))
    [table] = plan_bandpasses(DAY, ["64MHz"], None, tmp_path, tmp_path / "calibrations", BlockOptions())
    with pytest.raises(MissingDataError) as caught:
        table.still_there()
    assert caught.value.remedy == "That day has none of 64MHz, but of 46MHz to 50MHz, 73MHz"


def test_what_is_gone_meanwhile_is_left_out(record: Record, tmp_path: Path) -> None:
    names = record("73MHz", at(20, 30), 6)
    [table] = planned(tmp_path, 20)
    table.sources[names[2]].rmdir()
    assert list(table.still_there().sources) == [*names[:2], *names[3:]]


def test_delays_take_the_subbands_that_are_asked_for(record: Record, tmp_path: Path) -> None:
    near = transit_on(DAY) - timedelta(seconds=3)
    for band in ("36MHz", "41MHz", "46MHz", "73MHz"):
        record(band, near)
    record("55MHz", at(3))

    def bands(**options: object) -> tuple[list[str], tuple[str, ...]]:
        table = plan_delay(DAY, tmp_path, tmp_path / "out", DelayOptions(**options))
        return list(table.sources), table.missing

    assert bands() == (["41MHz", "46MHz", "73MHz"], ("55MHz",))
    assert bands(min_subband_mhz=36) == (["36MHz", "41MHz", "46MHz", "73MHz"], ("55MHz",))
    assert bands(subbands=("73", "36MHz")) == (["73MHz", "36MHz"], ())
    assert bands(subbands=("73MHz", "82MHz")) == (["73MHz"], ("82MHz",))
    with pytest.raises(InputError, match="there is no subband '74MHz'"):
        bands(subbands=("74MHz",))


def test_missing_subbands_are_told_in_ranges(record: Record, tmp_path: Path) -> None:
    every = [band.name for band in telescope.SUBBANDS]
    assert in_ranges(["82MHz", "46MHz", "41MHz", "50MHz"]) == ("41MHz to 50MHz", "82MHz")
    assert in_ranges(every) == (f"{every[0]} to {every[-1]}",)
    assert not_recorded(tmp_path, DAY, every) == ""  # said by who finds nothing at all
    for band in every[3:-1]:
        record(band, at(3))
    words = f"not recorded on 2026-01-10: 4 of 16 subbands, {every[0]} to {every[2]}, {every[-1]}"
    assert not_recorded(tmp_path, DAY, every) == words
    assert not_recorded(tmp_path, DAY, every[3:-1]) == ""


@pytest.mark.parametrize(
    ("day", "transit"),
    [(date(2026, 11, 19), "23:57"), (date(2040, 11, 18), "00:03")],
)
def test_of_two_transits_on_a_date_the_last_one_that_is_over_counts(day: date, transit: str) -> None:
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    assert len(telescope.transits(CYG_A.ra_rad, CYG_A.dec_rad, midnight, midnight + timedelta(days=1))) == 2
    assert transit_on(day).strftime("%H:%M") == transit
