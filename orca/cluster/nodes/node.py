"""A Dask worker process: when it takes work, when it is replaced, and what it tells of both.

A process that takes nothing new is paused, as Dask calls it: what runs goes on, what waits in it is given back to the
scheduler. Dask's own ways (`lifetime`, `close_gracefully`) drop what still runs, or results that nobody fetched yet.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import random
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from distributed import Status, Worker, WorkerPlugin
from tornado.ioloop import PeriodicCallback

from orca import __version__, config
from orca.cluster.nodes.load import LoadWatch
from orca.cluster.nodes.parts import LEAVING_TOPIC, NODE_VARIABLE
from orca.cluster.nodes.sending import send_while_paused
from orca.cluster.pools import Recycle, load_pools
from orca.cluster.remote import tell_all
from orca.cluster.worker import NODE_PLUGIN as NAME

STEP_S = 0.2
PATIENCE_S = 0.5, 1.5
"""How long a process that is to be replaced waits until somebody takes its results: the client, or another worker.

By chance, so that of two that wait for each other one works on, and takes those of the other.
"""
WORK_ON_S = 0.7
"""How long it works on then, before it waits again."""
ASK_S = 0.3
"""How often it asks the others meanwhile."""
LOOK_S = 0.02
"""How often it looks meanwhile whether its results are still wanted."""

Order = Literal["work", "drain", "restart", "stop"]
_log = logging.getLogger("distributed.worker.orca")  # where Dask shows what its workers say


class NodePlugin(WorkerPlugin):
    """Part of each worker process; all of it runs in the worker's event loop, but for `note`.

    Invariants: a process ends, other than by `now`, only when nothing runs in it, the scheduler expects nothing of it,
    and no result is in it alone. A process that an operator drained is not replaced; one that dies is, and then a file
    in the node's folder says that the next one is drained, too, as long as its nanny lives.

    Parameters
    ----------
    recycle : Recycle
        When the process is replaced.
    watch : LoadWatch, optional
        Limits of the node, where there are any.
    host : str, optional
        Name of the node.
    """

    _worker: Worker

    def __init__(self, recycle: Recycle, watch: LoadWatch | None = None, host: str | None = None) -> None:
        self._recycle, self._watch, self._host = recycle, watch, host
        self._order: Order = "work"
        self._now = False
        self._begun = 0
        self._memory_gb = 0.0
        self._stepping = self._ending = False
        self._asked: float | None = None
        self._works_until = -math.inf
        self._patient_until: float | None = None
        self._steps: dict[Any, tuple[str, str]] = {}
        self.reason = ""

    def setup(self, worker: Worker) -> None:
        """Called by Dask before the worker is known to the scheduler."""
        self._worker = worker
        if worker.nanny and _read(self._mark) == worker.nanny:
            self._order = "drain"
        send_while_paused(worker)
        worker.metrics[NAME] = lambda _: self.metrics()
        worker.periodic_callbacks[NAME] = PeriodicCallback(self._step, STEP_S * 1000)

    def transition(self, key: Any, start: str, finish: str, **_: Any) -> None:
        """Called by Dask for each change of a task's state, in the midst of it: what follows from it is done after."""
        if finish == "executing":
            self._begun += 1
            if self._begun >= self._recycle.tasks:
                self._worker.loop.add_callback(self._step)
        elif start == "executing":
            self._steps.pop(key, None)
            self._memory_gb = self._worker.monitor.get_process_memory() / 1e9
            self._worker.loop.add_callback(self._step)

    def note(self, key: Any, unit: str, step: str) -> None:
        """What a task does now; called by its thread."""
        self._steps[key] = (unit, step)

    def obey(self, order: Order, *, now: bool = False) -> None:
        """Do what an operator says. `now`: without waiting for what runs."""
        self._order, self._now = order, now
        try:
            if order == "drain" and self._worker.nanny:
                self._mark.write_text(self._worker.nanny)
            else:
                self._mark.unlink(missing_ok=True)
        except OSError as error:  # it is drained all the same
            _log.warning("%s will not be drained any more should its process die: %s", self._worker.name, error)
        self._worker.loop.add_callback(self._step)

    @property
    def _mark(self) -> Path:
        """Where it is written, for the next process of this name, that an operator has drained it: by its nanny."""
        return Path(self._worker.local_directory).parent / f"{self._worker.name}.drained"

    def metrics(self) -> dict[str, Any]:
        """What the scheduler hears with each heartbeat; see `orca.cluster.nodes.workers.WorkerInfo`."""
        tasks = self._worker.state.all_running_tasks
        return {
            "host": self._host,
            "pid": os.getpid(),
            "version": __version__,
            "reason": self.reason,
            "begun": self._begun,
            "load": asdict(self._watch.load) if self._watch and self._watch.load else None,
            "running": [(str(task.key), task.start_time, *self._steps.get(task.key, ("", ""))) for task in tasks],
        }

    def _wanted(self) -> tuple[Literal["work", "hold", "replace", "stop"], str]:
        """What this process should do, and why."""
        if self._order == "stop":
            return "stop", "stopped by the operator"
        if self._order == "restart":
            return "replace", "restarted by the operator"
        if self._order == "drain":
            return "hold", "drained by the operator"
        if self._worker.nanny and time.monotonic() > self._works_until:
            if self._begun >= self._recycle.tasks:
                return "replace", f"replaced after {self._begun} tasks"
            if self._memory_gb > self._recycle.memory_gb:
                return "replace", f"replaced for its memory of {self._memory_gb:.1f} GB"
        reason = self._watch.look() if self._watch else ""
        return ("hold" if reason else "work"), reason

    async def _step(self) -> None:
        worker = self._worker
        if self._stepping or self._ending or worker.status not in (Status.running, Status.paused):
            return
        self._stepping = True
        try:
            wanted, self.reason = self._wanted()
            if wanted == "work":
                if worker.status == Status.paused:
                    worker.status = Status.running
                return
            if worker.status == Status.running:
                _log.info("%s takes nothing new: %s", worker.name, self.reason)
                worker.status = Status.paused
            self._give_back()
            if wanted != "hold" and (self._now or await self._is_idle()):
                await self._end(replace=wanted == "replace")
        except (OSError, KeyError) as error:  # the scheduler is gone, or has just forgotten this worker
            _log.info("%s: the scheduler does not answer (%r)", worker.name, error)
        finally:
            self._stepping = False

    def _give_back(self) -> None:
        """Have the scheduler send elsewhere what waits here, and, if it has to be now, what runs here."""
        worker = self._worker
        waiting = [*worker.state.ready, *worker.state.constrained]
        for task in [*waiting, *(worker.state.all_running_tasks if self._now else ())]:
            worker.batched_send({"op": "reschedule", "key": task.key, "stimulus_id": f"{NAME}-{time.time()}"})

    async def _is_idle(self) -> bool:
        """Whether nothing runs here, and the scheduler has heard of the end of all that did."""
        worker = self._worker
        if worker.state.all_running_tasks:
            return False
        expected = await worker.scheduler.processing(workers=[worker.address])
        return not expected.get(worker.address) and not worker.state.all_running_tasks

    async def _end(self, *, replace: bool) -> None:
        """End this process when its results are elsewhere; the nanny starts another, or ends as well."""
        worker, now = self._worker, time.monotonic()
        if worker.data and not self._now:  # most often the client is just about to take them
            self._asked = self._asked or now
            if now - self._asked < ASK_S:
                worker.loop.call_later(LOOK_S, self._step)
                return
        self._asked = now
        moved = await worker.scheduler.retire_workers(
            workers=[worker.address], close_workers=False, remove=False, stimulus_id=f"{NAME}-{time.time()}"
        )
        if worker.address in moved or self._now:
            _log.info("%s ends: %s", worker.name, self.reason)
            self._ending = True
            if not self._now and await asyncio.to_thread(tell_all):
                worker.log_event(LEAVING_TOPIC, worker.address)
            if worker.nanny is None:
                await worker.close(executor_wait=not self._now, reason=self.reason)
                return
            async with worker.rpc(worker.nanny) as nanny:  # which ends this process, so there is no answer
                await (nanny.restart if replace else nanny.terminate)(reason=self.reason, reply=False)
        elif self._patient_until is None:
            self._patient_until = self._asked + random.uniform(*PATIENCE_S)
        elif self._order == "work" and self._asked > self._patient_until:
            _log.info("%s works on: nobody takes its results", worker.name)
            self._patient_until, self._works_until = None, self._asked + WORK_ON_S


def _read(path: Path) -> str:
    with suppress(OSError):
        return path.read_text()
    return ""


def node_plugin() -> NodePlugin:
    """The plugin for this process, by its work_pools.yaml; limits hold on the nodes of a cluster alone."""
    pools = load_pools()
    host = os.environ.get(NODE_VARIABLE)
    if host is None:
        return NodePlugin(pools.recycle)
    watch = LoadWatch(pools.limits, config.load().paths.scratch, pools.reserved_cores.get(host, 0))
    return NodePlugin(pools.recycle, watch, host)


def obey(order: Order, now: bool, dask_worker: Worker) -> bool:
    """Run by `distributed.Client.run` in a worker process; False where that is none of ours."""
    plugin = dask_worker.plugins.get(NAME)
    if isinstance(plugin, NodePlugin):
        plugin.obey(order, now=now)
    return isinstance(plugin, NodePlugin)
