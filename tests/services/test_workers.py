"""`orca workers` and TLS with a real scheduler and real worker processes of two nodes, all on this machine."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_tasks import count, programs, run_program, runs, wait_for_file
from distributed import Client
from some_cluster import SomeCluster, some_cluster
from waiting import wait_for

from orca.cluster.nodes.workers import WorkerInfo, list_workers, ping, select, tell
from orca.cluster.nodes.workers import wait_for as wait_until
from orca.cluster.security import make_certificates
from orca.errors import InfrastructureError, InputError


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SomeCluster]:
    """Two nodes of one process each, which talk TLS; node2 has no slot for imaging."""
    folder = tmp_path_factory.mktemp("cluster")
    make_certificates(folder / "tls", ["127.0.0.1"])
    pools = {"pools": {name: POOL | {"hosts": hosts} for name, hosts in HOSTS.items()}}
    with some_cluster(folder / "orca", ("node1", "node2"), pools, network={"tls": str(folder / "tls")}) as started:
        yield started


POOL = {"runs": 1, "slots": 1, "threads": 1, "memory_gb": 2, "scratch_gb": 1}
HOSTS = {"default": None, "imaging": ["node1"], "bandpass": None, "cosmology": None}


@pytest.fixture
def client(cluster: SomeCluster) -> Iterator[Client]:
    with cluster.client() as connected:
        yield connected


def one(client: Client, host: str) -> WorkerInfo:
    [worker] = select(client, host)
    return worker


def test_each_process_is_listed_with_its_node_its_pools_and_what_runs(
    cluster: SomeCluster, client: Client, tmp_path: Path
) -> None:
    before = time.time()
    running = client.submit(wait_for_file, str(tmp_path), "block", resources={"imaging": 1}, key="image-1")
    wait_for(lambda: one(client, "node1").running, "a heartbeat")
    [first, second] = json.loads(cluster.orca("workers", "ls", "--json").stdout)
    (tmp_path / "go").touch()
    assert running.result(timeout=60) == first["pid"]
    assert [first["name"], first["host"], second["name"], second["host"]] == ["node1-0", "node1", "node2-0", "node2"]
    assert set(first["pools"]) - set(second["pools"]) == {"imaging"}
    assert first["status"] == second["status"] == "running"
    assert second["running"] == []
    [task] = first["running"]
    assert (task["task"], task["unit"], task["step"]) == ("image-1", "block", "waiting")
    assert before <= task["since"] <= time.time()
    assert second["load"]["free_memory_gb"] > 0
    assert second["load"]["free_scratch_gb"] > 0


def test_the_table_shows_the_same(cluster: SomeCluster, client: Client) -> None:
    shown = cluster.orca("workers", "ls", "--pool", "imaging").stdout
    assert "node1-0" in shown
    assert "node2-0" not in shown
    assert "1 workers, 1 take tasks, 0 run one" in shown


def test_workers_answer(client: Client) -> None:
    answers = ping(client, list_workers(client))
    assert sorted(answers) == ["node1-0", "node2-0"]
    assert all(seconds is not None and seconds < 5 for seconds in answers.values())


def test_a_worker_that_is_stopped_does_not_answer(client: Client) -> None:
    worker = one(client, "node2")
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        assert ping(client, list_workers(client), 0.5) == {"node1-0": pytest.approx(0.25, abs=0.25), "node2-0": None}
    finally:
        os.kill(worker.pid, signal.SIGCONT)


def test_a_drained_node_finishes_what_it_runs_and_takes_nothing_new_until_it_is_resumed(
    client: Client, tmp_path: Path
) -> None:
    node1, node2 = one(client, "node1"), one(client, "node2")
    running = client.submit(wait_for_file, str(tmp_path), "running", workers=[node1.address])
    wait_for(lambda: runs(tmp_path, "running"), "the task's start")
    waiting = [client.submit(count, str(tmp_path), i, resources={"default": 1}, pure=False) for i in range(6)]
    tell(client, "drain", [node1])
    assert set(client.gather(waiting)) == {node2.pid}, "what waited at the drained node goes elsewhere"
    assert not running.done()
    (tmp_path / "go").touch()
    wait_until(client, "drain", [node1])
    assert running.result(timeout=60) == node1.pid
    assert runs(tmp_path, "running") == [node1.pid]
    wait_for(lambda: one(client, "node1").reason == "drained by the operator", "a heartbeat")
    tell(client, "work", [node1])
    wait_until(client, "work", [node1])
    again = client.submit(count, str(tmp_path), "again", resources={"imaging": 1})
    assert again.result(timeout=60) == node1.pid


def test_a_drained_worker_that_dies_comes_back_drained(client: Client, tmp_path: Path) -> None:
    before = one(client, "node1")
    assert before.pid is not None
    tell(client, "drain", [before])
    wait_until(client, "drain", [before])
    os.kill(before.pid, signal.SIGKILL)
    wait_until(client, "restart", [before])
    wait_for(lambda: one(client, "node1").reason == "drained by the operator", "a heartbeat")
    others = client.submit(count, str(tmp_path), "elsewhere", resources={"default": 1})
    assert others.result(timeout=60) == one(client, "node2").pid
    after = one(client, "node1")
    tell(client, "restart", [after])  # which has it work again
    wait_until(client, "restart", [after])
    again = client.submit(count, str(tmp_path), "again", resources={"imaging": 1})
    assert again.result(timeout=60) == one(client, "node1").pid


def test_a_restarted_worker_ends_what_it_runs_first(cluster: SomeCluster, client: Client, tmp_path: Path) -> None:
    before = one(client, "node1")
    running = client.submit(count, str(tmp_path), "running", 2.0, workers=[before.address])
    wait_for(lambda: runs(tmp_path, "running"), "the task's start")
    told = cluster.orca("workers", "restart", "--host", "node1")
    assert (told.returncode, told.stdout) == (0, "replaced: node1-0\n"), told.stderr
    after = one(client, "node1")
    assert after.pid != before.pid
    assert running.result(timeout=60) == before.pid, "the result outlives the process that made it"
    assert runs(tmp_path, "running") == [before.pid]


def test_a_worker_restarted_now_leaves_no_program_and_its_task_begins_again(client: Client, tmp_path: Path) -> None:
    before = one(client, "node1")
    running = client.submit(run_program, str(tmp_path), "task", resources={"imaging": 1})
    wait_for(lambda: programs(tmp_path), "the program's start")
    (tmp_path / "go").touch()
    tell(client, "restart", [before], now=True)
    wait_until(client, "restart", [before])
    after = one(client, "node1")
    assert running.result(timeout=60) == after.pid
    assert runs(tmp_path, "task") == [before.pid, after.pid]
    assert programs(tmp_path) == []


def test_what_is_no_node_is_named_with_those_that_are(cluster: SomeCluster, client: Client) -> None:
    with pytest.raises(InputError, match=r"there is no worker on node3. There are some on node1, node2"):
        select(client, "node3")
    result = cluster.orca("workers", "drain", "--pool", "imagin")
    assert result.returncode == 2
    assert result.stderr == "orca: error: there is no worker for imagin. There are some on node1, node2\n"


def test_a_client_without_the_clusters_certificate_is_refused(cluster: SomeCluster, tmp_path: Path) -> None:
    from orca import config
    from orca.cluster.nodes.workers import connected

    assert cluster.address.startswith("tls://")
    with pytest.raises(OSError, match=r"onnection|connect|closed"):
        Client(cluster.address.replace("tls:", "tcp:"), timeout=2, set_as_default=False)
    make_certificates(tmp_path / "foreign", ["127.0.0.1"])
    conf = tmp_path / "orca-conf.yml"
    conf.write_text(f"network: {{tls: {tmp_path / 'foreign'}}}\ndask: {{address: '{cluster.address}'}}\n")
    with pytest.raises(InfrastructureError, match="does not answer"), connected(config.load(conf)):
        pass


def test_a_stopped_worker_ends_and_stays_away(cluster: SomeCluster, client: Client, tmp_path: Path) -> None:
    worker = one(client, "node2")
    running = client.submit(count, str(tmp_path), "last", 1.0, workers=[worker.address])
    wait_for(lambda: runs(tmp_path, "last"), "the task's start")
    told = cluster.orca("workers", "stop", "--host", "node2")
    assert (told.returncode, told.stdout) == (0, "ended: node2-0\n"), told.stderr
    assert cluster.started["node2-0"].wait(timeout=40) == 0
    assert running.result(timeout=60) == worker.pid
    assert runs(tmp_path, "last") == [worker.pid]
    assert [each.name for each in list_workers(client)] == ["node1-0"]


def test_where_no_scheduler_is_the_operator_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orca import config
    from orca.cluster.nodes.workers import connected

    (tmp_path / "orca-conf.yml").write_text("paths: {data: data}\n")
    with pytest.raises(InfrastructureError, match=r"no Dask cluster is known. Start it with `orca up`"):
        with connected(config.load(tmp_path / "orca-conf.yml")):
            pass
