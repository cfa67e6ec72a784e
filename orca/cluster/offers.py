"""What the workers of a Dask cluster offer to a pool now."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from distributed import Client

from orca.cluster.nodes.parts import MEMORY

MEMORY_TOPIC = "worker-restart-memory"
"""Dask's own: a nanny says here which worker it ends for its memory."""
FRESH_S = 0.5


@dataclass(frozen=True)
class _Worker:
    slots: int
    paused: bool
    memory_gb: float
    """What it offers to tasks that ask for much, 0 where it offers none."""


class Offers:
    """The workers that offer slots of a pool, asked for at most twice a second."""

    def __init__(self, client: Client, pool: str) -> None:
        self._client, self._pool = client, pool
        self._workers: list[_Worker] = []
        self._asked = float("-inf")

    def nobody(self) -> bool:
        """Whether no worker offers the pool, be it paused or not."""
        return not self._now()

    def slots(self) -> int:
        """Tasks that can run at once: 0 while all workers are paused, 1 when none has come yet."""
        workers = self._now()
        return sum(worker.slots for worker in workers if not worker.paused) if workers else 1

    def memory_above(self, limit_gb: float) -> float | None:
        """The least memory above a limit that a worker has; None where none has more."""
        return min((worker.memory_gb for worker in self._now() if worker.memory_gb > limit_gb), default=None)

    def limit_gb(self, key: Any) -> float:
        """Memory limit of the worker that has the result of a task, infinite when nobody has it."""
        found: float | None = self._client.run_on_scheduler(_limit_gb, key=key)
        return float("inf") if found is None else found

    def _now(self) -> list[_Worker]:
        if time.monotonic() - self._asked > FRESH_S:
            try:
                self._workers = self._client.run_on_scheduler(_offered, pool=self._pool)
            except OSError:  # the scheduler is away; the client says what comes of it
                return self._workers
            self._asked = time.monotonic()
        return self._workers


def _offered(pool: str, dask_scheduler: Any) -> list[_Worker]:
    workers = [worker for worker in dask_scheduler.workers.values() if worker.resources.get(pool)]
    return [
        _Worker(int(worker.resources[pool]), worker.status.name != "running", worker.resources.get(MEMORY, 0.0))
        for worker in workers
    ]


def _limit_gb(key: Any, dask_scheduler: Any) -> float | None:
    task = dask_scheduler.tasks.get(key)
    return min((worker.memory_limit / 1e9 for worker in task.who_has or ()), default=None) if task else None
