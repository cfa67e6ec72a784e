"""What Prefect's page shows of a flow run while it runs: its tags, how far it is, and where Dask's own page is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flows_here import flows_here
from prefect import flow, get_client, tags
from prefect.runtime import flow_run
from waiting import wait_for

from orca.cluster import progress, server
from orca.cluster.artifacts import tagged
from orca.cluster.machine.questions import call_api
from orca.cluster.progress import Progress

DASHBOARD = "http://127.0.0.1:8787/status"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server; flows of this process use it."""
    folder: Path = tmp_path_factory.mktemp("page")
    made, _ = server.ensure(folder / "prefect")
    server.wait_until_healthy(made)
    with flows_here(made.url):
        yield made.url
    server.stop(folder / "prefect")


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.2)


def artifacts(url: str, run: str) -> dict[str, dict[str, Any]]:
    """Of a flow run, by their keys."""
    found = call_api(url, "artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})
    return {each["key"]: each for each in found}


@flow
def works(url: str) -> str:
    """Ends three units, and looks at its page in between."""
    run = str(flow_run.id)
    with Progress("image", DASHBOARD) as told:
        told.tell(1, 4)
        first = wait_for(lambda: artifacts(url, run).get("progress"), "progress", 30)
        assert (float(first["data"]), first["description"]) == (25.0, "1 of 4 image")
        told.tell(3, 4)
        wait_for(lambda: float(artifacts(url, run)["progress"]["data"]) == 75, "more progress", 30)
        told.tell(4, 4)
    return run


def test_the_page_tells_how_far_it_is_and_where_dask_is(url: str) -> None:
    told = artifacts(url, works(url))
    assert sorted(told) == ["dask", "progress"]
    assert float(told["progress"]["data"]) == 100
    assert DASHBOARD in told["dask"]["data"]


@flow
def ends_soon() -> str:
    with Progress("image") as told:
        told.tell(1, 1)
    return str(flow_run.id)


def test_what_ends_soon_tells_nothing(url: str) -> None:
    assert artifacts(url, ends_soon()) == {}


def test_a_server_that_is_away_holds_up_nobody(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs(*_: Any, **__: Any) -> None:
        time.sleep(30)

    monkeypatch.setattr(progress, "create_progress_artifact", hangs)
    monkeypatch.setattr(progress, "END_S", 0.1)
    begun = time.monotonic()
    with Progress("image") as told:
        for number in range(5):
            told.tell(number, 5)
            time.sleep(0.1)
    assert time.monotonic() - begun < 15


def test_a_flow_run_keeps_its_tags_and_gets_more(url: str) -> None:
    @flow
    def tagged_flow() -> str:
        return tagged(lambda: str(flow_run.id), lambda: {"73MHz", "2026-01-10"})()

    with tags("catch-up"):
        run = tagged_flow()
    with get_client(sync_client=True) as client:
        assert set(client.read_flow_run(run).tags) == {"catch-up", "73MHz", "2026-01-10"}
