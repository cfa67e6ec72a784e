"""`orca runs` with a real Prefect server: what became of flow runs, found by name and id, and their logs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from flows_here import flows_here
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.states import Crashed, Failed, Scheduled
from site_of_tests import Site

from orca import config
from orca.cluster import server
from orca.cluster.flow_runs import FlowRunBook
from orca.cluster.machine.questions import call_api
from orca.errors import InfrastructureError, InputError, MissingDataError


@flow(name="imaging")
def imaging(hour: int, text: str = "") -> int:
    if text == "bad":
        raise ValueError("no data\nof that hour")
    return hour


def say(url: str, run: str, times: int) -> None:
    """Log something, as a flow run does."""
    begin = datetime.now(UTC)
    texts = [(10, "small"), *((20, f"line {number}") for number in range(times)), (40, "open \x1b[31msesame")]
    for number, (level, text) in enumerate(texts):
        time = (begin + timedelta(milliseconds=number)).isoformat()
        entry = {"name": "flow", "level": level, "message": text, "timestamp": time, "flow_run_id": run}
        call_api(url, "logs/", [entry])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with some flow runs: `fine` (done), `poor` (failed), `lost` (crashed), `later` (scheduled)."""
    folder = tmp_path_factory.mktemp("runs")
    made, _ = server.ensure(folder / "prefect")
    server.wait_until_healthy(made)
    with flows_here(made.url):
        imaging.with_options(flow_run_name="fine")(3)
        with pytest.raises(ValueError, match="no data"):
            imaging.with_options(flow_run_name="poor")(4, "bad")
        with get_client(sync_client=True) as client:
            for run in client.read_flow_runs():
                say(made.url, str(run.id), 250 if run.name == "fine" else 1)
            lost = client.create_flow_run(imaging, name="lost", parameters={"hour": 5})
            client.set_flow_run_state(lost.id, Crashed(message="its process is gone \x1b[2J"), force=True)
            begin = datetime.now(UTC) + timedelta(days=1)
            client.create_flow_run(imaging, name="later", state=Scheduled(scheduled_time=begin))
            for hour in range(2):
                again = client.create_flow_run(imaging, name="again", parameters={"hour": hour})
                client.set_flow_run_state(again.id, Failed(message=f"attempt {hour}"), force=True)
        place = Site(folder / "home", {"prefect": {"api_url": made.url}})
        place.folder.mkdir()
        yield place
    server.stop(folder / "prefect")


@pytest.fixture
def book(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FlowRunBook:
    for name, value in site.environment().items():
        monkeypatch.setenv(name, value)
    return FlowRunBook(config.load())


def test_the_latest_come_first_and_what_is_to_come_is_left_out(book: FlowRunBook) -> None:
    found = book.latest(50)
    assert [run.name for run in found] == ["again", "again", "lost", "poor", "fine"]
    assert {run.flow for run in found} == {"imaging"}
    assert [run.name for run in book.latest(2)] == ["again", "again"]
    assert book.latest(50, flow="reduction") == []
    assert [run.name for run in book.latest(50, since_h=1)] == [run.name for run in found]


def test_states_are_told_apart(book: FlowRunBook) -> None:
    failed = book.latest(50, states=("failed",))
    assert [(run.name, run.state) for run in failed][2:] == [("lost", "Crashed"), ("poor", "Failed")]
    assert "no data" in failed[-1].message
    assert [run.name for run in book.latest(50, states=("done",))] == ["fine"]
    assert [(run.name, run.state) for run in book.latest(50, states=("waiting",))] == [("later", "Scheduled")]
    assert book.latest(50, states=("running",)) == []


def test_one_is_found_by_name_and_by_the_beginning_of_its_id(book: FlowRunBook) -> None:
    poor = book.find("poor")
    assert poor.parameters == {"hour": 4, "text": "bad"}
    assert book.find(poor.id) == book.find(poor.id[:8]) == poor
    assert book.find("again").parameters == {"hour": 1}
    assert UUID(book.find("later").id)
    for unknown in ("nobody", "f", "ffffffffffff"):
        with pytest.raises(MissingDataError, match=f"no flow run {unknown}"):
            book.find(unknown)


def test_ids_that_begin_alike_are_not_guessed(book: FlowRunBook, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = book.latest(2)
    alike = [type(run)(**{**vars(run), "id": f"abcd{run.id[4:]}"}) for run in runs]
    monkeypatch.setattr(book, "latest", lambda *_, **__: alike)
    with pytest.raises(InputError, match="2 flow runs begin with abcd"):
        book.find("abcd")


def test_a_long_log_is_told_whole_and_in_order(book: FlowRunBook) -> None:
    entries = [text for *_, text in book.log(book.find("fine"))]
    assert entries[:-1] == [f"line {number}" for number in range(250)]
    assert next(book.log(book.find("fine"), 10))[1:] == ("DEBUG", "small")


def test_the_command_line_shows_them(site: Site) -> None:
    shown = site.run("runs", "ls", "--state", "failed")
    assert shown.returncode == 0
    assert "no data" in shown.stdout
    assert "\x1b" not in shown.stdout
    told = json.loads(site.run("runs", "ls", "--state", "failed", "--json").stdout)
    assert [run["name"] for run in told] == ["again", "again", "lost", "poor"]
    assert '"hour": 4' in site.run("runs", "show", "poor").stdout
    log = site.run("runs", "log", "poor")
    assert "INFO     line 0\n" in log.stdout
    assert "ERROR    open ?[31msesame\n" in log.stdout
    missing = site.run("runs", "log", "nobody")
    assert (missing.returncode, "orca runs ls" in missing.stderr) == (1, True)
    assert "no such flow runs" in site.run("runs", "ls", "--flow", "cosmology").stdout


def test_a_server_that_is_away_is_told(site: Site, tmp_path: Path) -> None:
    away = Site(tmp_path / "home", {"prefect": {"api_url": "http://127.0.0.1:9/api"}})
    away.folder.mkdir()
    refused = away.run("runs", "ls")
    assert refused.returncode == 1
    assert "does not answer" in refused.stderr


def test_no_server_at_all_is_told_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Site(tmp_path / "home", {})
    place.folder.mkdir()
    for name, value in place.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(InfrastructureError, match="orca up"):
        FlowRunBook(config.load())
