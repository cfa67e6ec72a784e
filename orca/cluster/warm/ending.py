"""What it means for a flow run that its process has ended, and telling that to Prefect."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.logging.loggers import flow_run_logger
from prefect.states import AwaitingRetry, Cancelled, Crashed

from orca.cluster.warm.records import Process, Record, locked, this_host
from orca.procfs import processes

RETRIES = 2
"""How often a run whose process was killed from outside is scheduled again."""
FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
"""Signals that say nothing about the flow itself."""
TAIL_BYTES = 2000
"""Of what a process printed, for the flow run's log."""
LATE_S = 60.0
"""How long after a run's end the server may still learn of task runs that had begun before it."""


@dataclass(frozen=True)
class End:
    """How a process ended.

    Attributes
    ----------
    message : str
        For the operator.
    outside : bool
        Whether it was killed from outside: then the run is scheduled again.
    """

    message: str
    outside: bool = True


STOPPED = End("The worker was stopped before the flow run had ended")
"""Does not count as one of the `RETRIES`."""


def end_of(record: Record) -> End:
    """How the process of a record ended, as far as anybody saw it."""
    code, who = record.exit_code(), f"its process {record.process.pid} on {record.host}"
    if code is None:
        return End(f"{who} is gone, and nobody saw how it ended: killed together with its worker, or with the machine")
    if code >= 0:
        last = (_tail(record.log).splitlines() or ["nothing"])[-1].strip()
        return End(f"{who} ended with exit status {code} and no final state; it printed last: {last}", outside=False)
    number = -code
    name = signal.Signals(number).name if number in list(signal.Signals) else f"signal {number}"
    if number == signal.SIGKILL:
        return End(f"{who} was killed by SIGKILL: by somebody, or by the kernel because memory ran out (dmesg tells)")
    return End(f"{who} was ended by {name}", outside=number in FROM_OUTSIDE)


class Ender:
    """Tells Prefect of runs whose processes have ended."""

    def __init__(self, client: PrefectClient) -> None:
        self.client = client
        self._ended: dict[str, tuple[float, datetime]] = {}

    async def conclude(self, record: Record, end: End | None = None) -> str | None:
        """Give the run of a dead process its state, unless it has one, and forget its record.

        Several workers may try at once: one does it.

        Parameters
        ----------
        record : Record
            Its process is gone.
        end : End, optional
            How it ended; by what the record says when not given.

        Returns
        -------
        str or None
            Name of the state that the run was given, None where it was left alone.
        """
        with locked(record) as ours:
            return await self._conclude(record, end or end_of(record)) if ours else None

    async def _conclude(self, record: Record, end: End) -> str | None:
        if record.host == this_host() and record.pool is not None:
            end_session(record.process)
        try:
            run = await self.client.read_flow_run(UUID(record.flow_run_id))
        except ObjectNotFound:
            record.forget()
            return None
        given = await self._mark(run, record, end)
        if given is not None or (run.state is not None and run.state.is_final() and not run.state.is_completed()):
            self._ended[record.flow_run_id] = (time.monotonic(), datetime.now(UTC))
        if given is not None:
            await self.end_task_runs(end.message)
        record.forget()  # before the run can start again, with a record of its own
        if given == "Crashed" and end.outside and await self._may_retry(run):
            given = await self.reschedule(run, f"{end.message}; scheduled again")
        return given

    async def _mark(self, run: FlowRun, record: Record, end: End) -> str | None:
        """Give a run that has no process any more its state; the state's name, None where the run has one already."""
        state = run.state
        if state is not None and state.is_crashed() and record.exit_code() == -signal.SIGTERM:
            return "Crashed"  # its engine was told to end from outside, and said so itself
        if state is None or state.is_final() or state.is_scheduled() or state.is_paused():
            return None
        if state.is_cancelling():
            return await self._give(run, Cancelled(message="Cancelled; its process has ended"))
        printed = _tail(record.log)
        flow_run_logger(run).error("%s%s", end.message, f"; the last it printed:\n{printed}" if printed else "")
        return await self._give(run, Crashed(message=end.message))

    async def _give(self, run: FlowRun, state: State[None]) -> str | None:
        """Propose a state: the server refuses one that would overwrite what came meanwhile. The name of what it is."""
        answer = await self.client.set_flow_run_state(run.id, state)
        return state.name if answer.state is not None and answer.state.type == state.type else None

    async def _may_retry(self, run: FlowRun) -> bool:
        """Whether it belongs to a deployment and did not crash too often already."""
        if run.deployment_id is None or run.work_pool_name is None:
            return False
        states = await self.client.read_flow_run_states(run.id)
        crashed = [state for state in states if state.type == StateType.CRASHED and state.message != STOPPED.message]
        return len(crashed) <= RETRIES

    async def reschedule(self, run: FlowRun, message: str) -> str | None:
        """Schedule a run again that never started."""
        return await self._give(run, AwaitingRetry(scheduled_time=datetime.now(UTC), message=message))

    async def end_task_runs(self, message: str = "Its flow run has ended") -> None:
        """Mark what the flow runs that ended left behind as running; repeated for a while: the server learns late."""
        for flow_run_id, (since, at) in list(self._ended.items()):
            left = await self.client.read_task_runs(
                flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run_id)])),
                task_run_filter=TaskRunFilter(
                    state=TaskRunFilterState(type=TaskRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING]))
                ),
            )
            for task_run in left:
                if task_run.state is not None and task_run.state.timestamp <= at:
                    with suppress(ObjectNotFound):
                        await self.client.set_task_run_state(task_run.id, Crashed(message=message), force=True)
            if time.monotonic() - since > LATE_S:
                del self._ended[flow_run_id]


def _tail(log: Path) -> str:
    """The last lines of what a process printed."""
    try:
        with log.open("rb") as source:
            source.seek(max(0, log.stat().st_size - TAIL_BYTES))
            return source.read().decode(errors="replace").strip()
    except FileNotFoundError:
        return ""


def end_session(leader: Process) -> None:
    """Kill what is left on this host of the session that a process led which is gone."""
    members = [pid for pid, _, session in processes() if session == leader.pid]
    if leader.pid in members or not leader.this_boot():  # another process has the number now
        return
    for pid in members:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
