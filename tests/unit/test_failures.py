"""What failed, on disk: written, read, replaced and forgotten."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from orca import failures
from orca.failures import Failed, day_of, failure_path, forget, read_failures, tell

DAY = date(2026, 1, 10)
SOURCE = "/raw/73MHz/2026-01-10/03/20260110_030002_73MHz.ms"


def a_failure(
    unit: str = "73MHz 2026-01-10 03h block 00", stage: str = "reduction", reason: str = "it broke"
) -> Failed:
    return Failed(stage, unit, reason, "payload", ("/mine/other.ms", SOURCE), failures.now(), "long", "id", "name")


def test_a_failure_is_told_replaced_and_forgotten(tmp_path: Path) -> None:
    path = tell(tmp_path, a_failure())
    assert path == tmp_path / "2026-01-10/reduction/73MHz_2026-01-10_03h_block_00.json"
    assert read_failures(tmp_path, DAY) == [a_failure()]
    tell(tmp_path, a_failure(reason="again"))
    assert [each.reason for each in read_failures(tmp_path, DAY)] == ["again"]
    assert forget(tmp_path, "reduction", a_failure().unit, a_failure().sources)
    assert not forget(tmp_path, "reduction", a_failure().unit, a_failure().sources)
    assert read_failures(tmp_path, DAY) == []


def test_data_whose_names_tell_no_day_are_undated(tmp_path: Path) -> None:
    assert day_of(["mine.ms", SOURCE]) == DAY
    assert day_of(["mine.ms"]) is None
    assert failure_path(tmp_path, "imaging", "mine", None) == tmp_path / "undated/imaging/mine.json"


@pytest.mark.parametrize("unit", ["../../etc", "a/b", ".hidden", "x" * 500, "", "é", "a\nb"])
def test_no_unit_leaves_its_folder_and_no_two_share_a_file(tmp_path: Path, unit: str) -> None:
    path = failure_path(tmp_path, "imaging", unit, DAY)
    assert path.parent == tmp_path / "2026-01-10/imaging"
    assert not path.name.startswith(".")
    assert len(path.name) < 150
    assert path != failure_path(tmp_path, "imaging", unit + "?", DAY)
    tell(tmp_path, a_failure(unit, "imaging"))
    assert [each.unit for each in read_failures(tmp_path, DAY)] == [unit]


def test_what_is_broken_is_left_out_and_what_is_long_is_cut(tmp_path: Path) -> None:
    many = Failed("reduction", "many", "r", "", tuple(f"/{n}.ms" for n in range(5000)), "", detail="x" * 9999 + "end")
    path = tell(tmp_path, many)
    assert path.stat().st_size < 50_000
    tell(tmp_path, a_failure())
    for text in ("", "[]", "{", '{"stage": "x"}'):
        (tmp_path / "2026-01-10/reduction/broken.json").write_text(text)
        assert read_failures(tmp_path, DAY) == [a_failure()]
