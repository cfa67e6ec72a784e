"""What a task says to, and hears from, the Dask worker that runs it. Also the worker's preload module."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Callable
from typing import Any

from distributed import Status, get_worker
from distributed.worker import thread_state

from orca.isolation import preload

STEPS_TOPIC = "orca-steps"
NODE_PLUGIN = "orca-node"
ISOLATED_MODULES = ("orca.ms.stage", "orca.ms.reduce", "orca.ms.split", "orca.calibration.making", "orca.warm")
"""Imported once by the process from which isolated functions are forked."""


async def dask_setup(worker: Any) -> None:
    """Get the slow imports over with before the first task, and watch the process (called by Dask when it starts).

    The worker of a single flow has preloaded that flow's module before, which asks for less: then no import happens
    here.
    """
    from orca.cluster.nodes.node import node_plugin

    preload(ISOLATED_MODULES)
    await worker.plugin_add(node_plugin(), name=NODE_PLUGIN)
    atexit.register(gc.freeze)  # the last collection finds nothing, and takes half a second


def report_step(unit: str, step: str) -> None:
    """Tell whoever waits for this unit, or looks at this worker, what is done with it now; outside Dask nobody does."""
    try:
        worker = get_worker()
    except ValueError:  # no worker here
        return
    worker.log_event(STEPS_TOPIC, {"unit": unit, "step": step})
    if (node := worker.plugins.get(NODE_PLUGIN)) is not None:
        node.note(thread_state.key, unit, step)


def stop_signal() -> Callable[[], str | None]:
    """A function that returns why the running task should stop, or None while somebody waits for its result.

    Dask cannot interrupt a thread: when a task is cancelled, or its flow is gone, the scheduler forgets it and the
    worker's record of it disappears or turns to "cancelled". A worker that ends, or whose scheduler is gone, waits for
    its tasks, and nobody takes what they return.
    """
    try:
        worker, key = get_worker(), thread_state.key
        tasks = worker.state.tasks
    except (ValueError, AttributeError):  # not in a task
        return lambda: None

    def reason() -> str | None:
        if worker.status in (Status.closing, Status.closed):
            return "its Dask worker ends"
        task = tasks.get(key)
        return "nobody waits for it any more" if task is None or task.state == "cancelled" else None

    return reason
