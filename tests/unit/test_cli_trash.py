"""`orca trash`: what it shows, what it brings back, and what is gone for good."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from orca.cli.trash import app
from orca.errors import OrcaError
from orca.trash import list_trash, trash


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The trash of a configuration."""
    paths = {"trash": str(tmp_path / "trash"), "calibration": str(tmp_path / "calibration")}
    (tmp_path / "orca-conf.yml").write_text(yaml.safe_dump({"paths": paths}))
    monkeypatch.setenv("ORCA_CONF", str(tmp_path / "orca-conf.yml"))
    return tmp_path / "trash"


def orca_trash(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "TERM": "dumb"})


def put(path: Path, root: Path, text: str = "x", days_ago: float = 0) -> Path:
    """Make a file and remove it; where it lies now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    trashed = trash(path, root)
    sidecar = trashed.with_name(f"{trashed.name}.trash.json")
    since = datetime.now(UTC) - timedelta(days=days_ago)
    sidecar.write_text(json.dumps({"original": str(path), "since": since.isoformat()}))
    return trashed


def originals(result: Result) -> list[str]:
    return [Path(row["original"]).name for row in json.loads(result.stdout)]


def test_an_empty_trash_says_where_it_is(root: Path) -> None:
    result = orca_trash("ls")
    assert (result.exit_code, result.stdout.strip()) == (0, f"there is nothing in {root}")
    assert json.loads(orca_trash("ls", "--json").stdout) == []
    assert orca_trash("empty").exit_code == 0


def test_what_is_there_is_listed_by_folder_and_age(tmp_path: Path, root: Path) -> None:
    put(tmp_path / "raw" / "73MHz" / "a", root, days_ago=9)
    put(tmp_path / "raw" / "78MHz" / "b", root, days_ago=2)
    put(tmp_path / "calibration" / "c", tmp_path / "calibration" / "trash", days_ago=5)
    shown = orca_trash("ls").stdout
    assert [line.rstrip()[-1] for line in shown.splitlines() if "/raw/" in line or "/calibration/" in line] == [*"acb"]
    assert originals(orca_trash("ls", "--json")) == ["a", "c", "b"]
    assert originals(orca_trash("ls", "--json", "--older-than", "4")) == ["a", "c"]
    assert originals(orca_trash("ls", "--json", "--below", tmp_path / "raw")) == ["a", "b"]
    assert originals(orca_trash("ls", "--json", "--below", tmp_path / "raw", "--older-than", 8)) == ["a"]


def test_the_last_of_a_place_comes_back_first_and_a_folder_with_all_in_it(tmp_path: Path, root: Path) -> None:
    path = tmp_path / "raw" / "a"
    older = put(path, root, "older", days_ago=2)
    put(path, root, "newer", days_ago=1)
    assert orca_trash("restore", path).exit_code == 0
    assert path.read_text() == "newer"
    (tmp_path / "raw" / "report").write_text("report")
    trash(tmp_path / "raw" / "report", root, beside=older)
    path.unlink()
    result = orca_trash("restore", older.parent.name)
    assert (result.exit_code, len(result.stdout.split())) == (0, 2)
    assert (path.read_text(), (tmp_path / "raw" / "report").read_text()) == ("older", "report")
    assert list_trash(root) == []


def test_what_cannot_come_back_is_named_and_the_rest_does(tmp_path: Path, root: Path) -> None:
    taken, free = tmp_path / "raw" / "taken", tmp_path / "raw" / "free"
    put(taken, root, "old")
    put(free, root)
    taken.write_text("new")
    result = orca_trash("restore", taken, tmp_path / "raw" / "never", free)
    assert result.exit_code == 1
    assert f"{taken}: exists, and is not overwritten" in result.stderr
    assert "never: is not in the trash" in result.stderr
    assert (taken.read_text(), free.exists()) == ("new", True)
    assert [entry.original for entry in list_trash(root)] == [taken]


def test_nothing_is_gone_for_good_unless_somebody_says_so(tmp_path: Path, root: Path) -> None:
    put(tmp_path / "raw" / "old", root, days_ago=9)
    put(tmp_path / "raw" / "new", root)
    refused = orca_trash("empty", "--older-than", 7)
    assert refused.exit_code == 1
    assert isinstance(refused.exception, OrcaError)
    assert len(list_trash(root)) == 2
    done = orca_trash("empty", "--older-than", 7, "--yes")
    assert (done.exit_code, done.stdout.strip()) == (0, "removed 1 entry")
    assert [entry.original.name for entry in list_trash(root)] == ["new"]
    assert orca_trash("empty", "--yes").exit_code == 0
    assert list(root.iterdir()) == []


def test_what_was_half_removed_is_never_brought_back(tmp_path: Path, root: Path) -> None:
    half = put(tmp_path / "raw" / "half", root)
    half.rename(half.with_name(".half.leaving"))  # as by a kill right after this step
    assert list_trash(root) == []
    assert orca_trash("restore", tmp_path / "raw" / "half").exit_code == 1
    assert orca_trash("empty", "--yes").exit_code == 0
    assert list(root.iterdir()) == []
