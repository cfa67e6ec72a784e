"""The warm worker on a real server: starts, logs, cancels, keeps to limits, drains."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from warm_site import WarmSite, alive, start, until


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmSite]:
    """A server, and a pool `warm` with a worker that may run two flow runs at once."""
    site = WarmSite(tmp_path_factory.mktemp("warm")).open()
    try:
        site.pool("warm")
        site.work("warm", "--limit", "2", ORCA_REAP_S="1000")  # it is told what it has to do
        yield site
    finally:
        site.close()


def test_a_flow_run_is_a_fork_that_has_imported_everything_and_leads_a_session(warm: WarmSite, tmp_path: Path) -> None:
    run = warm.run(warm.deploy("first_line", "warm"), folder=str(tmp_path))
    told = start(tmp_path)
    assert told["session"] == told["pid"]
    assert Path(f"/proc/{told['parent']}/cmdline").read_text().split("\0")[2] == "orca.cluster.warm.server"
    threads = list(Path(f"/proc/{told['parent']}/task").iterdir())
    assert len(threads) == 1, "a process with threads cannot be forked safely"
    assert warm.ends(run, "Completed")
    assert warm.names(run) == ["Scheduled", "Pending", "Running", "Completed"]
    until(lambda: "logged by the flow" in warm.logs(run))
    until(lambda: "printed by the flow" in (warm.folder / "worker-warm.log").read_text())
    until(lambda: not list((warm.home / "runs").rglob("*.*")), what="forgetting the record")


def test_a_flow_of_the_package_starts_by_its_module(warm: WarmSite) -> None:
    with warm.client() as client:
        flow_id = client.create_flow_from_name("imaging")
        deployment = client.create_deployment(
            flow_id, "imaging", entrypoint="flows.imaging.imaging", work_pool_name="warm"
        )
    state = warm.ends(warm.run(deployment, measurement_sets=[]), "Failed")
    assert "should have at least 1 item" in state.message
    state = warm.ends(warm.run(deployment, measurement_sets=["raw/a.ms"]), "Failed")
    assert state.message.startswith("raw/a.ms: measurement sets: a deployment's run does not know what")


def test_a_flow_that_is_not_there_is_crashed_and_not_tried_again(warm: WarmSite) -> None:
    with warm.client() as client:
        flow_id = client.create_flow_from_name("nothing")
        deployment = client.create_deployment(
            flow_id, "nothing", entrypoint="flows.nothing.nothing", work_pool_name="warm"
        )
    run = warm.run(deployment)
    state = warm.ends(run, "Crashed")
    assert "exit status 1" in state.message
    assert "Running" not in warm.names(run)
    until(lambda: "flows.nothing" in warm.logs(run), what="the reason in the run's log")


def test_no_more_runs_than_the_limit_and_one_that_is_cancelled_ends_without_a_regular_look(
    warm: WarmSite, tmp_path: Path
) -> None:
    deployment = warm.deploy("wait", "warm")
    folders = [tmp_path / str(number) for number in range(3)]
    runs = []
    for folder in folders:
        folder.mkdir()
        runs.append(warm.run(deployment, folder=str(folder)))
    until(lambda: sum((folder / "start-0").exists() for folder in folders) == 2, what="two starts")
    third = next(number for number, folder in enumerate(folders) if not (folder / "start-0").exists())
    victim = (third + 1) % 3
    told = start(folders[victim])

    from prefect.states import Cancelling

    assert not (folders[third] / "start-0").exists()
    with warm.client() as client:
        client.set_flow_run_state(runs[victim], Cancelling())
    until(lambda: not alive(told["pid"]), 40, "the end of the process")
    warm.ends(runs[victim], "Cancelled", 40)
    assert "Crashed" not in warm.names(runs[victim])
    until(lambda: not alive(told["child"]), 20, "the end of its child")
    start(folders[third])
    for number in {0, 1, 2} - {victim}:
        (folders[number] / "go").touch()
        warm.ends(runs[number], "Completed")


@pytest.mark.parametrize("limited", ["worker", "pool"])
def test_a_run_that_waits_for_a_place_starts_as_soon_as_there_is_one(
    warm: WarmSite, tmp_path: Path, limited: str
) -> None:
    pool = warm.pool(f"place-{limited}")
    options = ["--limit", "1"]
    if limited == "pool":
        from prefect.client.schemas.actions import WorkPoolUpdate

        options = []
        with warm.client() as client:
            client.update_work_pool(pool, WorkPoolUpdate(concurrency_limit=1))
    warm.work(pool, *options, PREFECT_WORKER_QUERY_SECONDS="600")
    deployment = warm.deploy("wait", pool)
    folders = [tmp_path / "0", tmp_path / "1"]
    for folder in folders:
        folder.mkdir()
        warm.run(deployment, folder=str(folder))
    until(lambda: any((folder / "start-0").exists() for folder in folders), what="the first start")
    first, second = sorted(folders, key=lambda folder: not (folder / "start-0").exists())
    assert not (second / "start-0").exists()
    (first / "go").touch()
    start(second)
    (second / "go").touch()


def test_a_worker_told_to_stop_waits_for_its_runs_and_told_again_leaves_them_to_the_next(
    warm: WarmSite, tmp_path: Path
) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    pool = warm.pool("drain")
    worker = warm.work(pool)
    deployment = warm.deploy("wait", pool)
    runs = []
    for folder in folders:
        folder.mkdir()
        runs.append(warm.run(deployment, folder=str(folder)))
    told = [start(folder) for folder in folders]

    worker.send_signal(signal.SIGTERM)
    until(lambda: "takes no new flow runs; 2 run" in (warm.folder / "worker-drain.log").read_text())
    later = warm.run(deployment, folder=str(tmp_path / "later"))
    (folders[0] / "go").touch()
    warm.ends(runs[0], "Completed")
    assert worker.poll() is None
    assert warm.state(runs[1]).name == "Running"

    worker.send_signal(signal.SIGTERM)
    assert worker.wait(40) == 0
    with warm.client() as client:
        assert client.read_workers_for_work_pool(pool) == [], "it is no longer shown as online"
    assert not alive(told[1]["pid"])
    assert not alive(told[1]["child"])
    state = warm.state(runs[1])
    assert state.name == "AwaitingRetry"
    assert "worker was stopped" in state.message
    assert warm.names(later) == ["Scheduled"]
