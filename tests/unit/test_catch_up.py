"""What is found to be missing, what is on its way, and what is asked for in which order."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orca import naming
from orca.catch_up import ATTEMPTS, TOGETHER, Missing, OnItsWay, find_missing, plan
from orca.manifest import Fingerprint, Manifest
from orca.reduction import Block
from orca.telescope import INTEGRATION_S

HOUR = datetime(2026, 1, 10, 3, tzinfo=UTC)
NOW = HOUR + timedelta(hours=20)
DAY, QUARTER = timedelta(hours=24), timedelta(minutes=15)


def record(root: Path, band: str, numbers: range, hour: datetime = HOUR, came: datetime = HOUR) -> list[Path]:
    """Empty files with the names of integrations of an hour, as old as if they had come at some time."""
    made = []
    for number in numbers:
        observation = naming.Observation(band, hour + timedelta(seconds=2 + number * INTEGRATION_S))
        made.append(naming.raw_path(root / "raw", observation, tar=True))
        made[-1].parent.mkdir(parents=True, exist_ok=True)
        made[-1].touch()
        os.utime(made[-1], (came.timestamp(), came.timestamp()))
    return made


def reduce(root: Path, sources: list[Path], number: int) -> Path:
    """A manifest of a block that was made of these."""
    seen = naming.parse(sources[0]).observation
    prefix = naming.block_prefix(root / "averaged", seen.subband, seen.start.date(), seen.start.hour, number)
    inputs = tuple(Fingerprint(path=str(s), kind="file", size=1, mtime_ns=1, files=1, inode=1) for s in sources)
    cost: dict[str, Any] = dict.fromkeys(
        ("seconds", "cpu_seconds", "peak_memory_bytes", "read_bytes", "written_bytes"), 0
    )
    made = Manifest(
        product=prefix.name, kind="reduction", inputs=inputs, options={}, software={}, started="", finished="",
        host="", **cost,
    )  # fmt: skip
    path = naming.manifest_path(prefix)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(made.text())
    return path


def missing(root: Path, now: datetime = NOW, size: int = 24) -> list[tuple[str, int, int]]:
    """Blocks with the numbers of their integrations, and of those that are missing."""
    found = find_missing(root / "raw", root / "averaged", size, DAY, QUARTER, now)
    return [(each.block.name, len(each.block.sources), len(each.names)) for each in found]


def test_a_block_is_missing_until_a_manifest_names_all_of_it(tmp_path: Path) -> None:
    paths = record(tmp_path, "73MHz", range(72))
    first = record(tmp_path, "82MHz", range(24), HOUR - timedelta(hours=2))
    assert missing(tmp_path) == [
        ("82MHz 2026-01-10 01h block 00", 24, 24),
        *((f"73MHz 2026-01-10 03h block {number:02d}", 24, 24) for number in range(3)),
    ]
    reduce(tmp_path, first, 0)
    reduce(tmp_path, paths[:23], 0)
    reduce(tmp_path, paths[24:48], 1)
    reduce(tmp_path, paths[48:], 2).write_text("{")  # broken
    assert missing(tmp_path) == [
        ("73MHz 2026-01-10 03h block 00", 24, 1),
        ("73MHz 2026-01-10 03h block 02", 24, 24),
    ]
    reduce(tmp_path, [path.with_suffix("") for path in paths[:24]], 0)  # before they were packed
    reduce(tmp_path, paths[48:], 2)
    assert missing(tmp_path) == []
    assert missing(tmp_path, size=12) == [], "blocks of another size are as good"


def test_what_the_recorder_has_deleted_by_now_is_not_looked_for(tmp_path: Path) -> None:
    record(tmp_path, "73MHz", range(24))
    assert missing(tmp_path, HOUR + timedelta(hours=24, minutes=59))
    assert missing(tmp_path, HOUR + timedelta(hours=25)) == []
    assert missing(tmp_path / "nowhere") == []


def test_a_block_waits_for_the_trigger_after_it_was_recorded_and_after_a_part_came_late(tmp_path: Path) -> None:
    paths = record(tmp_path, "73MHz", range(24))
    end = HOUR + timedelta(seconds=2 + 24 * INTEGRATION_S)
    assert missing(tmp_path, end + QUARTER - timedelta(seconds=2)) == []
    assert len(missing(tmp_path, end + QUARTER)) == 1
    reduce(tmp_path, paths, 0)
    record(tmp_path, "73MHz", range(24, 30), came=NOW - timedelta(minutes=14))
    assert missing(tmp_path) == []
    assert missing(tmp_path, NOW + timedelta(minutes=1)) == [("73MHz 2026-01-10 03h block 01", 6, 6)]


def block(tmp_path: Path, number: int = 0, band: str = "73MHz", hour: datetime = HOUR) -> Missing:
    start = hour + timedelta(seconds=2 + 24 * number * INTEGRATION_S)
    sources = tuple(
        naming.raw_path(tmp_path, naming.Observation(band, start + timedelta(seconds=n * INTEGRATION_S)))
        for n in range(3)
    )
    made = Block(f"{band} {start:%d %Hh} block {number:02d}", band, start, sources, tmp_path / "prefix")
    return Missing(made, tuple(map(naming.strip_suffix, sources)))


@pytest.mark.parametrize(
    ("parameters", "begins", "covers"),
    [
        ({"measurement_sets": ["/elsewhere/20260110_030012_73MHz.ms.tar"]}, NOW, True),
        ({"measurement_sets": ["/elsewhere/20260110_030012_78MHz.ms"]}, NOW, False),
        ({"measurement_sets": ["/raw/20260110_030012_73MHz.ms"], "out": "/elsewhere"}, NOW, False),
        ({"day": "2026-01-10"}, NOW, True),
        ({"day": "2026-01-10", "hours": [2, 3], "subbands": ["73"]}, NOW, True),
        ({"day": "2026-01-10", "hours": [4]}, NOW, False),
        ({"day": "2026-01-10", "subbands": ["78MHz"]}, NOW, False),
        ({"day": "2026-01-10", "raw": "/elsewhere"}, NOW, False),
        ({"day": "2026-01-10", "raw": "/raw", "out": "/averaged"}, NOW, True),
        ({"day": "2026-01-11"}, NOW, False),
        ({"day": "someday"}, NOW, False),
        ({"day": "2026-01-10", "subbands": ["74MHz"]}, NOW, False),
        ({"last_hours": 1}, HOUR + timedelta(hours=1, minutes=5), True),
        ({"last_hours": 1}, HOUR + timedelta(minutes=59), False),
        ({"last_hours": 1}, HOUR + timedelta(hours=2), False),
        ({"last_hours": 2}, HOUR + timedelta(hours=2), True),
        ({}, NOW, True),
        ({}, HOUR + timedelta(hours=25), False),
    ],
)
def test_what_a_flow_run_covers(tmp_path: Path, parameters: dict[str, Any], begins: datetime, covers: bool) -> None:
    coming = OnItsWay(Path("/raw"), Path("/averaged"))
    coming.add(parameters, begins)
    assert coming.has(block(tmp_path).block) is covers


def nothing() -> OnItsWay:
    return OnItsWay(Path("/raw"), Path("/averaged"))


def test_blocks_of_similar_age_share_a_flow_run_and_the_oldest_come_first(tmp_path: Path) -> None:
    many = [block(tmp_path, number, band) for number in range(5) for band in ("73MHz", "78MHz", "82MHz")] * 5
    old = block(tmp_path, hour=HOUR - timedelta(hours=3))
    todo = plan([old, *many], nothing(), {})
    assert [len(batch.blocks) for batch in todo.batches] == [1, TOGETHER, 75 - TOGETHER]
    assert todo.batches[0].blocks == (old.block,)
    assert todo.batches[0].sources == list(map(str, old.block.sources))
    assert (todo.coming, todo.given_up) == (0, ())


def test_a_block_is_given_up_after_three_attempts_and_tried_anew_when_more_of_it_has_come(tmp_path: Path) -> None:
    failing, fresh, coming = (block(tmp_path, number) for number in range(3))
    way = nothing()
    way.add({"measurement_sets": list(map(str, coming.block.sources))}, NOW)
    for tries in range(ATTEMPTS + 1):
        tried = dict.fromkeys(failing.names, tries)
        todo = plan([failing, fresh, coming], way, tried)
        found = sorted((batch.attempt, batch.blocks) for batch in todo.batches)
        assert todo.coming == 1
        if tries == 0:
            assert found == [(1, (failing.block, fresh.block))]
        elif tries < ATTEMPTS:
            assert found == [(1, (fresh.block,)), (tries + 1, (failing.block,))]
        else:
            assert (found, todo.given_up) == ([(1, (fresh.block,))], (failing.block,))
    del tried[failing.names[1]]  # as if it had come after them
    assert [batch.attempt for batch in plan([failing], way, tried).batches] == [1]
