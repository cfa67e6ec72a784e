"""Where a task run begins on a Dask worker: with one Prefect client for all tasks of the process."""

from __future__ import annotations

from contextvars import copy_context
from functools import cache, lru_cache
from threading import Lock
from typing import Any

from distributed.protocol.pickle import loads
from prefect import task_engine
from prefect.context import SyncClientContext
from prefect.events.worker import EventsWorker
from prefect.filesystems import LocalFileSystem
from prefect.results import ResultStore
from prefect.settings import get_current_settings
from prefect.task_engine import run_task_sync
from prefect.tasks import Task

from orca.cluster.explained import explained

TELL_S = 30.0
"""How long the server may take to hear of all that the tasks of a process did."""
_lock = Lock()
_emit = task_engine.emit_task_run_state_change_event


def _without_pending(*args: Any, **options: Any) -> Any:
    """Tell the server nothing of a task run's first state, Pending: it begins at once, and that is told."""
    return None if options.get("initial_state") is None else _emit(*args, **options)


task_engine.emit_task_run_state_change_event = _without_pending


def run_shipped(shipped: bytes, **run: Any) -> Any:
    """Run a task that `orca.cluster.runner` submitted, and return the state in which it ended."""
    with _lock:  # a process opens one client, also when its first tasks begin together
        task, context = _unpack(shipped)
        client = _client()
    SyncClientContext.__var__.set(client)  # Dask runs each task in a context of its own
    return run_task_sync(task, return_type="state", context=context, **run)


@lru_cache(maxsize=8)
def _unpack(shipped: bytes) -> tuple[Task[Any, Any], dict[str, Any]]:
    """The task and its flow run's context: the same for all tasks of a flow run."""
    task, context = loads(shipped)
    task.fn = explained(task.fn)
    if "flow_run_context" in context:
        # With a storage of its own (tasks write nothing into it) no task asks the server for the default one.
        storage = LocalFileSystem(basepath=str(get_current_settings().results.local_storage_path))
        context["flow_run_context"]["result_store"] = ResultStore(result_storage=storage)
    return task, context


def tell_all() -> bool:
    """Wait until Prefect's server knows what the tasks of this process did, which must run none afterwards.

    Returns
    -------
    bool
        Whether it does.
    """
    told: Any = EventsWorker.drain_all(timeout=TELL_S)
    return not told.not_done and all(future.exception() is None for future in told.done)


@cache
def _client() -> SyncClientContext:
    """A client that stays open: each one made anew costs a TLS context, 20 ms of CPU time."""
    context = SyncClientContext()
    copy_context().run(context.__enter__)
    return context
