"""Recorded files into blocks: full, late, of an hour that is over, and rules that say which files are meant."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orca import naming
from orca.errors import ConfigError
from orca.events.gathering import Gathering, Recording
from orca.events.rules import PACKAGED, RecordedRule, Rules, load_rules
from orca.telescope import INTEGRATION_S

HOUR = datetime(2026, 1, 10, 3, tzinfo=UTC)


def rule(**more: Any) -> RecordedRule:
    return RecordedRule(**{"name": "reduce", "deployment": "reduction/reduction", "block": 4, **more})


def recorded(number: int, band: str = "73MHz", hour: datetime = HOUR) -> Recording:
    """The integration of that number in its hour; names have whole seconds."""
    start = (hour + timedelta(seconds=2.7 + number * INTEGRATION_S)).replace(microsecond=0)
    return Recording(start, Path(f"/raw/{naming.stamp(start)}_{band}.ms"), 1000, band)


def numbers(batch: Any) -> list[int]:
    return [round((file.start - HOUR).total_seconds() / INTEGRATION_S) for file in batch.files]


def test_a_block_goes_when_it_is_full_and_others_of_its_rule_that_are_ready_by_then_go_with_it() -> None:
    gathering, asked = Gathering(), rule(together_s=10)
    for number in range(6):
        gathering.add(asked, recorded(number), now=100.0)
    assert list(gathering.due(105.0)) == []
    for number in range(4):
        gathering.add(asked, recorded(number, "78MHz"), now=106.0)
    [batch] = gathering.due(110.0)
    assert (batch.blocks, len(batch.files), len(gathering)) == (2, 8, 2)
    assert {file.subband for file in batch.files} == {"73MHz", "78MHz"}
    assert list(gathering.due(111.0)) == []


def test_blocks_are_those_of_the_reduction_wherever_in_the_hour_the_first_file_is() -> None:
    gathering, asked = Gathering(), rule(together_s=0)
    for number in (350, 351, 352, 353):
        gathering.add(asked, recorded(number), now=0.0)
    assert gathering.blocks == 2  # 350 and 351 belong to block 87, which began with 348
    assert list(gathering.due(1.0)) == []


def test_a_block_that_is_not_full_goes_after_its_time_and_one_of_an_hour_that_is_over_at_once() -> None:
    gathering, asked = Gathering(), rule(wait_s=300, together_s=0)
    gathering.add(asked, recorded(0), now=0.0)
    assert gathering.next_due_s(100.0) == 200.0
    assert list(gathering.due(299.0)) == []
    [batch] = gathering.due(300.0)
    assert numbers(batch) == [0]
    gathering.add(asked, recorded(357), now=400.0)
    gathering.add(asked, recorded(0, "78MHz"), now=400.0)
    gathering.add(asked, recorded(0, hour=HOUR + timedelta(hours=1)), now=401.0)
    [batch] = gathering.due(402.0)
    assert numbers(batch) == [357]
    assert len(gathering) == 2
    assert [numbers(batch) for batch in gathering.due(403.0, everything=True)] == [[0, 359]]
    assert gathering.next_due_s(500.0) == float("inf")


def test_each_rule_has_its_own_patience() -> None:
    gathering = Gathering()
    gathering.add(rule(name="soon", wait_s=10, together_s=0), recorded(0), now=0.0)
    gathering.add(rule(name="late", wait_s=100, together_s=0), recorded(0), now=0.0)
    assert [batch.rule.name for batch in gathering.due(20.0)] == ["soon"]
    assert [batch.rule.name for batch in gathering.due(100.0)] == ["late"]


def test_a_file_that_is_told_twice_is_in_its_block_once() -> None:
    gathering, asked = Gathering(), rule()
    for _ in range(5):
        gathering.add(asked, recorded(0), now=0.0)
    assert len(gathering) == 1


def test_every_file_of_a_day_goes_into_exactly_one_block() -> None:
    gathering, asked, seen = Gathering(), rule(block=24, together_s=5), []
    now, count = 0.0, 0
    for hour in range(3):
        for number in range(358):
            for band in ("73MHz", "78MHz"):
                gathering.add(asked, recorded(number, band, HOUR + timedelta(hours=hour)), now)
                count += 1
            now += INTEGRATION_S
            for batch in gathering.due(now):
                seen += [file.path for file in batch.files]
    seen += [file.path for batch in gathering.due(now, everything=True) for file in batch.files]
    assert len(seen) == len(set(seen)) == count


@pytest.mark.parametrize(
    ("more", "name", "wanted"),
    [
        ({}, "20260110_031500_73MHz.ms", True),
        ({}, "20260110_031500_73MHz.ms.tar", True),
        ({}, "20260110_031500_73MHz_averaged.ms", False),
        ({"kind": "averaged"}, "20260110_031500_73MHz_averaged.ms", True),
        ({"subbands": ["78MHz"]}, "20260110_031500_73MHz.ms", False),
        ({"subbands": ["78MHz", "73MHz"]}, "20260110_031500_73MHz.ms", True),
        ({"lst_hours": "2-4"}, "20260110_031500_73MHz.ms", True),  # sidereal time 2.72 h
        ({"lst_hours": "11-14"}, "20260110_031500_73MHz.ms", False),
        ({"lst_hours": "23-3"}, "20260110_031500_73MHz.ms", True),
    ],
)
def test_a_rule_is_for_files_of_a_kind_subband_and_sidereal_time(more: dict[str, Any], name: str, wanted: bool) -> None:
    assert rule(**more).wants(naming.parse(name)) is wanted


def test_the_rules_that_come_with_orca_are_right() -> None:
    assert [found.deployment for found in load_rules(PACKAGED).recorded] == ["reduction/reduction"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("recorded: [{name: a, deployment: reduction}]", "deployment"),
        ("recorded: [{name: a, deployment: r/r, subband: [73MHz]}]", "unknown key; did you mean subbands"),
        ("recorded: [{name: a, deployment: r/r, subbands: [74MHz]}]", "74MHz"),
        ("recorded: [{name: a, deployment: r/r, lst_hours: 11 to 14}]", "a range of sidereal hours such as 11-14"),
        ("recorded: [{name: a, deployment: r/r}, {name: a, deployment: r/r}]", "there are two rules a"),
        ("announced: [{name: a, deployment: r/r, after: calibration}]", "unknown value"),
        ("recorded: [{name: a, deployment: r/r, parameters: {measurement_sets: []}}]", "what takes the files"),
    ],
)
def test_a_mistake_in_the_rules_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "triggers.yaml"
    path.write_text(f"# mine\n{text}\n")
    with pytest.raises(ConfigError, match=told) as error:
        load_rules(path)
    assert f"{path}:2" in str(error.value)


def test_the_model_is_what_the_file_says(tmp_path: Path) -> None:
    path = tmp_path / "triggers.yaml"
    path.write_text("announced: [{name: image, deployment: imaging/imaging, after: calibration.ready, every: 6}]\n")
    assert load_rules(path) == Rules(
        announced=[{"name": "image", "deployment": "imaging/imaging", "after": "calibration.ready", "every": 6}]
    )
