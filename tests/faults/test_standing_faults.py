"""A whole cluster whose parts die, or are told to end, while flow runs have programs running on its nodes.

What must hold each time: the programs end within seconds where nobody waits for them any more, the work is done in the
end, no run seems to run and no process is left, and something tells the operator what happened.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client
from site_of_tests import Site
from standing_cluster import NODES, Cluster, end_soon, node_of, programs, started, until
from standing_flows import TRIES, prepare
from standing_stack import Stack

from orca.cluster.machine import questions
from orca.cluster.pools import POOLS
from orca.cluster.server import client_environment

SERVER_AWAY_S = 30.0
BOTH = pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes of one slot each, and a user called alice."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        patch.setattr(questions, "PATIENCE_S", 30.0)  # of a busy machine
        site = Site(tmp_path_factory.mktemp("cluster"), {"queue": {"prefix": "alice"}})
        unused = ("rabbitmq", *(f"flow-worker-{pool}" for pool in POOLS if pool != "default"))
        stack = Stack(site, without=unused, pools={"hosts": [*NODES]})
        result = stack.up()
        try:
            assert result.returncode == 0, result.stdout + result.stderr
            yield Cluster(stack)
        finally:
            stack.down()
        assert stack.processes() == []


@pytest.fixture(scope="module")
def deployment(up: Cluster) -> str:
    return up.deploy("alice")


@pytest.fixture
def cluster(up: Cluster) -> Iterator[Cluster]:
    """The same, once all that an earlier test ended is back; afterwards no process is left that nobody looks after."""
    until(up.whole, "all parts")
    yield up
    until(lambda: not up.orphans(), "the end of processes without a parent", 60)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Of two flow runs."""
    return prepare(tmp_path / "first"), prepare(tmp_path / "second")


@BOTH
def test_what_ran_on_dask_workers_that_ended_is_done_elsewhere(
    cluster: Cluster, deployment: str, folders: tuple[Path, Path], number: signal.Signals
) -> None:
    """On one node the process that runs a task, on the other the one that looks after such processes."""
    run = cluster.start(deployment, folders[0], units=3)
    one, other = started(folders[0], 2)
    nodes = node_of(one), node_of(other)
    worker = one.parent()
    assert worker is not None
    worker.send_signal(number)
    cluster.send(f"{nodes[1]}-0", number)
    end_soon([one, other])
    cluster.ends(run, "Completed")
    cluster.well(folders[0], run, units=3, seconds=2.0)
    assert cluster.told(run).count(" died: begins again") >= 2
    assert f"Worker process {worker.pid} was killed by signal {int(number)}" in cluster.log(f"{nodes[0]}-0")
    assert f"exited: {nodes[1]}-0 (" in cluster.log("supervisord")


@BOTH
def test_a_run_outlives_the_scheduler_and_one_that_is_cancelled_meanwhile_ends(
    cluster: Cluster, deployment: str, folders: tuple[Path, Path], number: signal.Signals
) -> None:
    gone = cluster.start(deployment, folders[1], units=1, seconds=300.0)
    started(folders[1])
    kept = cluster.start(deployment, folders[0])
    running = started(folders[0]) + started(folders[1])
    cluster.send("dask-scheduler", number)
    cluster.cancel(gone)
    end_soon(running)
    cluster.ends(gone, "Cancelled", 40)
    cluster.clean(folders[1], gone)
    cluster.ends(kept, "Completed")
    cluster.well(folders[0], kept, units=2, seconds=2.0)
    assert "submitted again: the Dask cluster lost it" in cluster.told(kept)
    assert "exited: dask-scheduler (" in cluster.log("supervisord")


def test_runs_whose_processes_ended_leave_no_program_and_run_again(
    cluster: Cluster, deployment: str, folders: tuple[Path, Path]
) -> None:
    runs = []
    for folder, number in zip(folders, (signal.SIGKILL, signal.SIGTERM), strict=True):
        runs.append(cluster.start(deployment, folder, units=1, seconds=4.0))
        running = started(folder)
        cluster.process(runs[-1]).send_signal(number)
        end_soon(running)
    for run, folder, why in zip(runs, folders, ("was killed by SIGKILL", "termination signal"), strict=True):
        cluster.ends(run, "Completed")
        cluster.well(folder, run, units=1, seconds=4.0)
        [message] = [message for name, message in cluster.states(run) if name == "Crashed"]
        assert why in message


def test_runs_outlive_a_killed_flow_worker_and_one_that_is_cancelled_meanwhile_ends(
    cluster: Cluster, deployment: str, folders: tuple[Path, Path]
) -> None:
    gone = cluster.start(deployment, folders[1], units=1, seconds=300.0)
    running = started(folders[1])
    kept = cluster.start(deployment, folders[0], units=3)
    started(folders[0])
    process = cluster.process(kept)
    cluster.send("flow-worker-default", signal.SIGKILL)
    cluster.cancel(gone)
    end_soon(running)  # there is nobody who could, until the next worker has started
    cluster.ends(gone, "Cancelled", 40)
    cluster.clean(folders[1], gone)
    cluster.ends(kept, "Completed")
    cluster.well(folders[0], kept, units=3, seconds=2.0)
    assert [name for name, _ in cluster.states(kept)].count("Running") == 1
    assert f"Found flow run {gone} running" in cluster.log("flow-worker-default")
    process.wait(15)  # raises if it does not end


def test_a_flow_worker_told_to_end_lets_short_runs_finish_and_long_ones_run_again(
    cluster: Cluster, deployment: str, folders: tuple[Path, Path]
) -> None:
    """It waits 5 s where `orca up` has started it."""
    long = cluster.start(deployment, folders[1], units=1, seconds=15.0)
    running = started(folders[1])
    short = cluster.start(deployment, folders[0], units=1)
    started(folders[0])
    cluster.send("flow-worker-default", signal.SIGTERM)
    end_soon(running)
    cluster.ends(short, "Completed")
    cluster.ends(long, "Completed")
    cluster.well(folders[0], short, units=1, seconds=2.0)
    cluster.well(folders[1], long, units=1, seconds=15.0)
    assert "Crashed" not in [name for name, _ in cluster.states(short)]
    assert ("AwaitingRetry", "The worker was stopped before the flow run had ended; scheduled again") in cluster.states(
        long
    )
    assert "takes no new flow runs" in cluster.log("flow-worker-default")


def test_nothing_is_lost_while_the_server_is_away_and_deadlines_hold(
    cluster: Cluster, deployment: str, folders: tuple[Path, Path]
) -> None:
    """Meanwhile tasks end and begin, one run ends well, and a program reaches its deadline."""
    late = cluster.start(deployment, folders[1], units=1, seconds=300.0, deadline_s=12.0)
    running = started(folders[1])
    began = time.monotonic()
    run = cluster.start(deployment, folders[0], units=3, seconds=5.0)
    started(folders[0])
    cluster.send("server", signal.SIGKILL)
    cluster.tell_supervisor("stopProcess", "server")
    away = time.monotonic()
    end_soon(running, 12.0 + 3.0 - (time.monotonic() - began))
    shown = cluster.stack.site.run("status")
    assert shown.returncode == 1
    assert "server" in shown.stdout
    assert "stopped" in shown.stdout
    time.sleep(max(0.0, away + SERVER_AWAY_S - time.monotonic()))
    assert programs(folders[0]) == [], "the tasks did not wait for the server"
    cluster.tell_supervisor("startProcess", "server")
    cluster.ends(run, "Completed")
    state = cluster.ends(late, "Failed")
    cluster.well(folders[0], run, units=3, seconds=5.0)
    cluster.clean(folders[1], late)
    assert "0 done, 0 skipped, 1 failed" in state["message"]
    assert "took longer than 12 s and was ended" in cluster.log("flow-worker-default")
    assert len((folders[1] / TRIES / "unit0").read_text().split()) == 1, "what the data failed is not tried again"


def test_a_run_outlives_a_server_that_is_told_to_end(
    cluster: Cluster, deployment: str, folders: tuple[Path, Path]
) -> None:
    run = cluster.start(deployment, folders[0])
    started(folders[0], 2)
    old = cluster.send("server", signal.SIGTERM)
    cluster.ends(run, "Completed")
    assert not old.is_running()
    cluster.well(folders[0], run, units=2, seconds=2.0)
    assert "exited: server (" in cluster.log("supervisord")


def test_a_task_that_needs_more_than_anybody_has_fails_and_says_so(
    cluster: Cluster, deployment: str, folders: tuple[Path, Path]
) -> None:

    def patience(seconds: float, dask_scheduler: Any) -> float:
        """How long the scheduler lets tasks wait that nobody can run; returns what it was."""
        before = float(dask_scheduler.no_workers_timeout)
        dask_scheduler.no_workers_timeout = seconds
        return before

    with Client(cluster.dask, set_as_default=False) as client:
        before = client.run_on_scheduler(patience, seconds=2.0)
        try:
            run = cluster.start(deployment, folders[0], units=1, memory_gb=1000.0)
            state = cluster.ends(run, "Failed", 60)
        finally:
            client.run_on_scheduler(patience, seconds=before)
    assert state["message"].startswith("0 done, 0 skipped, 1 failed (1 by the infrastructure): unit0: no Dask worker ")
    assert "offered default with 1000 GB of memory within" in state["message"]
    cluster.clean(folders[0], run)


def test_two_users_have_runs_of_their_own_on_the_same_nodes(
    cluster: Cluster, deployment: str, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    """One Prefect server, one Dask cluster: bob's run waits for a worker of bob's, and alice's is none of his."""
    shared = {"prefect": {"api_url": cluster.url}, "dask": {"address": cluster.dask}}
    bob = Site(tmp_path, {"queue": {"prefix": "bob"}, **shared})
    environment = bob.environment() | {"ORCA_POOLS": str(cluster.stack.file), "ORCA_NODE": "bobs"}
    environment |= client_environment(bob.data / "prefect", cluster.url)
    environment |= {"PYTHONPATH": str(Path(__file__).parent), "PREFECT_WORKER_QUERY_SECONDS": "1"}
    applied = subprocess.run(bob.command("pools", "apply", "--json"), env=environment, capture_output=True, text=True)
    assert {change["pool"] for change in json.loads(applied.stdout)["changes"]} == {f"bob-{pool}" for pool in POOLS}
    runs = {"bob": cluster.start(cluster.deploy("bob"), folders[1]), "alice": cluster.start(deployment, folders[0])}
    cluster.ends(runs["alice"], "Completed")
    assert cluster.state(runs["bob"])["name"] in ("Scheduled", "Late")
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "bob-default", "--type", "orca"]
    with (tmp_path / "worker.log").open("w") as log:
        worker = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log)
    try:
        again = cluster.start(deployment, folders[0], units=3)
        cluster.ends(runs["bob"], "Completed")
        cluster.ends(again, "Completed")
    finally:
        worker.terminate()
        assert worker.wait(20) == 0
    cluster.well(folders[0], runs["alice"], again, units=3, seconds=2.0)
    cluster.well(folders[1], runs["bob"], units=2, seconds=2.0)
    assert set((folders[0] / "users").read_text().split()) == {"alice"}
    assert set((folders[1] / "users").read_text().split()) == {"bob"}
    assert runs["bob"] not in cluster.log("flow-worker-default")
    assert set((folders[1] / TRIES / "unit0").read_text().split()) <= set(NODES)
