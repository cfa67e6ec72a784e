"""Worker processes are replaced while work goes on: every task runs once, and no result is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_tasks import begun_in, count, keep_memory, runs, wait_for_file
from distributed import Client, Future, as_completed
from some_cluster import SomeCluster, some_cluster
from waiting import wait_for

from orca.cluster.local import local_cluster
from orca.cluster.nodes.workers import list_workers

TASKS, N = 4, 14
SLOT = {"default": 1}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SomeCluster]:
    """Two nodes of one process each."""
    recycle = {"tasks": TASKS, "memory_gb": 0.6}
    with some_cluster(tmp_path_factory.mktemp("cluster"), ("node1", "node2"), {"recycle": recycle}) as started:
        yield started


@pytest.fixture
def client(cluster: SomeCluster) -> Iterator[Client]:
    with cluster.client() as connected:
        yield connected


def taken(client: Client, futures: list[Future]) -> list[int]:
    """The results, each let go of as soon as it is there, as `gather` does."""
    results = []
    ended = as_completed(futures, loop=client.loop)
    futures.clear()
    for future in ended:
        results.append(future.result())
        future.release()
    return results


def test_processes_are_replaced_after_their_tasks_and_every_task_runs_once(client: Client, tmp_path: Path) -> None:
    made_by = Counter(
        taken(client, [client.submit(count, str(tmp_path), i, resources=SLOT, pure=False) for i in range(N)])
    )
    assert Counter(pid for i in range(N) for pid in runs(tmp_path, i)) == made_by
    assert max(made_by.values()) <= TASKS
    assert all(len(runs(tmp_path, i)) == 1 for i in range(N))


def test_results_that_nobody_fetched_are_not_lost_and_not_made_again(client: Client, tmp_path: Path) -> None:
    futures = [client.submit(count, str(tmp_path), i, resources=SLOT, pure=False) for i in range(N)]
    made_by = client.gather(futures)
    assert [runs(tmp_path, i) for i in range(N)] == [[pid] for pid in made_by]


def test_what_waits_for_a_process_that_is_to_be_replaced_goes_elsewhere(client: Client, tmp_path: Path) -> None:
    first = list_workers(client)[0]
    begun = client.run(begun_in, workers=[first.address])[first.address]  # what it told the scheduler is older
    left = TASKS - begun % TASKS - 1
    client.gather([client.submit(count, str(tmp_path), f"before-{i}", workers=[first.address]) for i in range(left)])
    last = client.submit(wait_for_file, str(tmp_path), "last", workers=[first.address])
    wait_for(lambda: runs(tmp_path, "last"), "the task's start")
    others = [client.submit(count, str(tmp_path), i, resources=SLOT, pure=False) for i in range(6)]
    assert first.pid not in client.gather(others)
    assert not last.done()
    (tmp_path / "go").touch()
    assert last.result(timeout=60) == first.pid
    assert all(len(runs(tmp_path, name)) == 1 for name in ["last", *range(6)])


def test_a_process_above_the_memory_mark_is_replaced(client: Client) -> None:
    pid = client.submit(keep_memory, 700, resources=SLOT).result(timeout=60)
    wait_for(lambda: pid not in [worker.pid for worker in list_workers(client)], "the replacement")


def test_the_only_worker_of_a_flow_is_replaced_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orca.cluster.pools import default_path

    pools = tmp_path / "work_pools.yaml"
    pools.write_text(default_path().read_text().replace("tasks: 20", "tasks: 3"))
    monkeypatch.setenv("ORCA_POOLS", str(pools))
    with local_cluster(tmp_path / "scratch", workers=1) as address, Client(address, set_as_default=False) as client:
        futures = [client.submit(count, str(tmp_path), i, resources=SLOT, pure=False) for i in range(5)]
        made_by = Counter(taken(client, futures))
    assert sorted(made_by.values()) == [2, 3]
    assert all(len(runs(tmp_path, i)) == 1 for i in range(5))
