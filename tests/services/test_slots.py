"""The scheduler's book of slots: who may start a task where."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import dask
import pytest
from distributed import Client, Future, LocalCluster, Status, get_worker
from waiting import wait_for

from orca.cluster import slots
from orca.cluster.nodes.parts import MEMORY
from orca.cluster.slots import PLACE, TOPIC, Slots, install

GO: dict[str, threading.Event] = {}
"""Tasks that may end; the workers are threads of this process."""


def task(name: str) -> str:
    assert GO[name].wait(20)
    return get_worker().address


class Flow:
    """Somebody who asks for slots and runs tasks in them."""

    def __init__(self, name: str, address: str, pool: str, priority: int = 0) -> None:
        self.name, self.pool = name, pool
        self.client = Client(address, set_as_default=False)
        self.told = 0
        self.client.subscribe_topic(TOPIC, self._hear)
        self.slots = Slots(self.client, pool, priority)
        self.running: list[tuple[str, str, Future]] = []

    def _hear(self, _: Any) -> None:
        self.told += 1

    def start(self, wanted: int, memory_gb: float | None = None) -> int:
        """Ask, and run a task in each place; how many these are."""
        places = self.slots.take(wanted, memory_gb).places
        for place in places:
            name = f"{self.name}-{len(GO)}"
            GO[name] = threading.Event()
            needs = {self.pool: 1} | ({MEMORY: memory_gb} if memory_gb else {})
            with dask.annotate(**{PLACE: place}):
                self.running.append((name, place, self.client.submit(task, name, resources=needs, pure=False)))
        if places:
            wait_for(lambda: not self.client.run_on_scheduler(promised), "the arrival of the tasks")
        return len(places)

    def end(self, count: int = 1) -> None:
        """End the tasks that were started first."""
        ended, self.running = self.running[:count], self.running[count:]
        for name, _, future in ended:
            GO[name].set()
            future.result(20)


def promised(dask_scheduler: Any) -> int:
    return len(dask_scheduler.plugins[slots.NAME].promises)


Flows = Callable[..., Flow]


@pytest.fixture  # workers that are threads start in no time
def cluster() -> Iterator[LocalCluster]:
    """Two workers with two threads, two slots of default and one of imaging each."""
    offers = {"default": 2, "imaging": 1, MEMORY: 8.0}
    options: dict[str, Any] = {"processes": False, "dashboard_address": "127.0.0.1:0", "resources": offers}
    options["memory_limit"] = 0  # nobody but a test pauses a worker or has it go on
    with LocalCluster(n_workers=2, threads_per_worker=2, **options) as made:
        install(made.scheduler)
        install(made.scheduler)  # a second time it changes nothing
        yield made


@pytest.fixture
def flows(cluster: LocalCluster) -> Iterator[Flows]:
    """`flows(name, pool, priority)`: somebody who asks; all that they run ends with the test."""
    with ExitStack() as stack:

        def begin(name: str, pool: str = "default", priority: int = 0) -> Flow:
            flow = Flow(name, cluster.scheduler_address, pool, priority)
            stack.callback(flow.client.close)
            stack.callback(lambda: flow.end(len(flow.running)))
            return flow

        yield begin


def test_no_more_is_started_than_there_are_slots_and_each_where_it_was_promised(flows: Flows) -> None:
    flow = flows("one")
    assert flow.start(10) == 4
    assert flow.start(10) == 0
    assert flow.slots.take(0).offered
    at = [place.partition("#")[0] for _, place, _ in flow.running]
    assert sorted(Counter(at).values()) == [2, 2]
    assert [flow.client.processing()[address] != () for address in set(at)] == [True, True]
    futures = [future for _, _, future in flow.running]
    flow.end(4)
    assert [future.result() for future in futures] == at


def test_a_freed_slot_goes_to_the_one_who_has_fewest_and_that_one_is_told(flows: Flows) -> None:
    first, second = flows("first"), flows("second")
    assert first.start(10) == 4
    assert second.start(10) == 0
    before = first.told
    first.end()
    wait_for(lambda: second.told, "the word that a slot is free", 5)
    assert (first.told, first.start(10)) == (before, 0)
    assert second.start(10) == 1
    first.end()
    assert first.start(10) == 0
    assert second.start(10) == 1
    first.end()  # one to two
    assert second.start(10) == 0
    assert first.start(10) == 1


def test_who_asks_no_more_is_forgotten(flows: Flows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "ASKING_S", 0.3)
    first, second = flows("first"), flows("second")
    assert first.start(10) == 4
    assert second.start(10) == 0
    first.end()
    time.sleep(0.4)
    assert first.start(10) == 1


def test_a_higher_priority_is_served_first(flows: Flows) -> None:
    usual, high = flows("usual"), flows("high", priority=1)
    assert high.start(3) == 3
    assert usual.start(10) == 1
    assert high.start(10) == 0
    high.end()
    assert usual.start(10) == 0
    assert high.start(10) == 1


def test_pools_share_the_threads_of_a_worker(flows: Flows) -> None:
    default, imaging = flows("default"), flows("imaging", "imaging")
    assert default.start(3) == 3
    assert imaging.start(10) == 1
    default.end(3)
    assert imaging.start(10) == 1
    assert default.start(10) == 2


def test_what_asks_for_much_memory_waits_for_it(flows: Flows) -> None:
    flow, other = flows("large"), flows("small")
    assert flow.start(10, 5.0) == 2
    assert other.start(10, 5.0) == 0
    assert other.start(1) == 1
    assert flow.slots.take(1, 8.0).places == ()
    assert flow.slots.take(1, 8.0).why_none == "2 of 2 workers are busy"
    answer = flow.slots.take(1, 100.0)
    assert (answer.places, answer.offered) == ((), False)


def test_a_place_that_nobody_uses_is_free_again(flows: Flows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "PROMISE_S", 0.3)
    first, second = flows("first"), flows("second")
    assert len(first.slots.take(4).places) == 4
    assert second.start(4) == 0
    time.sleep(0.4)
    assert second.start(4) == 4


def test_what_was_promised_to_a_client_that_is_gone_is_free_at_once(flows: Flows) -> None:
    first, second = flows("first"), flows("second")
    assert len(first.slots.take(4).places) == 4
    first.client.close()
    wait_for(lambda: second.start(4) == 4, "the places of the one that is gone", 30)


def test_a_pool_that_nobody_offers_is_told(flows: Flows) -> None:
    answer = flows("lost", "bandpass").slots.take(1)
    assert (answer.places, answer.offered) == ((), False)
    assert answer.patience_s > 0


def test_a_task_whose_worker_went_away_runs_on_another_one(flows: Flows) -> None:
    flow = flows("one")
    [place] = flow.slots.take(1).places
    flow.client.retire_workers([place.partition("#")[0]])
    GO["moved"] = threading.Event()
    GO["moved"].set()
    with dask.annotate(**{PLACE: place}):
        future = flow.client.submit(task, "moved", resources={"default": 1}, pure=False)
    assert future.result(20) not in place


def test_workers_that_take_nothing_new_get_nothing_and_that_is_told(cluster: LocalCluster, flows: Flows) -> None:
    flow = flows("one")
    for worker in cluster.workers.values():
        worker.status = Status.paused
    wait_for(lambda: not flow.client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.running)), "the pause")
    answer = flow.slots.take(1)
    assert (answer.places, answer.offered) == ((), True)
    assert answer.why_none == "2 of 2 workers take nothing new: paused"
    next(iter(cluster.workers.values())).status = Status.running
    wait_for(lambda: flow.start(4) == 2, "the slots of the worker that takes tasks again", 30)
