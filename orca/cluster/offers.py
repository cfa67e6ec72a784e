"""What memory the workers of a Dask cluster have that serve a pool."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from distributed import Client, Future

from orca.cluster.nodes.parts import MEMORY

MEMORY_TOPIC = "worker-restart-memory"
"""Dask's own: a nanny says here which worker it ends for its memory."""
FRESH_S, FRESH_WITHOUT_S = 1.0, 0.4
"""How long an answer is good for, one with workers and one without."""


@dataclass(frozen=True)
class _Worker:
    address: str
    memory_gb: float
    """What it offers to tasks that ask for much, 0 where it offers none."""
    limit_gb: float


class Offers:
    """The workers that offer slots of a pool, asked for seldom."""

    def __init__(self, client: Client, pool: str) -> None:
        self._client, self._pool = client, pool
        self._workers: list[_Worker] = []
        self._stale = float("-inf")

    def memory_above(self, limit_gb: float) -> float | None:
        """The least memory above a limit that a worker has; None where none has more."""
        return min((worker.memory_gb for worker in self._now() if worker.memory_gb > limit_gb), default=None)

    def limit_gb(self, future: Future) -> float:
        """Memory limit of the worker that has the result of a task, infinite when nobody has it."""
        holders = self._client.who_has([future]).get(future.key, ())
        return min((worker.limit_gb for worker in self._now() if worker.address in holders), default=float("inf"))

    def _now(self) -> list[_Worker]:
        if time.monotonic() > self._stale:
            try:
                found = self._client.scheduler_info(n_workers=-1)["workers"]
            except OSError:  # the scheduler is away; the client says what comes of it
                return self._workers
            self._workers = [
                _worker(address, worker) for address, worker in found.items() if worker["resources"].get(self._pool)
            ]
            self._stale = time.monotonic() + (FRESH_S if self._workers else FRESH_WITHOUT_S)
        return self._workers


def _worker(address: str, worker: dict[str, Any]) -> _Worker:
    resources = worker["resources"]
    return _Worker(address, resources.get(MEMORY, 0.0), worker["memory_limit"] / 1e9)
