"""Retention and alarms as flows with a real Prefect server, and that server's own removal of old flow runs."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from flows_here import flows_here
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import ArtifactFilter
from prefect.client.schemas.objects import StateType
from prefect.states import Completed, Failed, Running, Scheduled, State
from waiting import wait_for

from flows import retention as retention_flow
from flows.alarms import alarms
from flows.retention import retention
from orca import config
from orca.cluster import server
from orca.cluster.alarms import asked
from orca.config import Config
from orca.retention import Swept
from orca.trash import list_trash, trash

KEPT_DAYS = 30


@flow(name="some-work")
def some_work() -> None:
    """What flow runs of the past ran."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prefect")


@pytest.fixture
def prefect(home: Path) -> Iterator[str]:
    """The private server, which removes nothing by itself."""
    made, _ = server.ensure(home)
    server.wait_until_healthy(made)
    with flows_here(made.url):
        yield made.url


@pytest.fixture(scope="module", autouse=True)
def _ended(home: Path) -> Iterator[None]:
    yield
    server.stop(home)


@pytest.fixture
def settings(tmp_path: Path, prefect: str, monkeypatch: pytest.MonkeyPatch) -> Config:
    file = tmp_path / "orca-conf.yml"
    sections = {
        "prefect": {"api_url": prefect},
        "paths": {"data": str(tmp_path / "data")},
        "alarms": {"disk_share": None},
    }
    file.write_text(yaml.safe_dump(sections))
    monkeypatch.setenv("ORCA_CONF", str(file))
    return config.load()


class Past:
    """Flow runs that ended long ago: their times are set in the database itself, since the server takes none."""

    def __init__(self, home: Path, client: SyncPrefectClient) -> None:
        self.database, self.client = home / server.DATABASE, client
        self.days: dict[uuid.UUID, float] = {}

    def run(self, state: State[Any], days_ago: float) -> uuid.UUID:
        run = self.client.create_flow_run(some_work, state=Scheduled())
        self.client.set_flow_run_state(run.id, Running(), force=True)
        if not state.is_running():
            self.client.set_flow_run_state(run.id, state, force=True)
        self.days[run.id] = days_ago
        return run.id

    def age(self) -> None:
        with sqlite3.connect(self.database, timeout=30) as database:
            for run, days in self.days.items():
                at = (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%d %H:%M:%S.%f")
                database.execute("UPDATE flow_run SET start_time = ? WHERE id = ?", (at, str(run)))
                ended = "UPDATE flow_run SET end_time = ? WHERE id = ? AND end_time IS NOT NULL"
                database.execute(ended, (at, str(run)))
        database.close()

    def left(self) -> set[uuid.UUID]:
        return {run.id for run in self.client.read_flow_runs() if run.id in self.days}


@pytest.fixture
def past(home: Path, prefect: str) -> Iterator[Past]:
    with get_client(sync_client=True) as client:
        yield Past(home, client)


def table(client: SyncPrefectClient, key: str) -> list[dict[str, Any]]:
    """The latest of this key."""
    found = client.read_artifacts(artifact_filter=ArtifactFilter.model_validate({"key": {"any_": [key]}}))
    rows: list[dict[str, Any]] = json.loads(max(found, key=lambda each: each.created).data)
    return rows


def in_the_trash(settings: Config, days: float) -> None:
    path = settings.paths.data / "some.ms"
    path.mkdir(parents=True)
    (path / "table.dat").write_bytes(b"x" * 10_000)
    trashed = trash(path, settings.paths.trash)
    since = (datetime.now(UTC) - timedelta(days=days)).isoformat()
    trashed.with_name("some.ms.trash.json").write_text(json.dumps({"original": str(path), "since": since}))


def told(**parameters: Any) -> str:
    state = retention(**parameters, return_state=True)
    assert state.is_completed(), state
    return str(state.message)


def test_retention_removes_what_is_old_and_leaves_what_has_not_ended(settings: Config, past: Past) -> None:
    in_the_trash(settings, 8)
    old = past.run(Completed(), KEPT_DAYS + 1)
    kept = {past.run(Failed(), KEPT_DAYS - 1), past.run(Running(), KEPT_DAYS + 300)}
    artifact = past.client.request(
        "POST", "/artifacts/", json={"key": "old", "data": "{}", "flow_run_id": str(old)}
    ).json()["id"]
    past.age()
    assert "1 of trash, 1 of Prefect's flow runs" in told(only_tell=True)
    assert (len(list_trash(settings.paths.trash)), past.left()) == (1, kept | {old})
    message = told()
    assert message.startswith("freed ")
    assert "1 of trash, 1 of Prefect's flow runs" in message
    assert (list_trash(settings.paths.trash), past.left()) == ([], kept)
    ours = ArtifactFilter.model_validate({"id": {"any_": [artifact]}})
    assert past.client.read_artifacts(artifact_filter=ours) == []
    rows = {row["what"]: row for row in table(past.client, "retention-summary")}
    assert list(rows) == ["trash", "scratch", "scratch of Dask", "Prefect's flow runs", "logs", "failures"]
    assert rows["trash"]["bytes"] > 10_000
    assert rows["Prefect's flow runs"]["removed"] == 1
    assert "of Prefect" not in told()


def test_what_is_kept_for_ever_is_not_looked_at(settings: Config, tmp_path: Path) -> None:
    assert settings.file is not None
    nulls = dict.fromkeys(["trash_days", "scratch_hours", "prefect_days", "logs_days", "failures_days"])
    settings.file.write_text(yaml.safe_dump({**yaml.safe_load(settings.file.read_text()), "retention": nulls}))
    in_the_trash(settings, 800)
    assert told() == "freed 0 bytes"
    assert len(list_trash(settings.paths.trash)) == 1


def test_a_step_that_fails_does_not_keep_the_others_from_it(
    settings: Config, past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> Swept:
        raise OSError("the disk is away")

    monkeypatch.setattr(retention_flow, "sweep_trash", fail)
    day = settings.paths.data / "failures" / "2020-01-01"
    day.mkdir(parents=True)
    state = retention(return_state=True)
    assert state.type == StateType.FAILED
    assert "1 steps failed" in state.message
    assert not day.exists()
    [row] = [row for row in table(past.client, "retention-summary") if row["what"] == "trash"]
    assert row["problem"] == "the disk is away"


def test_alarms_are_told_once_by_the_flow(settings: Config, past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked, "due", lambda now: now)
    settings.paths.raw.mkdir(parents=True)

    @flow(name="nightly-calibration")
    def night() -> Any:
        return Failed(message="no data\nat all")

    assert night(return_state=True).is_failed()
    for news in (2, 0):
        state = alarms(return_state=True)
        assert state.is_completed()
        assert state.message == f"alarms up: 2; new or over: {news}"
    rows = table(past.client, "alarms-summary")
    assert [row["condition"] for row in rows] == ["calibration", "recording"]
    assert rows[0]["text"].endswith("failed: no data")

    @flow(name="nightly-calibration")
    def again() -> None: ...

    again()
    assert alarms(only=["calibration", "recording"], return_state=True).message == "alarms up: 1; new or over: 1"


def test_the_server_removes_what_is_old_by_itself(home: Path, past: Past) -> None:
    old = past.run(Completed(), KEPT_DAYS + 1)
    kept = {past.run(Failed(), KEPT_DAYS - 1), past.run(Running(), KEPT_DAYS + 300)}
    past.age()
    server.stop(home)
    made, _ = server.ensure(home, keep_days=KEPT_DAYS)
    server.wait_until_healthy(made)
    with flows_here(made.url), get_client(sync_client=True) as past.client:
        wait_for(lambda: old not in past.left(), "the removal of an old flow run")
        assert past.left() == kept
