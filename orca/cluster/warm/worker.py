"""Prefect's worker of type `orca`: a flow run starts as a fork of a process that has imported the flows already.

`prefect worker start --pool imaging` finds it through the entry point `prefect.collections`. It is a Prefect worker as
any other, and besides:

- told to stop (SIGTERM, Ctrl-C) it takes no new runs and waits for those that run; told again it ends them;
- killed, it leaves its runs alive, and the next worker of the pool on this host looks after them;
- a run whose process was killed is marked, says why, and is scheduled again, see `orca.cluster.warm.reaper`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import anyio.abc
from prefect.client.schemas.objects import FlowRun
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventAnyResourceFilter, EventFilter, EventNameFilter
from prefect.exceptions import InfrastructureNotAvailable, InfrastructureNotFound
from prefect.workers.base import BaseWorker

from orca.cluster.warm.ending import STOPPED, End, Ender
from orca.cluster.warm.job import WarmJobConfiguration, WarmResult, WarmVariables
from orca.cluster.warm.launcher import Launcher
from orca.cluster.warm.reaper import Reaper
from orca.cluster.warm.records import Process, Record, this_host
from orca.cluster.warm.server import CANCEL, RELEASE, Job
from orca.config import load

POLL_S = 0.1
"""How often a run's process is looked at."""
LISTEN_AGAIN_S = 5.0
"""When to follow the server's events again after they could not be."""
KILL_S = 10.0
"""How long a process may take to end when it is told to; then it is killed."""
SIGN_OFF_S = 3.0
"""How long the server may take to hear that this worker ends."""
CANCELLING = "prefect.flow-run.Cancelling"
ASK = tuple(
    f"prefect.flow-run.{name}" for name in ("Scheduled", "AwaitingRetry", "Completed", "Failed", "Crashed", "Cancelled")
)
"""After these there may be something to start: one that was asked for, or one that waited for another's place."""
DRAIN_VARIABLE = "ORCA_WORKER_DRAIN_S"
DRAIN_S = 6 * 3600.0
"""How long a worker that was told to stop waits for its runs, unless the environment says otherwise."""


class WarmWorker(BaseWorker[WarmJobConfiguration, WarmVariables, WarmResult]):
    """Runs flows as forks of a process that has imported them."""

    type = "orca"
    job_configuration = WarmJobConfiguration
    job_configuration_variables = WarmVariables
    _display_name = "ORCA"
    _description = "Runs ORCA's flows on this machine; a flow run starts in a fraction of a second."

    def __init__(self, work_pool_name: str, *, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(work_pool_name, name=name or f"{this_host()}-{work_pool_name}", **kwargs)
        self.folder = load().prefect.home / "runs" / this_host()
        self.pool = work_pool_name
        self._told_to_stop = asyncio.Event()
        self._launcher = Launcher()
        self._asking = asyncio.Lock()
        self._records: dict[UUID, Record] = {}
        self._forced: dict[UUID, End] = {}
        self._ending: set[UUID] = set()
        self._services: list[asyncio.Future[None]] = []
        self._ender: Ender

    @classmethod
    def get_default_base_job_template(cls) -> dict[str, Any]:
        """The pool's template; there is no command, since nothing is executed."""
        template: dict[str, Any] = super().get_default_base_job_template()
        del template["job_configuration"]["command"], template["variables"]["properties"]["command"]
        return template

    # ---- The worker's own life ----

    async def start(
        self, run_once: bool = False, with_healthcheck: bool = False, printer: Callable[..., None] = print
    ) -> None:
        """Work until told to stop; then see the running flow runs to their ends."""
        work = asyncio.ensure_future(super().start(run_once, with_healthcheck, printer))
        stop = asyncio.Event()
        drain = asyncio.ensure_future(self._drain(stop, work, printer))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, stop)
        try:
            await asyncio.wait([work])
        finally:
            drain.cancel()
            work.cancel()
        if not work.cancelled() and (error := work.exception()) is not None:
            raise error

    @property
    def draining(self) -> bool:
        """Whether it was told to stop, and takes no new flow runs."""
        return self._told_to_stop.is_set()

    def _on_signal(self, stop: asyncio.Event) -> None:
        if self.draining:
            stop.set()
        self._told_to_stop.set()

    async def _drain(self, stop: asyncio.Event, work: asyncio.Future[None], printer: Callable[..., None]) -> None:
        """Once told to stop: wait for the running flow runs, end those that take too long, and stop the worker."""
        await self._told_to_stop.wait()
        patience = float(os.environ.get(DRAIN_VARIABLE, DRAIN_S))
        count = len(self._records) + len(self._submitting_flow_run_ids)
        printer(f"Worker {self.name!r} takes no new flow runs; {count} run. Tell it again to end them.")
        end = anyio.current_time() + patience
        while self._records or self._submitting_flow_run_ids:
            if stop.is_set() or anyio.current_time() > end:
                await asyncio.gather(*(self._end(record, RELEASE, STOPPED) for record in list(self._records.values())))
            await asyncio.sleep(POLL_S)
        work.cancel()

    async def setup(self) -> None:
        """Start the fork server, connect to Prefect, look after what earlier workers left."""
        await self._launcher.open()
        await super().setup()
        self._ender = Ender(self.client)
        reaper = Reaper(self, self._ender)
        reaper.adopt()  # before the first question for flow runs: what runs already counts for the limit
        self._services = [asyncio.ensure_future(reaper.run()), asyncio.ensure_future(self._listen())]

    async def teardown(self, *exc_info: Any) -> None:
        """Let the fork server go, once no flow run needs it."""
        for service in self._services:
            service.cancel()
        await self._sign_off()
        await super().teardown(*exc_info)
        self._launcher.close()

    async def _sign_off(self) -> None:
        """Have the server forget this worker, which it would show as online for a minute."""
        with suppress(Exception), anyio.move_on_after(SIGN_OFF_S):
            await self.client._client.delete(f"/work_pools/{self.pool}/workers/{self.name}")

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Ask for flow runs, unless told to stop."""
        async with self._asking:
            return [] if self.draining else await super().get_and_submit_flow_runs()

    async def _listen(self) -> None:
        """Ask for flow runs as soon as one is scheduled or makes room, and end one as soon as it is cancelled.

        Without this they wait for the next regular question: Prefect's own observer of cancellations forgets a run
        that has started.
        """
        wanted = EventFilter(
            event=EventNameFilter(name=[CANCELLING, *ASK]),
            any_resource=EventAnyResourceFilter(id=[f"prefect.work-pool.{self.work_pool.id}"]),
        )
        while True:
            try:
                async with get_events_subscriber(filter=wanted, reconnection_attempts=0) as events:
                    await self.get_and_submit_flow_runs()  # what was scheduled while nobody listened
                    async for event in events:
                        if event.event == CANCELLING and self._runs_task_group is not None:
                            flow_run_id = UUID(event.resource.id.removeprefix("prefect.flow-run."))
                            self._runs_task_group.start_soon(self.cancel, flow_run_id)
                        else:
                            await self.get_and_submit_flow_runs()
            except Exception as error:  # noqa: BLE001 - whatever it is: the regular questions go on
                self._logger.debug("Events of the server could not be followed: %r", error)
            await asyncio.sleep(LISTEN_AGAIN_S)

    def _release_limit_slot(self, flow_run_id: UUID) -> None:
        """Give the place of a run back, which another run may have waited for (`--limit`)."""
        super()._release_limit_slot(flow_run_id)
        refused = flow_run_id in self._submitting_flow_run_ids  # not started, and the server would offer it again
        if self._limiter is not None and self._runs_task_group is not None and not refused:
            self._runs_task_group.start_soon(self.get_and_submit_flow_runs)

    # ---- Flow runs ----

    async def run(
        self,
        flow_run: FlowRun,
        configuration: WarmJobConfiguration,
        task_status: anyio.abc.TaskStatus[Any] | None = None,
    ) -> WarmResult:
        """Start a flow run and return when it has ended."""
        keeper = Process.of(os.getpid())
        job = Job(
            flow_run_id=str(flow_run.id),
            environment={name: value for name, value in configuration.env.items() if value is not None},
            cwd=str(configuration.working_dir),
            pool=self.pool,
            worker=self.name,
            keeper=asdict(keeper),
            host=this_host(),
            folder=str(self.folder),
        )
        record = job.record(await self._launcher.start(job))
        identifier = f"{record.host}:{record.process.pid}"
        if task_status is not None:
            task_status.started(identifier)
        await self._see_through(record)
        return WarmResult(status_code=0, identifier=identifier)

    async def _propose_submitting_state(self, flow_run: FlowRun) -> None:
        """Nothing: a flow run is there sooner than the server has heard that it is about to be."""

    async def _give_worker_labels_to_flow_run(self, flow_run_id: UUID) -> None:
        """Name the worker in the flow run while that starts already."""
        if self._runs_task_group is not None:
            self._runs_task_group.start_soon(self._label, flow_run_id)

    async def _label(self, flow_run_id: UUID) -> None:
        try:
            await super()._give_worker_labels_to_flow_run(flow_run_id)
        except Exception as error:  # noqa: BLE001 - the run needs no labels
            self._logger.debug("Flow run %s has no labels: %r", flow_run_id, error)

    def adopt(self, record: Record) -> None:
        """Look after a run that another worker of this pool on this host has started, and that outlived it."""
        if self._runs_task_group is not None:  # else this worker is ending itself
            record = record.kept_by(self.name)
            self._records[UUID(record.flow_run_id)] = record
            self._logger.info("Found flow run %s running as process %d", record.flow_run_id, record.process.pid)
            if self._limiter is not None:
                with suppress(anyio.WouldBlock):  # more than the limit run already
                    self._limiter.acquire_on_behalf_of_nowait(UUID(record.flow_run_id))
            self._runs_task_group.start_soon(self._see_adopted_through, record)

    async def _see_adopted_through(self, record: Record) -> None:
        flow_run_id = UUID(record.flow_run_id)
        try:
            await self._see_through(record)
        finally:
            self._release_limit_slot(flow_run_id)

    async def _see_through(self, record: Record) -> None:
        """Wait for the end of a run's process, print what it prints, and tell Prefect if it did not do so itself."""
        flow_run_id = UUID(record.flow_run_id)
        self._records[flow_run_id] = record
        printed = 0
        try:
            while record.process.alive():
                printed = _pass_on(record.log, printed)
                await asyncio.sleep(POLL_S)
            for _ in range(10):  # the fork server writes it down when the process is gone
                if record.exit_code() is not None:
                    break
                await asyncio.sleep(POLL_S)
            _pass_on(record.log, printed)
            given = await self._ender.conclude(record, self._forced.get(flow_run_id))
            if given is not None:
                self._logger.warning("Flow run %s lost its process and is now %s", flow_run_id, given)
        except Exception:
            self._logger.exception("Flow run %s has ended, and Prefect could not be told yet", flow_run_id)
        finally:
            self._records.pop(flow_run_id, None)
            self._forced.pop(flow_run_id, None)

    # ---- Ending flow runs ----

    def is_mine(self, flow_run_id: UUID) -> bool:
        """Whether this worker starts, or looks after, a flow run."""
        return flow_run_id in self._records or flow_run_id in self._submitting_flow_run_ids

    def running(self) -> dict[UUID, Record]:
        """The runs that this worker looks after."""
        return dict(self._records)

    async def cancel(self, flow_run_id: UUID) -> None:
        """End a run that this worker looks after, because somebody cancelled it; once, however often that is heard."""
        if flow_run_id in self._ending or (record := self._records.get(flow_run_id)) is None:
            return
        self._ending.add(flow_run_id)
        try:
            await self._end(record, CANCEL, None)
        finally:
            self._ending.remove(flow_run_id)

    async def _cancel_run(self, flow_run_id: UUID) -> None:
        """Called by Prefect's observer of cancellations."""
        if flow_run_id in self._records:
            await self.cancel(flow_run_id)
        else:
            await super()._cancel_run(flow_run_id)

    async def kill_infrastructure(
        self, infrastructure_pid: str, configuration: WarmJobConfiguration, grace_seconds: int = 30
    ) -> None:
        """End the process `host:pid` of a run."""
        host, _, pid = infrastructure_pid.rpartition(":")
        if host != this_host():
            raise InfrastructureNotAvailable(f"process {infrastructure_pid} is on another host")
        found = [record for record in self._records.values() if record.process.pid == int(pid)]
        if not found:
            raise InfrastructureNotFound(f"this worker has no process {infrastructure_pid}")
        await self._end(found[0], CANCEL, None)

    async def _end(self, record: Record, number: signal.Signals, end: End | None) -> None:
        """Tell a run's process to end, and kill it when it does not."""
        if end is not None:
            self._forced[UUID(record.flow_run_id)] = end
        for sent in (number, signal.SIGKILL):
            if not record.process.alive():
                return
            os.kill(record.process.pid, sent)
            with anyio.move_on_after(KILL_S):
                while record.process.alive():
                    await asyncio.sleep(POLL_S)


def _pass_on(log: Path, printed: int) -> int:
    """Print what came to a log since it had this many bytes; its bytes now."""
    try:
        with log.open("rb") as source:
            source.seek(printed)
            sys.stdout.write(source.read().decode(errors="replace"))
            sys.stdout.flush()
            return source.tell()
    except FileNotFoundError:
        return printed
