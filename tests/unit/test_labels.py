"""What flow runs are called, and their tags, by what was asked for."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from flows.labels import name_of, tags_of

NOW = datetime(2026, 1, 10, 1, 30, tzinfo=UTC)


def sets(*names: str) -> dict[str, Any]:
    return {"measurement_sets": [f"/raw/{name}.ms.tar" for name in names]}


@pytest.mark.parametrize(
    ("asked", "name", "tags"),
    [
        (sets("20260110_031415_73MHz"), "20260110_031415_73MHz", {"73MHz", "2026-01-10"}),
        (sets("20260110_031415_73MHz", "20260110_035900_73MHz"), "73MHz 2026-01-10 03h", {"73MHz", "2026-01-10"}),
        (
            sets("20260110_031415_73MHz", "20260110_051415_78MHz"),
            "73MHz 78MHz 2026-01-10 03h-05h",
            {"73MHz", "78MHz", "2026-01-10"},
        ),
        (
            sets(*(f"20260110_235900_{band}MHz" for band in (13, 18, 23)), "20260111_000100_82MHz"),
            "4 subbands 2026-01-10 23h to 2026-01-11 00h",
            {"13MHz", "18MHz", "23MHz", "82MHz", "2026-01-10", "2026-01-11"},
        ),
        (sets("mine", "20260110_031415_73MHz"), "mine and 1 more", {"73MHz", "2026-01-10"}),
        ({"day": date(2026, 1, 10)}, "2026-01-10", {"2026-01-10"}),
        (
            {"day": "2026-01-10", "hours": [3, 5], "subbands": ["73MHz"]},
            "73MHz 2026-01-10 03h 05h",
            {"73MHz", "2026-01-10"},
        ),
        ({"last_hours": 3}, "last 3 h", {"2026-01-09", "2026-01-10"}),
        ({"subbands": ["99MHz"]}, "last transit", set()),
        ({}, "last transit", set()),
    ],
)
def test_a_flow_run_tells_subbands_and_times(asked: dict[str, Any], name: str, tags: set[str]) -> None:
    assert name_of("stage", asked, "last transit") == f"stage {name}"
    assert tags_of(asked, NOW) == tags
