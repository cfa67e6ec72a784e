"""Which integrations make a block, in which order, and which originals are kept."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from orca import naming
from orca.errors import InputError, MissingDataError
from orca.reduction import finished_hours, plan_day, plan_given, plan_hours, why_kept
from orca.reduction_options import OriginalOptions, ReductionOptions
from orca.sky import CYG_A
from orca.telescope import INTEGRATION_S, SIDEREAL_DAY_S, sidereal_time_h, transits

HOUR = datetime(2026, 1, 10, 3, tzinfo=UTC)


def record(root: Path, band: str, first: datetime, count: int) -> list[Path]:
    """Empty files with the names of consecutive integrations."""
    made = []
    for number in range(count):
        start = first + timedelta(seconds=number * INTEGRATION_S)
        made.append(naming.raw_path(root, naming.Observation(band, start)))
        made[-1].mkdir(parents=True)
    return made


@pytest.mark.parametrize(("offset_s", "count"), [(0, 359), (9, 358), (2, 357)])
def test_an_hour_is_cut_into_blocks_none_lost_and_none_twice(tmp_path: Path, offset_s: int, count: int) -> None:
    paths = record(tmp_path, "73MHz", HOUR + timedelta(seconds=offset_s), count)
    blocks = plan_day(tmp_path, tmp_path / "averaged", 24, HOUR.date())
    assert [path for block in blocks for path in block.sources] == paths
    sizes = [len(block.sources) for block in blocks]
    assert len(sizes) == 15
    assert max(sizes) == 24
    assert min(sizes[:-1]) >= 23
    assert blocks[3].prefix == tmp_path / "averaged/73MHz/2026-01-10/03/20260110_03_73MHz_block03"
    parsed = naming.parse(naming.manifest_path(blocks[3].prefix))
    assert (parsed.kind, parsed.block, parsed.hour, parsed.day, parsed.manifest) == (
        naming.Kind.BLOCK, 3, 3, date(2026, 1, 10), True,
    )  # fmt: skip


def test_a_block_stays_the_same_when_some_of_an_hour_are_missing(tmp_path: Path) -> None:
    paths = record(tmp_path, "73MHz", HOUR, 60)
    whole = plan_day(tmp_path, tmp_path, 24, HOUR.date())
    for path in paths[5:30]:
        path.rmdir()
    left = plan_day(tmp_path, tmp_path, 24, HOUR.date())
    assert [block.prefix for block in left] == [block.prefix for block in whole]
    assert [set(mine.sources) <= set(theirs.sources) for mine, theirs in zip(left, whole, strict=True)] == [True] * 3
    given = plan_given(paths[40:44] + paths[:2], tmp_path, 24)
    assert [(block.name, len(block.sources)) for block in given] == [
        ("73MHz 2026-01-10 03h block 00", 2),
        ("73MHz 2026-01-10 03h block 01", 4),
    ]


def test_no_block_crosses_the_hour(tmp_path: Path) -> None:
    record(tmp_path, "73MHz", HOUR - timedelta(seconds=60), 12)
    blocks = plan_hours(tmp_path, tmp_path, 24, HOUR - timedelta(hours=1), HOUR)
    assert [(block.start.hour, len(block.sources)) for block in blocks] == [(2, 6), (3, 6)]
    assert len(plan_hours(tmp_path, tmp_path, 24, HOUR, HOUR)) == 1


def test_the_oldest_come_first_over_all_subbands_and_days(tmp_path: Path) -> None:
    for band, first in (("82MHz", HOUR), ("13MHz", HOUR + timedelta(hours=1)), ("13MHz", HOUR - timedelta(hours=5))):
        record(tmp_path, band, first, 3)
    blocks = plan_hours(tmp_path, tmp_path, 2, HOUR - timedelta(hours=24), HOUR + timedelta(hours=1))
    starts = [block.start for block in blocks]
    assert starts == sorted(starts)
    assert len(starts) == 6
    assert blocks[0].left_h(24, HOUR) == pytest.approx(19)
    assert [block.subband for block in plan_day(tmp_path, tmp_path, 24, HOUR.date(), ["82MHz"], [3])] == ["82MHz"]


def test_what_is_not_there_or_not_raw_is_refused(tmp_path: Path) -> None:
    paths = record(tmp_path, "73MHz", HOUR, 1)
    with pytest.raises(MissingDataError, match="nothing was recorded 2026-01-11"):
        plan_day(tmp_path, tmp_path, 24, date(2026, 1, 11))
    with pytest.raises(MissingDataError, match="no such folder of raw data"):
        plan_day(tmp_path / "none", tmp_path, 24, date(2026, 1, 11))
    with pytest.raises(InputError, match="hours are 0 to 23"):
        plan_day(tmp_path, tmp_path, 24, HOUR.date(), hours=[24])
    with pytest.raises(InputError, match="is averaged, not a raw"):
        plan_given([tmp_path / "20260110_030000_73MHz_averaged.ms"], tmp_path, 24)
    with pytest.raises(InputError, match="same integration as"):
        plan_given([paths[0], tmp_path / "other" / paths[0].name], tmp_path, 24)
    assert plan_given([paths[0], paths[0].with_name(f"{paths[0].name}.tar")], tmp_path, 24)[0].sources == (paths[0],)


def test_finished_hours_end_before_the_running_one() -> None:
    first, last = finished_hours(24, HOUR + timedelta(minutes=59))
    assert (first, last) == (HOUR - timedelta(hours=24), HOUR - timedelta(hours=1))


def test_originals_near_a_transit_or_in_a_range_of_sidereal_time_are_kept() -> None:
    [transit, *_] = transits(CYG_A.ra_rad, CYG_A.dec_rad, HOUR, HOUR + timedelta(days=1))
    trash = OriginalOptions(originals="trash", keep_near="Cyg A,CasA", keep_minutes=4)
    minute = timedelta(seconds=60 * SIDEREAL_DAY_S / 86400)
    assert why_kept(transit - 3.8 * minute, trash).endswith("min from the transit of Cyg A")
    assert why_kept(transit + 3.8 * minute, trash) != ""
    assert why_kept(transit + 4.0 * minute, trash) == ""  # its middle is 5 s later
    assert why_kept(transit - 4.3 * minute, trash) == ""
    assert why_kept(transit + 4.2 * minute, OriginalOptions()) == "all are"
    lst_h = float(sidereal_time_h(transit))  # 20.0 h
    for text, kept in (("19-21", True), ("21-19", False), ("23-1", False), ("20.5-19.5", False), ("19.9-0", True)):
        ranged = OriginalOptions(originals="trash", keep_near=(), keep_lst=text)
        assert bool(why_kept(transit, ranged)) == kept, (text, lst_h)
    with pytest.raises(InputError, match="no source 'Sun'"):
        why_kept(transit, OriginalOptions(originals="trash", keep_near="Sun"))
    with pytest.raises(ValueError, match="no range of sidereal hours"):
        OriginalOptions(keep_lst="25-26")


def test_channels_and_their_ranges() -> None:
    assert ReductionOptions(flag_channels="3,10-12,11").channels() == [3, 10, 11, 12]
    assert ReductionOptions().channels() == []
