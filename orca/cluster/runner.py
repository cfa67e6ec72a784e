"""The task runner of all flows: Dask, with one resource for each work pool."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prefect.tasks import Task
from prefect_dask import DaskTaskRunner
from prefect_dask.task_runners import PrefectDaskFuture

from orca.cluster.local import local_cluster
from orca.config import load


class PoolTaskRunner(DaskTaskRunner):
    """Runs tasks on the Dask cluster, each in a free slot of a work pool.

    The cluster is the one at `address`, else the one that the configuration names (`dask.address`), else one on this
    machine that lives as long as the flow run.
    """

    def __init__(self, pool: str, address: str | None = None, preload: tuple[str, ...] = ()) -> None:
        super().__init__(address=address)
        self.address: str | None
        self.pool = pool
        self.preload = preload

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PoolTaskRunner) and (self.pool, self.address) == (other.pool, other.address)

    __hash__ = None  # type: ignore[assignment]

    def duplicate(self) -> PoolTaskRunner:
        """A runner with the same settings, not started."""
        return type(self)(self.pool, self.address, self.preload)

    def at(self, address: str) -> PoolTaskRunner:
        """The same for the Dask cluster at an address."""
        return type(self)(self.pool, address, self.preload)

    @property
    def client(self) -> Any:
        """The Dask client; connects, or starts the cluster, when it is first asked for."""
        if self._client is None and not self.address:
            config = load()
            self.address = config.dask.address or self._exit_stack.enter_context(
                local_cluster(
                    config.paths.scratch / "dask",
                    workers=config.dask.workers,
                    threads=config.dask.threads,
                    memory_gb=config.dask.memory_gb,
                    preload=self.preload,
                )
            )
        return super().client

    def submit(
        self,
        task: Task[Any, Any],
        parameters: dict[str, Any],
        wait_for: Iterable[PrefectDaskFuture[Any]] | None = None,
        dependencies: dict[str, set[Any]] | None = None,
    ) -> PrefectDaskFuture[Any]:
        """Submit one task run; it waits for a free slot of this runner's pool."""
        future = self.client.submit(
            task,
            parameters=self._optimize_futures(parameters),
            wait_for=self._optimize_futures(wait_for) if wait_for else None,
            dependencies=dependencies,
            return_type="state",
            resources={self.pool: 1},
            pure=False,
        )
        return PrefectDaskFuture(wrapped_future=future, task_run_id=future.task_run_id)
