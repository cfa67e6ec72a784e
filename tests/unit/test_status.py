"""What `orca status` says, and tables on a narrow terminal."""

from __future__ import annotations

from typing import Any

import pytest

from orca.cli.changes import print_table
from orca.cluster.machine.overview import why_late

POOL = {"name": "imaging", "concurrency_limit": 2, "is_paused": False}
ONLINE = [{"status": "ONLINE"}]
LATE = {"state": "Late", "running": 0}


@pytest.mark.parametrize(
    ("pool", "workers", "late", "why"),
    [
        (POOL, ONLINE, LATE, ""),
        (POOL, [], LATE, "no flow worker of the pool is online"),
        (POOL, [{"status": "OFFLINE"}], LATE, "no flow worker of the pool is online"),
        (POOL, ONLINE, {**LATE, "running": 2}, "the pool runs 2 at once, as many as it may"),
        ({**POOL, "concurrency_limit": None}, ONLINE, {**LATE, "running": 99}, ""),
        ({**POOL, "is_paused": True}, [], LATE, "the pool is paused (`prefect work-pool resume imaging`)"),
        (
            POOL,
            ONLINE,
            {**LATE, "state": "AwaitingConcurrencySlot"},
            "their deployment runs as often at once as it may",
        ),
    ],
)
def test_status_says_what_keeps_flow_runs_from_beginning(
    pool: dict[str, Any], workers: list[dict[str, Any]], late: dict[str, Any], why: str
) -> None:
    assert why_late(pool, workers, late) == why


def test_in_a_table_that_is_too_wide_only_the_widest_column_is_broken(capsys: pytest.CaptureFixture[str]) -> None:
    path = "/lustre/pipeline/" + "x" * 200 + ".ms"
    print_table(["id", "what", "reason"], [["abcdef12", path, "is gone. Copy it back and send the message again"]])
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 160 for line in lines)
    assert "abcdef12" in lines[1]
    assert "is gone. Copy it back and send the message again" in lines[1]
    assert "".join(line[8:].split("is gone")[0].strip() for line in lines[1:]) == path


def test_a_table_that_fits_is_not_broken(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["a", "b"], [["two words", "more [bold]words"], ["", "two\nlines"]])
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()[1:]] == [
        "two words  more [bold]words",
        "           two",
        "           lines",
    ]
