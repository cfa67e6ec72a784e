"""A node's limits, and what a worker process does about them, in a Dask cluster inside this process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import Client, Scheduler, Status, Worker
from distributed.comm import connect

from orca import config
from orca.cluster.nodes.load import Load, LoadWatch, excess, measure
from orca.cluster.nodes.node import NAME, NodePlugin
from orca.cluster.nodes.parts import DASK_SETTINGS, MEMORY, scheduler_part, worker_part, worker_parts
from orca.cluster.pools import Limits, Recycle, load_pools
from orca.errors import InputError

LIMITS = Limits(load=0.9, free_memory_gb=8.0, free_scratch_gb=50.0)


@pytest.mark.parametrize(
    ("load", "told"),
    [
        (Load(0.9, 8.0, 50.0), ""),
        (Load(0.91, 80.0, 500.0), "load 0.91 a core, limit 0.9"),
        (Load(0.1, 7.9, 500.0), "7.9 GB of memory free, needed 8"),
        (Load(0.1, 80.0, 49.9), "49.9 GB of scratch free, needed 50"),
    ],
)
def test_what_is_over_a_limit_is_named(load: Load, told: str) -> None:
    assert excess(load, LIMITS) == told


def test_load_counts_for_each_core_that_is_not_reserved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (12.0, 0.0, 0.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 32)
    assert measure(tmp_path, 8).per_core == pytest.approx(12 / 24)
    assert measure(tmp_path, 32).per_core == pytest.approx(12.0)


def test_a_scratch_folder_that_is_not_there_yet_is_measured_by_its_disk(tmp_path: Path) -> None:
    there, later = measure(tmp_path, 0), measure(tmp_path / "not" / "yet", 0)
    assert later.free_scratch_gb == pytest.approx(there.free_scratch_gb, rel=0.1)


def test_a_node_has_to_come_well_below_its_limit_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orca.cluster.nodes.load.LOOK_S", 0.0)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    watch = LoadWatch(Limits(load=1.0, free_memory_gb=0, free_scratch_gb=0), tmp_path, 0)
    seen = []
    for load in (0.95, 1.05, 0.95, 0.85, 0.95):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        seen.append(bool(watch.look()))
    assert seen == [False, True, True, False, False]


class SomeNode(LoadWatch):
    """A node whose load a test decides."""

    def __init__(self) -> None:
        super().__init__(LIMITS, Path("/"), 0)

    def look(self) -> str:
        return self.reason


async def two_nodes(run: Callable[[Client, list[Worker], list[SomeNode]], Awaitable[None]]) -> None:
    """Run with two workers of one thread, and what watches their nodes."""
    async with AsyncExitStack() as stack:
        stack.enter_context(dask.config.set(DASK_SETTINGS))
        scheduler = await stack.enter_async_context(Scheduler(port=0, dashboard_address=":0", host="127.0.0.1"))
        nodes = [SomeNode(), SomeNode()]
        workers = []
        for node in nodes:
            worker = Worker(scheduler.address, nthreads=1, resources={"imaging": 1})
            await worker.plugin_add(NodePlugin(Recycle(tasks=100, memory_gb=100.0), node), NAME)
            workers.append(await stack.enter_async_context(worker))
        client = await stack.enter_async_context(Client(scheduler.address, asynchronous=True))
        await run(client, workers, nodes)


async def until(condition: Callable[[], Any]) -> None:
    for _ in range(400):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("did not happen within 8 s")


def test_a_node_over_its_limit_takes_nothing_and_its_tasks_go_elsewhere() -> None:
    async def run(client: Client, workers: list[Worker], nodes: list[SomeNode]) -> None:
        nodes[0].reason = "load 2.00 a core, limit 0.9"
        await until(lambda: workers[0].status == Status.paused)
        tasks = [client.submit(lambda x: x, i, resources={"imaging": 1}) for i in range(8)]
        assert await client.gather(tasks) == list(range(8))
        assert workers[0].state.executed_count == 0
        assert workers[0].plugins[NAME].metrics()["reason"] == "load 2.00 a core, limit 0.9"
        nodes[0].reason = ""
        await until(lambda: workers[0].status == Status.running)

    asyncio.run(two_nodes(run))


def test_tasks_wait_while_all_nodes_are_over_their_limits_and_run_after() -> None:
    async def run(client: Client, workers: list[Worker], nodes: list[SomeNode]) -> None:
        for node in nodes:
            node.reason = "1.0 GB of memory free, needed 8"
        await until(lambda: all(worker.status == Status.paused for worker in workers))
        task = client.submit(lambda: "done", resources={"imaging": 1})
        await asyncio.sleep(0.6)
        assert task.status == "pending"
        nodes[1].reason = ""
        assert await task == "done"

    asyncio.run(two_nodes(run))


def test_a_paused_node_sends_a_result_while_another_is_under_way() -> None:
    async def run(client: Client, workers: list[Worker], nodes: list[SomeNode]) -> None:
        task = client.submit(lambda: "result", workers=[workers[0].address])
        assert await task == "result"
        nodes[0].reason = "load 2.00 a core, limit 0.9"
        await until(lambda: workers[0].status == Status.paused)
        question = {"op": "get_data", "keys": [task.key], "who": None, "reply": True}
        async with AsyncExitStack() as stack:
            for _ in range(3):  # none of whom says that it has arrived
                comm = await connect(workers[0].address)
                stack.push_async_callback(comm.close)
                await comm.write(question)
                assert (await comm.read())["status"] == "OK"
            assert workers[0].transfer_outgoing_count == 3
        await until(lambda: workers[0].transfer_outgoing_count == 0)

    asyncio.run(two_nodes(run))


@pytest.fixture
def site(tmp_path: Path) -> tuple[config.Config, Any]:
    conf, pools = tmp_path / "orca-conf.yml", tmp_path / "work_pools.yaml"
    conf.write_text(
        "paths: {data: data}\nnetwork: {host: 10.0.0.5}\nprefect: {api_url: 'http://u:hidden@h:4200/api'}\n"
    )
    text = (Path(__file__).parents[2] / "work_pools.yaml").read_text()
    pools.write_text(text)
    return config.load(conf), load_pools(pools)


def test_each_process_of_a_node_has_its_name_its_slots_and_one_thread(site: tuple[config.Config, Any]) -> None:
    settings, pools = site
    host = pools.hosts[1]
    parts = worker_parts(settings, pools, host, "tcp://10.0.0.1:8786", listen="10.0.0.6")
    assert [part.name for part in parts] == [f"{host}-{i}" for i in range(sum(pools.slots(host).values()))]
    offered: dict[str, float] = {}
    for part in parts:
        options = dict(zip(part.argv, part.argv[1:], strict=False))
        assert (options["--name"], options["--nthreads"], options["--host"]) == (part.name, "1", "10.0.0.6")
        for offer in options["--resources"].split(","):
            name, _, amount = offer.partition("=")
            offered[name] = offered.get(name, 0) + float(amount)
        assert part.environment["ORCA_NODE"] == host
        assert part.environment["ORCA_POOLS"] == str(pools.path)
        assert part.environment["ORCA_CONF"] == str(settings.file)
    assert offered.pop(MEMORY) == sum(pools.memory_gb(process) for process in pools.processes(host))
    assert offered == pools.slots(host)
    assert len({dict(zip(part.argv, part.argv[1:], strict=False))["--local-directory"] for part in parts}) == len(parts)


def test_no_part_is_given_a_secret_or_listens_everywhere(site: tuple[config.Config, Any]) -> None:
    settings, pools = site
    parts = [scheduler_part(settings), *worker_parts(settings, pools, pools.hosts[0], "tcp://10.0.0.1:8786")]
    for part in parts:
        assert "hidden" not in str(part)
        assert dict(zip(part.argv, part.argv[1:], strict=False))["--host"] == "10.0.0.5"
        assert dict(zip(part.argv, part.argv[1:], strict=False))["--dashboard-address"].startswith("10.0.0.5:")


def test_a_process_that_a_node_does_not_have_is_refused(site: tuple[config.Config, Any]) -> None:
    settings, pools = site
    with pytest.raises(InputError, match=r"has \d worker processes, not 1001"):
        worker_part(settings, pools, pools.hosts[0], 1000, "tcp://10.0.0.1:8786")
    with pytest.raises(InputError, match="there is no host elsewhere"):
        worker_parts(settings, pools, "elsewhere", "tcp://10.0.0.1:8786")
