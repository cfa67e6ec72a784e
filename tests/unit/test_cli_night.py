"""`orca night`: its table, its JSON, its page."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from click.testing import Result
from some_night import Night
from typer.main import get_command
from typer.testing import CliRunner

from orca.cli import app
from orca.errors import InfrastructureError


@pytest.fixture
def night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Night:
    made = Night(tmp_path / "data")
    (tmp_path / "orca-conf.yml").write_text(
        yaml.safe_dump({"paths": {"data": str(tmp_path / "data"), "raw": str(made.places.raw)}})
    )
    monkeypatch.setenv("ORCA_CONF", str(tmp_path / "orca-conf.yml"))
    return made


def orca_night(*words: str | Path, columns: int = 100) -> Result:
    get_command(app)
    return CliRunner().invoke(app, ["night", *map(str, words)], env={"COLUMNS": str(columns), "TERM": "dumb"})


def test_the_table_has_all_subbands_their_sums_and_what_is_wrong(night: Night) -> None:
    night.reduce(night.record(range(24)))
    night.fail("imaging", "x", night.record(range(24, 25)), "/raw/x.ms: WSClean failed: no memory")
    result = orca_night("2026-01-10")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    rows = {line.split()[0]: line.split() for line in lines[1:19]}
    assert rows["73MHz"][1:6] == ["0%", "8592", "25", "24", "·"]
    assert rows["all"][2:5] == ["137472", "25", "24"]
    assert "13-69MHz, 78-82MHz 00-23h: nothing was recorded" in lines
    assert any(line.startswith("73MHz 03h: 1 overdue") for line in lines)
    assert "imaging failed: x: WSClean failed: no memory" in lines
    assert lines[-2].startswith("deleted next: 73MHz 03h, 1 integration without a product, any moment")
    assert "  03h" not in result.stdout
    assert "  03h" in orca_night("2026-01-10", "--hours").stdout


def test_json_and_page(night: Night, tmp_path: Path) -> None:
    night.reduce(night.record(range(24)))
    told = json.loads(orca_night("2026-01-10", "--json").stdout)
    assert (told["total"]["reduced"], len(told["cells"])) == (24, 16 * 24)
    result = orca_night("2026-01-10", "--html", tmp_path / "new" / "night.html")
    assert (result.exit_code, result.stdout.strip()) == (0, f"wrote {tmp_path / 'new' / 'night.html'}")
    assert (tmp_path / "new" / "night.html").read_text().startswith("<!doctype html>")


def test_today_is_shown_when_no_date_is_given(night: Night) -> None:
    before = datetime.now(UTC).date().isoformat()
    told = json.loads(orca_night("--json").stdout)
    assert before <= told["date"] <= datetime.now(UTC).date().isoformat()
    assert told["cells"][23]["expected"] in (0, 358)


def test_what_is_wrong_usage(night: Night, tmp_path: Path) -> None:
    assert orca_night("yesterday").exit_code == 2
    assert orca_night("--resubmit", "all").exit_code == 2
    assert orca_night("--resubmit", "failed", "--html", tmp_path / "x.html").exit_code == 2


def test_without_a_server_nothing_is_asked_for_and_said_so(night: Night) -> None:
    assert orca_night("2026-01-10", "--resubmit", "missing").stdout == "nothing of 2026-01-10 is without a product\n"
    night.record(range(24))
    result = orca_night("2026-01-10", "--resubmit", "missing")
    assert isinstance(result.exception, InfrastructureError)
    assert "orca up" in str(result.exception)
