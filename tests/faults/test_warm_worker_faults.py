"""What the warm worker and its reaper make of processes that are killed: the flow's, the worker, the host."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from warm_site import FLOWS, WarmSite, alive, start, until

from orca.cluster.warm.records import records


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmSite]:
    """A server and a pool `warm` with a worker."""
    place = WarmSite(tmp_path_factory.mktemp("warm")).open()
    try:
        place.pool("warm")
        place.work("warm", ORCA_BEAT_S="0.5")
        yield place
    finally:
        place.close()


@pytest.mark.parametrize(
    ("number", "why"),
    [(signal.SIGKILL, "was killed by SIGKILL"), (signal.SIGTERM, "termination signal")],
)
def test_a_killed_flow_run_says_why_and_runs_again_by_itself(
    site: WarmSite, tmp_path: Path, number: signal.Signals, why: str
) -> None:
    run = site.run(site.deploy("kill_itself", "warm"), folder=str(tmp_path), number=int(number), times=1)
    start(tmp_path, 1)
    site.ends(run, "Completed")
    names = site.names(run)
    assert names.count("Crashed") == 1
    assert names[-3:] == ["Pending", "Running", "Completed"]
    with site.client() as client:
        [crashed] = [state for state in client.read_flow_run_states(run) if state.name == "Crashed"]
    assert why in crashed.message
    if number == signal.SIGKILL:
        until(lambda: "last words" in site.logs(run), what="its last output in the run's log")


def test_a_flow_run_that_is_always_killed_is_given_up_after_two_more_times(site: WarmSite, tmp_path: Path) -> None:
    run = site.run(site.deploy("kill_itself", "warm"), folder=str(tmp_path))
    start(tmp_path, 2)
    until(lambda: site.names(run).count("Crashed") == 3)
    time.sleep(1)
    assert len(list(tmp_path.glob("start-*"))) == 3
    assert site.state(run).name == "Crashed"


def test_a_crash_of_its_own_is_not_tried_again(site: WarmSite, tmp_path: Path) -> None:
    run = site.run(site.deploy("kill_itself", "warm"), folder=str(tmp_path), number=int(signal.SIGSEGV))
    state = site.ends(run, "Crashed")
    assert "SIGSEGV" in state.message
    time.sleep(1)
    assert site.names(run)[-1] == "Crashed"


def test_a_killed_flow_leaves_no_task_run_running_and_no_dask_worker_and_nor_does_a_cancelled_one(
    site: WarmSite, tmp_path: Path
) -> None:
    """It is killed, runs again by itself, and is cancelled then."""
    from prefect.states import Cancelling

    run = site.run(site.deploy("on_dask", "warm"), folder=str(tmp_path))
    first = start(tmp_path, 0, 90)["pid"]
    with site.client() as client:
        until(lambda: [one for one in _tasks(client, run) if one.state_name == "Running"], what="a task in Running")
        [record] = [one for one in records(site.home / "runs") if one.flow_run_id == str(run)]
        os.kill(record.process.pid, signal.SIGKILL)
        until(lambda: not alive(first), 40, "the end of the Dask worker")
        until(lambda: [one for one in _tasks(client, run) if one.state_name == "Crashed"], 40, "the mark of the task")
        second = start(tmp_path, 1, 90)["pid"]
        client.set_flow_run_state(run, Cancelling())
        until(lambda: not alive(second), 40, "the end of the next Dask worker")
        site.ends(run, "Cancelled", 40)
        until(lambda: {one.state.type.value for one in _tasks(client, run)} <= {"CRASHED", "CANCELLED", "FAILED"})
        assert len(_tasks(client, run)) == 2


def _tasks(client: object, run: object) -> list:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    return client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run])))  # type: ignore


def test_a_killed_fork_server_costs_no_flow_run(site: WarmSite, tmp_path: Path) -> None:
    deployment = site.deploy("wait", "warm")
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    run = site.run(deployment, folder=str(first))
    pid = start(first)["pid"]
    os.kill(int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]), signal.SIGKILL)
    other = site.run(deployment, folder=str(second))
    start(second, 0, 90)
    assert alive(pid)
    for folder, one in ((first, run), (second, other)):
        (folder / "go").touch()
        site.ends(one, "Completed")
    assert site.names(run).count("Running") == 1


def test_a_run_started_by_hand_is_marked_when_its_process_is_killed_and_never_before(
    site: WarmSite, tmp_path: Path
) -> None:
    command = [sys.executable, str(FLOWS), str(tmp_path), str(site.home / "runs")]
    process = subprocess.Popen(command, env=site.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    run = start(tmp_path)["run"]
    process.send_signal(signal.SIGSTOP)  # silent, and alive
    time.sleep(1.5)
    assert site.state(run).name == "Running"
    process.kill()
    process.wait()
    assert "nobody saw how" in site.ends(run, "Crashed").message


def test_runs_outlive_a_killed_worker_and_the_next_one_sees_them_through(site: WarmSite, tmp_path: Path) -> None:
    deployment = site.deploy("wait", "warm")
    folders = {name: tmp_path / name for name in ("cancelled", "killed", "done")}
    runs, told = {}, {}
    for name, folder in folders.items():
        folder.mkdir()
        runs[name] = site.run(deployment, folder=str(folder))
        told[name] = start(folder)
    site.workers[0].kill()
    site.workers[0].wait()
    os.kill(told["killed"]["pid"], signal.SIGKILL)
    time.sleep(1)
    assert {site.state(run).name for run in runs.values()} == {"Running"}
    assert alive(told["cancelled"]["pid"])

    site.work("warm", "--limit", "2", ORCA_BEAT_S="0.5")
    site.ends(runs["killed"], "AwaitingRetry")
    assert not alive(told["killed"]["child"])
    time.sleep(1.5)
    assert not (folders["killed"] / "start-1").exists(), "the two that run count for the limit"
    from prefect.states import Cancelling

    with site.client() as client:
        client.set_flow_run_state(runs["cancelled"], Cancelling())
    site.ends(runs["cancelled"], "Cancelled", 40)
    until(lambda: not alive(told["cancelled"]["child"]), 20, "the end of the child")
    again = start(folders["killed"], 1)
    for name in ("killed", "done"):
        (folders[name] / "go").touch()
        site.ends(runs[name], "Completed")
    assert site.names(runs["done"]).count("Running") == 1
    assert again["pid"] != told["killed"]["pid"]
    until(lambda: not list((site.home / "runs").rglob("*.*")), what="forgetting the records")


def test_runs_of_a_host_that_is_gone_run_again_on_another_and_those_of_a_silent_one_do_not(
    site: WarmSite, tmp_path: Path
) -> None:
    deployment = site.deploy("wait", site.pool("two-hosts"))
    gone = site.work("two-hosts", ORCA_NODE="node1", ORCA_BEAT_S="0.25", PREFECT_WORKER_HEARTBEAT_SECONDS="2")
    run = site.run(deployment, folder=str(tmp_path))
    told = start(tmp_path, 0, 90)
    assert [one.host for one in records(site.home / "runs") if one.flow_run_id == str(run)] == ["node1"]
    site.work("two-hosts", ORCA_NODE="node2", ORCA_BEAT_S="0.25")
    os.kill(told["pid"], signal.SIGSTOP)  # the record is touched no more, but the worker is heard of
    time.sleep(4)
    assert site.state(run).name == "Running"
    server = int(Path(f"/proc/{told['pid']}/stat").read_text().rpartition(")")[2].split()[1])
    for pid in (gone.pid, server, told["pid"], told["child"]):
        os.kill(pid, signal.SIGKILL)
    start(tmp_path, 1, 90)
    (tmp_path / "go").touch()
    site.ends(run, "Completed")
    with site.client() as client:
        [crashed] = [state for state in client.read_flow_run_states(run) if state.name == "Crashed"]
    assert "Host node1 shows no sign of life" in crashed.message
