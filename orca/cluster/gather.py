"""The one way a flow waits for its tasks: every unit of work ends as done, skipped or failed, and says why.

Prefect's own wait swallows what Dask raises when workers die and leaves such task runs in Running. Here it becomes an
outcome: what the infrastructure killed is submitted again, what the data killed is not.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from queue import Empty, SimpleQueue
from typing import Any

import dask
from distributed import Client, Future
from prefect import Task, get_run_logger
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture
from prefect.states import Cancelled, Completed, Crashed, Failed, State

from orca.cluster.failures import Failure, failure_of, nobody_offered
from orca.cluster.lost import Ended, end_records
from orca.cluster.nodes.parts import MEMORY
from orca.cluster.offers import MEMORY_TOPIC, Offers
from orca.cluster.outcomes import Event, Outcome, Status, UnitResult, conclude, listener_now, listening, summary
from orca.cluster.progress import Progress
from orca.cluster.runner import PoolTaskRunner
from orca.cluster.slots import DEATHS_TOPIC, PLACE, TOPIC, Answer, Slots
from orca.cluster.worker import STEPS_TOPIC
from orca.errors import InfrastructureError, StoppedError

__all__ = ["Event", "Outcome", "UnitResult", "conclude", "gather", "listening", "summary"]

RESUBMISSIONS = 2
"""How often a unit that the infrastructure killed is submitted again."""
REFILL_S = 0.5
"""How often to ask for slots while nothing ends."""
TELLING_S = 30.0
"""How long before its death a worker may have ended a task that it has not told the server."""
TELL_S = 10.0
"""How long a flow waits for its first slot before it says so."""


def gather(
    task: Task[Any, Any],
    units: Mapping[str, dict[str, Any]],
    *,
    resubmissions: int = RESUBMISSIONS,
    planned: int | None = None,
    priority: int = 0,
    memory_gb: float | None = None,
) -> list[Outcome]:
    """Run a task for every unit and wait until each has ended; to be called in a flow that runs on Dask.

    A task run is submitted when there is a free slot for it (`orca.cluster.slots`): Dask blames the death of a worker
    on all tasks that it was given, so a unit that always kills its worker would take waiting ones with it.

    A unit that ran out of memory is submitted once more, for a worker that has more; where there is none it has failed.

    Parameters
    ----------
    task : Prefect task
        Returns a `UnitResult`; raises an `OrcaError` for what it can explain.
    units : dict of keyword arguments by name
        The arguments of each task run.
    resubmissions : int
        How often a unit that the infrastructure killed is submitted again.
    planned : int, optional
        How many units to announce, if not these: all of a flow that gathers more than once, then 0.
    priority : int
        Of these tasks among all that wait for a slot; higher ones come first.
    memory_gb : float, optional
        Memory that a worker process has to have, in 1e9 bytes.

    Returns
    -------
    list of Outcome
        In the order of `units`.
    """
    return _Gathering(task, units, resubmissions, priority, memory_gb).run(len(units) if planned is None else planned)


@dataclass
class _Attempt:
    unit: str
    number: int = 1
    memory_gb: float | None = None
    """What its worker has to have at least."""
    enlarged: bool = False


@dataclass
class _Running:
    attempt: _Attempt
    future: PrefectFuture[Any]

    @property
    def dask(self) -> Future:
        return self.future.wrapped_future  # type: ignore[attr-defined]


class _Gathering:
    """One call of `gather`.

    Invariant: each unit is in `todo`, is one of the `running`, or has its entry in `outcomes`.
    """

    def __init__(
        self,
        task: Task[Any, Any],
        units: Mapping[str, dict[str, Any]],
        resubmissions: int,
        priority: int,
        memory_gb: float | None,
    ) -> None:
        context = FlowRunContext.get()
        run = None if context is None else context.flow_run
        if context is None or run is None or not isinstance(context.task_runner, PoolTaskRunner):
            raise InfrastructureError("gather was called outside of a flow on Dask")
        self.flow_run_id = run.id
        self.pool: str = context.task_runner.pool
        self.client: Client = context.task_runner.client
        self.offers = Offers(self.client, self.pool)
        self.slots = Slots(self.client, self.pool, priority)
        self.notify = listener_now()
        self.task, self.units, self.resubmissions, self.priority = task, units, resubmissions, priority
        self.todo = deque(_Attempt(unit, memory_gb=memory_gb) for unit in units)
        self.ended: SimpleQueue[_Running | None] = SimpleQueue()
        """What has ended; None where a slot may be free."""
        self.deaths: SimpleQueue[dict[str, Any]] = SimpleQueue()
        """Of workers, as the scheduler tells them."""
        self.running: dict[Any, _Attempt] = {}
        """By the key of the Dask task."""
        self.outcomes: dict[str, Outcome] = {}
        self.records: list[Ended] = []
        self.doubtful_since_s: float | None = None
        """Of the task runs that ended later, a worker that died may not have told the server."""
        self.memory_killed: set[str] = set()
        self.waits_since: float | None = None
        self.nobody_since: float | None = None
        self.told = False

    def run(self, planned: int) -> list[Outcome]:
        if planned:
            self.notify(Event("", "", planned=planned))
        topics = {
            STEPS_TOPIC: self._on_step,
            MEMORY_TOPIC: self._on_memory,
            TOPIC: lambda _: self.ended.put(None),
            DEATHS_TOPIC: lambda event: self.deaths.put(event[1]),
        }
        with _subscribed(self.client, topics), Progress(self.task.name, _dashboard(self.client)) as progress:
            self._refill()
            while self.todo or self.running:
                try:
                    ended = self.ended.get(timeout=REFILL_S)
                except Empty:
                    ended = None
                    self._look_around()
                if ended is not None:
                    del self.running[ended.dask.key]
                self._tell_deaths()
                self._refill()  # before the result is fetched, so that the slot does not wait for that
                if ended is not None:
                    self._take(ended)
                    ended.dask.release()  # a worker that is to be replaced waits until nobody needs its results
                progress.tell(len(self.outcomes), len(self.units))
            self._tell_deaths()
        doubtful = [r for r in self.records if r.lost or r.at_s > (self.doubtful_since_s or math.inf)]
        end_records(self.task, self.flow_run_id, doubtful)
        return [self.outcomes[unit] for unit in self.units]

    def _refill(self) -> None:
        """Submit as many units as there are slots for."""
        while self.todo and self.client.status == "running":
            memory_gb = self.todo[0].memory_gb
            _, alike = next(groupby(self.todo, attrgetter("memory_gb")))
            try:
                answer = self.slots.take(len(list(alike)), memory_gb)
            except OSError:  # the scheduler is away; the client says what comes of it
                return
            for place in answer.places:
                self._submit(self.todo.popleft(), place)
            if answer.places:
                self._waits_no_more()
            elif not self._hopeless(answer, memory_gb):
                return

    def _submit(self, attempt: _Attempt, place: str) -> None:
        need = {} if attempt.memory_gb is None else {"resources": {MEMORY: attempt.memory_gb}}
        with dask.annotate(**{PLACE: place}, priority=self.priority, **need):
            running = _Running(attempt, self.task.submit(**self.units[attempt.unit]))
        self.running[running.dask.key] = attempt
        running.dask.add_done_callback(lambda _: self.ended.put(running))

    def _hopeless(self, answer: Answer, memory_gb: float | None) -> bool:
        """Whether nobody has offered for long what the first unit needs, which has then failed; tells that it waits."""
        now = time.monotonic()
        if self.running and answer.offered:
            self._waits_no_more()
            return False
        self.waits_since = self.waits_since or now
        self.nobody_since = None if answer.offered else self.nobody_since or now
        need = self.pool if memory_gb is None else f"{self.pool} with {memory_gb:g} GB of memory"
        if self.nobody_since is not None and now - self.nobody_since > answer.patience_s:
            self._give_up(nobody_offered(need, answer.patience_s), memory_gb)
            return True
        if now - self.waits_since > TELL_S and not self.told:
            wait = f"waiting for a slot of {need}: {answer.why_none}"
            self._tell(wait if answer.offered else f"no worker offers {need}: waiting for one")
        return False

    def _waits_no_more(self) -> None:
        self.waits_since = self.nobody_since = None
        if self.told:
            self._tell("")

    def _take(self, ended: _Running) -> None:
        """Draw the consequence of the end of a task run."""
        attempt = ended.attempt
        try:
            result = ended.future.result(raise_on_failure=False)
        except Exception as error:  # noqa: BLE001 - what Dask says of the task, whatever that is
            result = error
        if result is None:
            result = InfrastructureError(f"the task of {attempt.unit} ended without a result")
        if not isinstance(result, BaseException):
            status: Status = "skipped" if result.skipped else "done"
            self._record(ended, Completed(message=status))
            self._settle(Outcome(attempt.unit, status, result=result, attempts=attempt.number))
            return
        failure = failure_of(result, self._need(attempt), self.memory_killed)
        how = Crashed if failure.lost else Cancelled if isinstance(result, StoppedError) else Failed
        self._record(ended, how(message=failure.reason), failure.lost)
        again = self._again(attempt, failure, ended)
        if again is None:
            reason = f"{failure.reason}, and no worker has more" if failure.killed_by_memory else failure.reason
            self._settle(
                Outcome(attempt.unit, "failed", None, reason, failure.detail, failure.cause, attempts=attempt.number)
            )
            return
        get_run_logger().warning("%s submitted again: %s", attempt.unit, failure.reason)
        self.notify(Event(attempt.unit, f"submitted again: {failure.reason}"))
        self.todo.append(again)

    def _record(self, ended: _Running, state: State[Any], lost: bool = False) -> None:
        self.records.append(Ended(ended.attempt.unit, ended.future.task_run_id, state, lost))
        if lost:
            self._doubt()

    def _doubt(self) -> None:
        """A worker died: from now on, and for a while before, the server may not know all."""
        self.doubtful_since_s = self.doubtful_since_s or time.monotonic() - TELLING_S

    def _tell_deaths(self) -> None:
        """Say whose worker died: Dask runs these again, and their logs begin anew."""
        while not self.deaths.empty():
            death = self.deaths.get()
            self._doubt()
            for attempt in filter(None, map(self.running.get, death["tasks"])):
                again = f"its Dask worker {death['worker']} died: begins again"
                get_run_logger().warning("%s: %s", attempt.unit, again)
                self.notify(Event(attempt.unit, again))

    def _need(self, attempt: _Attempt) -> str:
        """What a worker has to offer for it, in words."""
        return self.pool if attempt.memory_gb is None else f"{self.pool} with {attempt.memory_gb:g} GB of memory"

    def _again(self, attempt: _Attempt, failure: Failure, ended: _Running) -> _Attempt | None:
        """How a unit that failed is tried again, if it is."""
        if failure.nobody:  # its worker was gone when it came; whether there is another one is seen when asking
            return attempt
        following = replace(attempt, number=attempt.number + 1)
        if failure.out_of_memory and not attempt.enlarged:
            limit_gb = failure.limit_gb or self.offers.limit_gb(ended.dask)
            if (more := self.offers.memory_above(limit_gb)) is not None:
                return replace(following, memory_gb=more, enlarged=True)
        if failure.cause == "payload" or failure.killed_by_memory or attempt.number > self.resubmissions:
            return None
        return following

    def _settle(self, outcome: Outcome) -> None:
        self.outcomes[outcome.unit] = outcome
        self.notify(Event(outcome.unit, outcome.status, outcome))

    def _look_around(self) -> None:
        """While nothing ends: see whether there is still a cluster."""
        if self.client.status == "closed" and not self.running:
            while self.todo:
                self._give_up("the Dask cluster is gone", self.todo[0].memory_gb)

    def _tell(self, text: str) -> None:
        self.told = bool(text)
        if text:
            get_run_logger().warning(text)
        self.notify(Event("", text))

    def _give_up(self, reason: str, memory_gb: float | None) -> None:
        """What was never submitted, and needs so much memory, cannot be done."""
        while self.todo and self.todo[0].memory_gb == memory_gb:
            attempt = self.todo.popleft()
            self._settle(
                Outcome(attempt.unit, "failed", reason=reason, cause="infrastructure", attempts=attempt.number)
            )

    def _on_step(self, event: tuple[float, Any]) -> None:
        message = event[1]
        if message["unit"] in self.units:
            self.notify(Event(message["unit"], message["step"]))

    def _on_memory(self, event: tuple[float, Any]) -> None:
        self.memory_killed.add(event[1]["worker"])


def _dashboard(client: Client) -> str | None:
    """Address of Dask's own page, if it has one."""
    try:
        return client.dashboard_link or None
    except (KeyError, OSError, ValueError):
        return None


@contextmanager
def _subscribed(client: Client, handlers: Mapping[str, Callable[[tuple[float, Any]], None]]) -> Iterator[None]:
    """Have the handlers called, by a thread of the client, for what workers and nannies say on these topics."""
    for topic, handler in handlers.items():
        client.subscribe_topic(topic, handler)
    try:
        yield
    finally:
        for topic in handlers:
            if client.status == "running":
                client.unsubscribe_topic(topic)
