"""Finds flow runs whose process is gone, and gives them a state: no run stays in Running for ever.

A run is judged by its record (`orca.cluster.warm.records`) alone:

- on this host by its process: a run whose process lives is never touched, however silent it is;
- on another host by two signs of life that are independent of each other, both missing: its record is not touched
  any more for `SILENT_S` (on the disk that the hosts share), and Prefect does not hear from the worker that looked
  after it. How long is measured by this host's own clock while it looks, so that neither clocks that differ nor a disk
  that was away for everybody count.

The run's state is read again right before it is marked, and the server refuses to mark a run that has just ended.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import anyio
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.logging import get_logger

from orca.cluster.warm.ending import End, Ender
from orca.cluster.warm.records import BEAT_S, Process, Record, records, this_host

if TYPE_CHECKING:
    from orca.cluster.warm.worker import WarmWorker

REAP_VARIABLE = "ORCA_REAP_S"
REAP_S = 10.0
"""How often a worker looks."""
SILENT_S = 6 * BEAT_S
"""After this long without a sign of life a run of another host counts as dead."""
UNSTARTED_S = 90.0
"""After this long in Pending, with no process and no worker, a run counts as never started."""


@dataclass
class Sightings:
    """When the records of other hosts were last seen to change, by this host's clock.

    Attributes
    ----------
    gap_s : float
        Two looks further apart than this count as none: this host slept, or the disk was away.
    """

    gap_s: float = 3 * BEAT_S
    _seen: dict[Path, tuple[float, float]] = field(default_factory=dict)
    _looked: float | None = None

    def silent(self, found: list[Record], now: float) -> list[Record]:
        """Those of the records that did not change for `SILENT_S` of watching.

        Parameters
        ----------
        found : list of Record
            All that are there.
        now : float
            Monotonic clock, seconds.
        """
        if self._looked is None or now - self._looked > self.gap_s:
            self._seen.clear()
        self._looked = now
        touched = {record.path: _touched(record.path) for record in found}
        self._seen = {
            path: seen if (seen := self._seen.get(path)) and seen[0] == at else (at, now)
            for path, at in touched.items()
            if at is not None
        }
        return [record for record in found if record.path in self._seen and now - self._seen[record.path][1] > SILENT_S]


def _touched(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None


class Reaper:
    """Looks after all runs that a worker can see, as long as the worker lives."""

    def __init__(self, worker: WarmWorker, ender: Ender) -> None:
        self.worker = worker
        self.ender = ender
        self.sightings = Sightings()
        self.runs = worker.folder.parent
        self.myself = Process.of(os.getpid())
        self.logger = get_logger("orca.reaper")

    async def run(self) -> None:
        """Look, again and again, whatever happens: an API or a disk that is away comes back."""
        while True:
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001 - a worker without a reaper would look healthy
                self.logger.warning("Flow runs could not be looked after: %r", error)
            await anyio.sleep(float(os.environ.get(REAP_VARIABLE, REAP_S)))

    async def look(self) -> None:
        """Once over everything."""
        if not self.worker.draining:
            self.adopt()
        await self._dead_here()
        await self._cancelled()
        await self._other_hosts()
        await self._never_started()
        await self.ender.end_task_runs()

    def adopt(self) -> None:
        """Hand the worker the runs of its pool on this host whose worker is gone."""
        for record in records(self.runs, this_host()):
            if record.pool == self.worker.pool and not self._is_kept(record) and record.process.alive():
                self.worker.adopt(record)

    def _is_kept(self, record: Record) -> bool:
        """Whether a worker on this host looks after it."""
        kept = record.keeper is not None and record.keeper.alive()
        return self.worker.is_mine(UUID(record.flow_run_id)) or (kept and record.keeper != self.myself)

    async def _dead_here(self) -> None:
        for record in records(self.runs, this_host()):
            if not self._is_kept(record) and not record.process.alive():
                await self._conclude(record)

    async def _cancelled(self) -> None:
        """Runs of this worker of whose cancelling its observer did not hear."""
        if not (mine := self.worker.running()):
            return
        cancelling = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.CANCELLING]))
        for run in await self.worker.client.read_flow_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=list(mine)), state=cancelling)
        ):
            await self.worker.cancel(run.id)

    async def _other_hosts(self) -> None:
        others = [record for record in records(self.runs) if record.host != this_host()]
        self.runs.joinpath(this_host()).mkdir(parents=True, exist_ok=True)
        os.utime(self.runs / this_host())  # raises where the disk does not take what the others would write
        for record in self.sightings.silent(others, time.monotonic()):
            if record.pool is None or not await is_online(self.worker.client, record.pool, record.worker):
                message = f"Host {record.host} shows no sign of life any more, nor does the flow run's process"
                await self._conclude(record, End(message))

    async def _never_started(self) -> None:
        """Runs that a worker took and never started, since it was killed just then."""
        known = {record.flow_run_id for record in records(self.runs)}
        pending = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PENDING]))
        pool = self.worker.pool
        for run in await self.worker.client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=pending),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
        ):
            if str(run.id) in known or self.worker.is_mine(run.id) or _age_s(run) < UNSTARTED_S:
                continue
            taker = str(run.labels.get("prefect.worker.name", ""))
            if taker == self.worker.name or not await is_online(self.worker.client, pool, taker):
                await self.ender.reschedule(run, f"Worker {taker} took it and did not start it; scheduled again")

    async def _conclude(self, record: Record, end: End | None = None) -> None:
        given = await self.ender.conclude(record, end)
        if given is not None:
            self.logger.warning("Flow run %s had lost its process and is now %s", record.flow_run_id, given)


def _age_s(run: FlowRun) -> float:
    """How long it is in its state."""
    return 0.0 if run.state is None else (datetime.now(UTC) - run.state.timestamp).total_seconds()


async def is_online(client: PrefectClient, pool: str, worker: str) -> bool:
    """Whether Prefect hears from a worker."""
    workers = await client.read_workers_for_work_pool(pool)
    return any(one.name == worker and one.status == "ONLINE" for one in workers)
