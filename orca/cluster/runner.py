"""The task runner of all flows: Dask, with one resource for each work pool.

Stock prefect-dask writes every Prefect setting, passwords included, into every task, pickles the flow and the task
again for each, and the worker builds settings and TLS contexts of all that anew. Here the workers have settings of
their own, what the tasks of a flow share is pickled once, and a worker process unpickles it once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from inspect import signature
from typing import Any
from uuid import uuid4

import dask
from distributed import Client, Future
from distributed.protocol.pickle import dumps
from prefect import Flow, flow
from prefect.context import FlowRunContext, TagsContext
from prefect.tasks import Task
from prefect.utilities.engine import collect_task_run_inputs_sync
from prefect_dask import DaskTaskRunner
from prefect_dask.task_runners import PrefectDaskFuture

from orca.cluster.artifacts import tagged
from orca.cluster.explained import explained
from orca.cluster.local import local_cluster
from orca.cluster.machine.standing import dask_address
from orca.cluster.remote import run_shipped
from orca.cluster.security import security
from orca.config import load

IN_CONTEXT: Any = {
    "flow": True,
    "flow_run": {"id", "name", "flow_id", "deployment_id", "tags", "run_count"},
    "log_prints": True,
    "start_time": True,
}
"""What a task knows of its flow run: not its parameters, which are long lists of files, nor anything that is secret."""


class PoolTaskRunner(DaskTaskRunner):
    """Runs tasks on the Dask cluster, each in a free slot of a work pool.

    The cluster is the one at `address`, else the one that the configuration names (`dask.address`), else one on this
    machine that lives as long as the flow run. `dask.annotate` around a submission gives it a priority, retries, or
    resources beside the slot.
    """

    def __init__(self, pool: str, address: str | None = None, preload: tuple[str, ...] = ()) -> None:
        super().__init__(address=address)
        self.address: str | None
        self._client: Any
        self.pool = pool
        self.preload = preload
        self._shipped: dict[int, tuple[Task[Any, Any], bytes]] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PoolTaskRunner) and (self.pool, self.address) == (other.pool, other.address)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        """A worker gets a runner with the same settings, not started."""
        return type(self), (self.pool, self.address, self.preload)

    def duplicate(self) -> PoolTaskRunner:
        """A runner with the same settings, not started."""
        return type(self)(self.pool, self.address, self.preload)

    def at(self, address: str) -> PoolTaskRunner:
        """The same for the Dask cluster at an address."""
        return type(self)(self.pool, address, self.preload)

    @property
    def client(self) -> Any:
        """The Dask client; connects, or starts the cluster, when it is first asked for."""
        if self._client is None:
            config = load()
            address = self.address or dask_address(config)
            if address is None:
                own = local_cluster(
                    config.paths.scratch / "dask",
                    workers=config.dask.workers,
                    threads=config.dask.threads,
                    memory_gb=config.dask.memory_gb,
                    preload=self.preload,
                )
                address = self._exit_stack.enter_context(own)
            self.address = address
            secure = security(config, address)
            self._client = self._exit_stack.enter_context(Client(address, security=secure, set_as_default=False))
        return self._client

    def submit(
        self,
        task: Task[Any, Any],
        parameters: dict[str, Any],
        wait_for: Iterable[PrefectDaskFuture[Any]] | None = None,
        dependencies: dict[str, set[Any]] | None = None,
    ) -> PrefectDaskFuture[Any]:
        """Submit one task run; it waits for a free slot of this runner's pool."""
        run_id = uuid4()
        arguments = self._optimize_futures(parameters)
        inputs = {name: collect_task_run_inputs_sync(value, future_cls=Future) for name, value in arguments.items()}
        for name, more in (dependencies or {}).items():
            inputs[name] = inputs.get(name, set()) | more
        future = self.client.submit(
            run_shipped,
            self._ship(task),
            task_run_id=run_id,
            parameters=arguments,
            wait_for=self._optimize_futures(wait_for) if wait_for else None,
            dependencies=inputs,
            key=f"{task.name}-{run_id}",
            resources={self.pool: 1} | dask.get_annotations().get("resources", {}),
            pure=False,
        )
        return PrefectDaskFuture(wrapped_future=future, task_run_id=run_id)

    def _ship(self, task: Task[Any, Any]) -> bytes:
        """The task and the context of its flow run, pickled when the task is submitted for the first time."""
        if id(task) not in self._shipped:
            self._shipped[id(task)] = (task, dumps((task, _context())))  # the task is kept: its id stays
        return self._shipped[id(task)][1]


def _context() -> dict[str, Any]:
    """What `prefect.context.hydrated_context` needs on the worker; no settings, since the worker has its own."""
    run, tags = FlowRunContext.get(), TagsContext.get()
    context: dict[str, Any] = {"tags_context": tags.serialize()}
    if run is not None:
        context["flow_run_context"] = run.model_dump(include=IN_CONTEXT, exclude_unset=True)
    return context


def pool_flow(
    pool: str,
    name: str,
    run_name: Callable[[], str],
    preload: tuple[str, ...] = (),
    tags: Callable[[], Iterable[str]] | None = None,
) -> Callable[[Callable[..., Any]], Flow[..., Any]]:
    """Decorator: a flow whose tasks run in a work pool.

    Parameters
    ----------
    pool, name : str
    run_name : callable
        What a run of it is called.
    preload : tuple of str
        Modules that its Dask workers import before their first task.
    tags : callable, optional
        What a run of it is tagged with, besides the tags that it has.
    """
    made = flow(
        name=name,
        flow_run_name=run_name,
        task_runner=PoolTaskRunner(pool, preload=preload),
        persist_result=False,
        validate_parameters=True,
    )

    def decorate(function: Callable[..., Any]) -> Flow[..., Any]:
        call = explained(tagged(function, tags) if tags else function)
        # With types, not their names: Prefect looks names up where `call` was written.
        vars(call)["__signature__"] = signature(function, eval_str=True)
        return made(call)

    return decorate
