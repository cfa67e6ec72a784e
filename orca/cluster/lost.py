"""Task runs whose Dask worker died: nobody else ends their records."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from uuid import UUID

from httpx import HTTPError
from prefect import Task, get_client, get_run_logger
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterId
from prefect.client.schemas.objects import TaskRun
from prefect.exceptions import PrefectException
from prefect.states import State

PATIENCE_S = 10.0
"""How long after its end a task run gets from here what the server has not heard of it."""
PAGE = 200
"""How many task runs the server tells at once."""


@dataclass(frozen=True)
class Ended:
    """A task run that is over.

    Attributes
    ----------
    unit : str
    task_run_id : UUID
    state : State
        What its record has to say when its worker did not live to tell.
    lost : bool
        Dask gave it up: whatever its record says is wrong.
    at_s : float
        Of the monotonic clock.
    """

    unit: str
    task_run_id: UUID
    state: State[Any]
    lost: bool = False
    at_s: float = field(default_factory=time.monotonic)


def end_records(task: Task[Any, Any], flow_run_id: UUID, ended: Iterable[Ended]) -> None:
    """See to it that the records of task runs are final: without this they may say Running for ever.

    A worker tells the server what its tasks do a little later, and what it has not told dies with it. The server is
    given a while to hear of each; then it is told from here. What it still hears afterwards is older and changes
    nothing.
    """
    waiting = {each.task_run_id: each for each in ended}
    if not waiting:
        return
    with get_client(sync_client=True) as client:
        while True:
            try:
                _look_through(client, task, flow_run_id, waiting)
            except (PrefectException, HTTPError) as error:
                get_run_logger().debug("records of lost task runs: %s", error)
            now = time.monotonic()
            for each in [each for each in waiting.values() if now > each.at_s + 2 * PATIENCE_S]:
                del waiting[each.task_run_id]
            if not waiting:
                return
            time.sleep(0.5)


def _look_through(
    client: SyncPrefectClient, task: Task[Any, Any], flow_run_id: UUID, waiting: dict[UUID, Ended]
) -> None:
    """End the records that can be ended now, and take them out of those that wait."""
    known = {run.id: run for run in _records(client, waiting)}
    for key, each in list(waiting.items()):
        late = time.monotonic() > each.at_s + PATIENCE_S
        run = known.get(key)
        final = run is not None and run.state is not None and run.state.is_final()
        if run is None and late:
            name = f"{task.name}-{each.unit}"
            client.create_task_run(task, flow_run_id, str(key), key, name, state=each.state)
        elif run is not None and (each.lost or (late and not final)):
            client.set_task_run_state(key, each.state, force=True)
        elif not final:
            continue
        del waiting[key]


def _records(client: SyncPrefectClient, task_runs: Iterable[UUID]) -> Iterator[TaskRun]:
    """What the server knows of these."""
    left = iter(task_runs)
    while page := list(islice(left, PAGE)):
        yield from client.read_task_runs(task_run_filter=TaskRunFilter(id=TaskRunFilterId(any_=page)), limit=PAGE)
