"""The one way a flow waits for its tasks: every unit of work ends as done, skipped or failed, and says why.

Prefect's own wait swallows what Dask raises when workers die and leaves such task runs in Running. Here it becomes an
outcome: what the infrastructure killed is submitted again, what the data killed is not.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Literal, Protocol

from distributed import Client
from distributed.client import FutureCancelledError, FuturesCancelledError
from distributed.scheduler import KilledWorker, NoValidWorkerError
from httpx import HTTPStatusError
from prefect import Task, get_client, get_run_logger
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.futures import PrefectFuture
from prefect.states import Crashed, Failed, State

from orca.cluster.artifacts import show_table
from orca.cluster.runner import PoolTaskRunner
from orca.cluster.worker import STEPS_TOPIC
from orca.errors import InfrastructureError, OrcaError

Status = Literal["done", "skipped", "failed"]
Cause = Literal["", "payload", "infrastructure"]
RESUBMISSIONS = 2
"""How often a unit that the infrastructure killed is submitted again."""
REFILL_S = 0.5
"""How often to look for new workers while nothing ends."""
RECORD_PATIENCE_S = 10.0
"""How long to wait for the server to have the record of a task run whose worker died."""


class UnitResult(Protocol):
    """What a task returns for its unit."""

    @property
    def skipped(self) -> bool:
        """True where the product was fresh and nothing was done."""


@dataclass(frozen=True)
class Outcome:
    """How a unit of work ended.

    Attributes
    ----------
    unit : str
        Its name.
    status : "done", "skipped" (a fresh product was there) or "failed"
    result : what the task returned, None when it failed
    reason : why it failed, one line
    detail : the same with all that is known, such as the end of a program's log
    cause : whose fault: "payload" (data, options, program) or "infrastructure"
    attempts : how often it was submitted
    """

    unit: str
    status: Status
    result: Any = None
    reason: str = ""
    detail: str = ""
    cause: Cause = ""
    attempts: int = 1


@dataclass(frozen=True)
class Event:
    """Something happened to a unit: it reached a step, was submitted again, or ended; or more units were planned."""

    unit: str
    step: str
    outcome: Outcome | None = None
    planned: int = 0


Listener = Callable[[Event], None]
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tell `listener` what happens to the units of flows that run in this context (may be called from a thread)."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@dataclass
class _Waiting:
    unit: str
    future: PrefectFuture[Any]
    attempts: int
    lost: str = ""
    """Why Dask gave it up, if it did."""


def gather(
    task: Task[Any, Any], units: Mapping[str, dict[str, Any]], *, resubmissions: int = RESUBMISSIONS
) -> list[Outcome]:
    """Run a task for every unit and wait until each has ended; to be called in a flow that runs on Dask.

    No more task runs are submitted than the cluster has slots: Dask blames the death of a worker on all tasks that it
    was given, so a unit that always kills its worker would take the waiting ones with it.

    Parameters
    ----------
    task : Prefect task
        Returns a `UnitResult`; raises an `OrcaError` for what it can explain.
    units : dict of keyword arguments by name
        The arguments of each task run.
    resubmissions : int
        How often a unit that the infrastructure killed is submitted again.

    Returns
    -------
    list of Outcome
        In the order of `units`.
    """
    notify = _listener.get() or _log_event
    client = _dask_client()
    client.subscribe_topic(STEPS_TOPIC, lambda event: _on_step(event, units, notify))
    notify(Event("", "", planned=len(units)))
    todo = deque((unit, 1) for unit in units)
    ended: SimpleQueue[_Waiting] = SimpleQueue()
    outcomes: dict[str, Outcome] = {}
    lost: list[_Waiting] = []
    running = 0
    while todo or running:
        while todo and running < _slots(client):
            unit, attempt = todo.popleft()
            _submit(task, unit, units[unit], attempt, ended)
            running += 1
        try:
            current = ended.get(timeout=REFILL_S)
        except Empty:
            continue
        running -= 1
        outcome = _outcome(current)
        if current.lost:
            lost.append(current)
        if outcome.cause == "infrastructure" and current.attempts <= resubmissions and client.status == "running":
            notify(Event(current.unit, f"submitted again: {outcome.reason}"))
            todo.append((current.unit, current.attempts + 1))
            continue
        outcomes[current.unit] = outcome
        notify(Event(current.unit, outcome.status, outcome))
        if client.status != "running":
            _give_up(todo, outcomes, notify)
    client.unsubscribe_topic(STEPS_TOPIC)
    _end_records(lost)
    return [outcomes[unit] for unit in units]


def _submit(
    task: Task[Any, Any], unit: str, arguments: dict[str, Any], attempt: int, ended: SimpleQueue[_Waiting]
) -> None:
    waiting = _Waiting(unit, task.submit(**arguments), attempt)
    waiting.future.wrapped_future.add_done_callback(lambda _: ended.put(waiting))  # type: ignore[attr-defined]


def _slots(client: Client) -> int:
    """Tasks that the workers of now can run at once; one when none has come yet."""
    return max(1, sum(client.nthreads().values()))


def _give_up(todo: deque[tuple[str, int]], outcomes: dict[str, Outcome], notify: Listener) -> None:
    """The scheduler is gone: what was never submitted cannot be done."""
    while todo:
        unit, attempt = todo.popleft()
        reason = "the Dask cluster is gone"
        outcomes[unit] = Outcome(unit, "failed", reason=reason, cause="infrastructure", attempts=attempt)
        notify(Event(unit, "failed", outcomes[unit]))


def _dask_client() -> Client:
    """The client of the flow that runs."""
    context = FlowRunContext.get()
    if context is None or not isinstance(context.task_runner, PoolTaskRunner):
        raise InfrastructureError("gather was called outside of a flow on Dask")
    return context.task_runner.client


def conclude(outcomes: list[Outcome], title: str) -> State[Any] | list[Outcome]:
    """End a flow: its table as an artifact, and a failed state when a unit failed."""
    rows = [
        {
            "unit": o.unit,
            "status": o.status,
            "attempts": o.attempts,
            "whose fault": o.cause,
            "why": o.reason,
            "warnings": "; ".join(getattr(o.result, "warnings", ())),
        }
        for o in outcomes
    ]
    if rows:
        show_table(f"{title}-summary", rows, summary(outcomes))
    if any(o.status == "failed" for o in outcomes):
        return Failed(message=summary(outcomes))
    return outcomes


def summary(outcomes: list[Outcome]) -> str:
    """One line: how many were done, skipped, and failed, and whose fault that was."""
    count = {status: sum(o.status == status for o in outcomes) for status in ("done", "skipped", "failed")}
    text = f"{count['done']} done, {count['skipped']} skipped, {count['failed']} failed"
    lost = sum(o.cause == "infrastructure" for o in outcomes)
    return f"{text} ({lost} by the infrastructure)" if lost else text


def _outcome(waiting: _Waiting) -> Outcome:
    """What a finished task run means."""
    unit, attempts = waiting.unit, waiting.attempts
    try:
        result = waiting.future.result(raise_on_failure=False)
    except KilledWorker as error:
        return _lost(waiting, f"its Dask worker died {error.allowed_failures + 1} times while it ran")
    except (FutureCancelledError, FuturesCancelledError, NoValidWorkerError) as error:
        return _lost(waiting, f"the Dask cluster lost it ({type(error).__name__})")
    if isinstance(result, OrcaError):
        return _failed(waiting, str(result), "infrastructure" if result.retryable else "payload")
    if isinstance(result, BaseException):
        return _failed(waiting, f"{type(result).__name__}: {result}", "payload")
    if result is None:
        raise InfrastructureError(f"the task of {unit} ended without a result")
    return Outcome(unit, "skipped" if result.skipped else "done", result=result, attempts=attempts)


def _failed(waiting: _Waiting, detail: str, cause: Cause) -> Outcome:
    reason = next(iter(detail.strip().splitlines()), "")
    return Outcome(waiting.unit, "failed", None, reason, detail, cause, waiting.attempts)


def _lost(waiting: _Waiting, reason: str) -> Outcome:
    """A task run that Dask gave up, and whose record nobody else ends."""
    waiting.lost = reason
    return Outcome(waiting.unit, "failed", reason=reason, cause="infrastructure", attempts=waiting.attempts)


def _end_records(lost: list[_Waiting]) -> None:
    """Mark the task runs that died with their workers as crashed: without this they stay in Running for ever.

    The server learns of task runs late, and of some never; these are asked for again for a while.
    """
    end = time.monotonic() + RECORD_PATIENCE_S
    with get_client(sync_client=True) as client:
        while lost:
            for waiting in list(lost):
                try:
                    state: State[Any] = Crashed(message=waiting.lost)
                    client.set_task_run_state(waiting.future.task_run_id, state, force=True)
                    lost.remove(waiting)
                except (ObjectNotFound, HTTPStatusError) as error:
                    get_run_logger().debug("no record of the lost task run of %s yet: %s", waiting.unit, error)
            if lost and time.monotonic() > end:
                return
            time.sleep(0.5 if lost else 0)


def _on_step(event: tuple[float, Any], units: Mapping[str, Any], notify: Listener) -> None:
    message = event[1]
    if message["unit"] in units:
        notify(Event(message["unit"], message["step"]))


def _log_event(event: Event) -> None:
    if event.planned:
        get_run_logger().info("%d to do", event.planned)
    if event.outcome is not None:
        level = "error" if event.outcome.status == "failed" else "info"
        getattr(get_run_logger(), level)("%s %s %s", event.unit, event.outcome.status, event.outcome.reason)
