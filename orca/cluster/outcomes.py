"""How units of work end, who hears of it while a flow runs, and what the flow says about them at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from prefect import get_run_logger
from prefect.states import Completed, Failed, State

from orca.cluster.artifacts import show_table
from orca.cluster.results import kept

Status = Literal["done", "skipped", "failed"]
Cause = Literal["", "payload", "infrastructure"]


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
    """Something happened to a unit: it reached a step, was submitted again, or ended; or more units were planned.

    A step without a unit is about all of them: what they wait for, or an empty text when they wait no more.
    """

    unit: str
    step: str
    outcome: Outcome | None = None
    planned: int = 0


MESSAGE_LENGTH = 400
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


def listener_now() -> Listener:
    """Who listens in this context; the flow run's log when nobody does."""
    return _listener.get() or _log_event


def _log_event(event: Event) -> None:
    if event.planned:
        get_run_logger().info("%d to do", event.planned)
    if event.outcome is not None:
        level = "error" if event.outcome.status == "failed" else "info"
        getattr(get_run_logger(), level)("%s %s %s", event.unit, event.outcome.status, event.outcome.reason)


def conclude(outcomes: list[Outcome], title: str) -> State[Any]:
    """End a flow: its table as an artifact, and a failed state, with the first reason, when a unit failed.

    The state's data are the outcomes; in Redis, where there is one, as JSON (`orca.cluster.results`).
    """
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
    if failed := [o for o in outcomes if o.status == "failed"]:
        return Failed(message=f"{summary(outcomes)}: {failed[0].unit}: {failed[0].reason}"[:MESSAGE_LENGTH])
    return Completed(message=summary(outcomes), data=kept(outcomes))


def summary(outcomes: list[Outcome]) -> str:
    """One line: how many were done, skipped, and failed, and whose fault that was."""
    count = {status: sum(o.status == status for o in outcomes) for status in ("done", "skipped", "failed")}
    text = f"{count['done']} done, {count['skipped']} skipped, {count['failed']} failed"
    lost = sum(o.cause == "infrastructure" for o in outcomes)
    return f"{text} ({lost} by the infrastructure)" if lost else text
