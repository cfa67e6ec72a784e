"""Which flow run may start its next task where: the book that the Dask scheduler keeps of the slots of all pools.

Dask assigns a task to a worker as soon as it is submitted, be there a free slot or not, and never moves it again: while
several flow runs work, tasks queue at some workers beside empty slots of others. So a flow run asks here first, and
submits what starts at once. Slots are shared out evenly among flow runs of the same priority.
"""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

from distributed import Client, Scheduler, SchedulerPlugin, Status
from distributed.scheduler import TaskState, WorkerState

from orca.cluster.nodes.parts import LEAVING_TOPIC, MEMORY
from orca.cluster.worker import NODE_PLUGIN

NAME = "orca-slots"
OPERATION = "orca_take_slots"
TOPIC = "orca-slots"
"""What a flow run is told on when it may ask again."""
DEATHS_TOPIC = "orca-deaths"
"""Where it is told which worker died, and which tasks begin again."""
PLACE = "orca_place"
"""Annotation of a task: the place that it was promised."""
PROMISE_S, ASKING_S = 15.0, 5.0
"""How long a promised place is kept for a task, and how long somebody counts as waiting who does not ask again."""
BROKEN = "handle-worker-cleanup"
"""How Dask names the event that the connection to a worker broke."""


@dataclass(frozen=True)
class Answer:
    """What a flow run that asks for slots is told.

    Attributes
    ----------
    places : tuple of str
        A place for each task that may be submitted now; to be its annotation `PLACE`.
    offered : bool
        Whether any worker offers what was asked for, be it busy or paused.
    patience_s : float
        How long the scheduler would wait for one.
    why_none : str
        Where there is no place: what the workers do instead.
    """

    places: tuple[str, ...]
    offered: bool
    patience_s: float
    why_none: str


class Slots:
    """What a flow run knows of the book: it asks for slots of one pool.

    Parameters
    ----------
    client : Client
    pool : str
    priority : int
        Higher ones are served first.
    """

    def __init__(self, client: Client, pool: str, priority: int = 0) -> None:
        self._client = client
        self._asking = {"client": client.id, "pool": pool, "priority": priority, "since": time.time()}

    def take(self, wanted: int, memory_gb: float | None = None) -> Answer:
        """Ask for slots for so many tasks.

        Raises
        ------
        OSError
            The scheduler is away.
        """
        asked = {**self._asking, "wanted": wanted, "memory_gb": memory_gb}
        answer = self._ask(asked)
        if answer is None:  # somebody else's scheduler does not know what is asked
            self._client.run_on_scheduler(install)
            answer = self._ask(asked)
        return Answer(**{**answer, "places": tuple(answer["places"])})

    def _ask(self, asked: dict[str, Any]) -> Any:
        return self._client.sync(getattr(self._client.scheduler, OPERATION), **asked)


@dataclass
class _Asking:
    """Somebody who waits for slots."""

    client: str
    wanted: int
    priority: int
    since: float
    memory_gb: float
    until: float


@dataclass(frozen=True)
class _Promise:
    client: str
    address: str
    pool: str
    memory_gb: float
    until: float


@dataclass
class _Room:
    """What is free at a worker."""

    tasks: int
    memory_gb: float


class SlotBook(SchedulerPlugin):
    """Part of the scheduler; all of it runs in the scheduler's event loop.

    Invariant: what is promised, with what Dask counts as taken, exceeds neither what a worker offers to a pool nor its
    threads.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.promises: dict[str, _Promise] = {}
        self.asking: dict[str, dict[str, _Asking]] = {}
        """By pool and client."""
        self.owners: dict[Any, str] = {}
        """Whose the tasks are that are in a slot."""
        self.names: dict[str, str] = {address: str(ws.name) for address, ws in scheduler.workers.items()}
        """Of the workers, by address."""
        self.leaving: set[str] = set()
        self.interrupted: dict[str, list[str]] = defaultdict(list)
        """Tasks that begin again, by the name that Dask gives to the end of their worker's connection."""
        self._numbers = count()
        self._telling = False
        self._dasks_objective: Callable[[TaskState, WorkerState], tuple[Any, ...]] = scheduler.worker_objective
        scheduler.worker_objective = self.objective
        scheduler.handlers[OPERATION] = self.take

    def take(
        self, client: str, pool: str, wanted: int, priority: int, since: float, memory_gb: float | None
    ) -> dict[str, Any]:
        """Promise places to somebody; called by `Slots.take`."""
        self._forget()
        now, memory_gb = time.monotonic(), memory_gb or 0.0
        mine = _Asking(client, wanted, priority, since, memory_gb, now + ASKING_S)
        self.asking.setdefault(pool, {})[client] = mine
        places = []
        for each, address in list(self._deal(pool)):
            if each is mine:
                places.append(place := f"{address}#{next(self._numbers)}")
                self.promises[place] = _Promise(client, address, pool, memory_gb, now + PROMISE_S)
        mine.wanted -= len(places)
        if mine.wanted <= 0:
            del self.asking[pool][client]
        able = [
            ws
            for ws in self.scheduler.workers.values()
            if ws.resources.get(pool, 0) >= 1 and ws.resources.get(MEMORY, 0) >= memory_gb
        ]
        return {
            "places": places,
            "offered": bool(able),
            "patience_s": float(self.scheduler.no_workers_timeout or math.inf),
            "why_none": "" if places else _why_none(able),
        }

    def _deal(self, pool: str) -> Iterator[tuple[_Asking, str]]:
        """Deal the free slots of a pool out to those who wait: to whom, and where."""
        busy = self._busy()
        room = self._room(pool, busy)
        share = Counter([*self.owners.values(), *(promise.client for promise in self.promises.values())])
        waiting = {id(each): each.wanted for each in self.asking[pool].values()}
        while True:
            left = [each for each in self.asking[pool].values() if waiting[id(each)] > 0]
            if not left or not room:
                return
            first = min(left, key=lambda each: (-each.priority, share[each.client], each.since))
            if address := self._choose(room, busy, first.memory_gb):
                waiting[id(first)] -= 1
                share[first.client] += 1
                yield first, address
            else:
                waiting[id(first)] = 0

    def _busy(self) -> Counter[str]:
        """Tasks of each worker, and of each machine, with those to come."""
        busy = Counter(promise.address for promise in self.promises.values())
        for address, ws in self.scheduler.workers.items():
            busy[address] += len(ws.processing)
            busy[ws.host] += busy[address]
        return busy

    def _room(self, pool: str, busy: Counter[str]) -> dict[str, _Room]:
        """Workers that would start a task of a pool at once."""
        promised = Counter[str]()
        promised_gb: dict[str, float] = defaultdict(float)
        for promise in self.promises.values():
            promised[promise.address] += promise.pool == pool
            promised_gb[promise.address] += promise.memory_gb
        found = {}
        for address, ws in self.scheduler.workers.items():
            if ws.status != Status.running or pool not in ws.resources:
                continue
            slots = int(ws.resources[pool] - ws.used_resources.get(pool, 0)) - promised[address]
            free_gb = ws.resources.get(MEMORY, 0) - ws.used_resources.get(MEMORY, 0) - promised_gb[address]
            if (tasks := min(slots, ws.nthreads - busy[address])) > 0:
                found[address] = _Room(tasks, free_gb)
        return found

    def _choose(self, room: dict[str, _Room], busy: Counter[str], memory_gb: float) -> str | None:
        """A place at the worker, of the machine, that has least to do; taken out of the room."""
        able = [address for address, free in room.items() if free.memory_gb >= memory_gb]
        if not able:
            return None
        workers = self.scheduler.workers
        address = min(able, key=lambda each: (busy[workers[each].host], busy[each]))
        busy.update([workers[address].host, address])
        room[address].tasks -= 1
        room[address].memory_gb -= memory_gb
        if not room[address].tasks:
            del room[address]
        return address

    def objective(self, ts: TaskState, ws: WorkerState) -> tuple[Any, ...]:
        """Dask takes the worker for which this is least: the promised one, else one with a free slot."""
        promise = self.promises.get((ts.annotations or {}).get(PLACE, ""))
        taken = ws.used_resources
        full = any(taken.get(name, 0) + n > ws.resources[name] for name, n in (ts.resource_restrictions or {}).items())
        return (promise is None or promise.address != ws.address, full, *self._dasks_objective(ts, ws))

    def transition(self, key: Any, start: str, finish: str, *_: Any, stimulus_id: str = "", **__: Any) -> None:
        """Called by Dask for each change of a task's state, in the midst of it."""
        if finish == "processing":
            promise = self.promises.pop((self.scheduler.tasks[key].annotations or {}).get(PLACE, ""), None)
            if promise is not None:
                self.owners[key] = promise.client
        elif start == "processing":
            self.owners.pop(key, None)
            if stimulus_id.startswith(BROKEN) and finish != "erred":
                self.interrupted[stimulus_id].append(key)
            self._tell_later()

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Called by Dask when a worker has come."""
        self.names[worker] = str(scheduler.workers[worker].name)
        self._tell_later()

    def log_event(self, topic: str, msg: Any) -> None:
        """Called by Dask when somebody says something on a topic."""
        if topic == LEAVING_TOPIC:
            self.leaving.add(str(msg))

    def remove_worker(self, scheduler: Scheduler, worker: str, *, stimulus_id: str, **_: Any) -> None:
        """Called by Dask when a worker is gone, after its tasks were taken from it."""
        name, tasks = self.names.pop(worker, worker), self.interrupted.pop(stimulus_id, [])
        left = worker in self.leaving
        self.leaving.discard(worker)
        if stimulus_id.startswith(BROKEN) and not left:
            scheduler.log_event(DEATHS_TOPIC, {"worker": name, "tasks": tasks})

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """Called by Dask when a flow run has ended, or is gone."""
        for waiting in self.asking.values():
            waiting.pop(client, None)
        self.promises = {place: each for place, each in self.promises.items() if each.client != client}
        self._tell_later()

    def _tell_later(self) -> None:
        if any(self.asking.values()) and not self._telling:
            self._telling = True
            self.scheduler.loop.add_callback(self._tell)

    def _tell(self) -> None:
        """Tell those who wait, and would now get something, to ask again."""
        self._telling = False
        self._forget()
        event: dict[str, Any] = {"op": "event", "topic": TOPIC, "event": (time.time(), {})}
        told = {each.client for pool in self.asking for each, _ in self._deal(pool)}
        self.scheduler.send_all({client: [event] for client in told}, worker_msgs={})

    def _forget(self) -> None:
        """What was promised or asked too long ago."""
        now = time.monotonic()
        self.promises = {place: each for place, each in self.promises.items() if each.until > now}
        for pool, waiting in self.asking.items():
            self.asking[pool] = {client: each for client, each in waiting.items() if each.until > now}


def _why_none(able: list[WorkerState]) -> str:
    """Why none of these workers starts a task now."""
    held = [ws for ws in able if ws.status != Status.running]
    reasons = Counter(str(ws.metrics.get(NODE_PLUGIN, {}).get("reason") or "paused") for ws in held)
    words = [f"{count} of {len(able)} workers take nothing new: {reason}" for reason, count in reasons.items()]
    if busy := len(able) - len(held):
        words.append(f"{busy} of {len(able)} workers are busy")
    return "; ".join(words)


def install(dask_scheduler: Scheduler) -> None:
    """Give a scheduler its book, if it has none; run by `distributed.Client.run_on_scheduler` or as a preload."""
    if NAME not in dask_scheduler.plugins:
        dask_scheduler.add_plugin(SlotBook(dask_scheduler), name=NAME)


def dask_setup(scheduler: Scheduler) -> None:
    """Called by Dask when the scheduler of a cluster starts, since it preloads this module."""
    install(scheduler)
