"""Task runs that died with their workers: nobody else ends their records."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from httpx import HTTPError
from prefect import get_client, get_run_logger
from prefect.exceptions import PrefectException
from prefect.states import Crashed, State

PATIENCE_S = 10.0
"""How long to wait for the server to have the record of a task run whose worker died."""


@dataclass(frozen=True)
class Lost:
    """A task run that Dask gave up, and why."""

    unit: str
    task_run_id: UUID
    reason: str
    since_s: float = field(default_factory=time.monotonic)


def end_records(lost: list[Lost]) -> None:
    """Mark task runs as crashed: without this they stay in Running for ever.

    The server learns of task runs late, and of some never; these are asked for again for a while after their loss.
    """
    if not lost:
        return
    waiting = list(lost)
    with get_client(sync_client=True) as client:
        while True:
            for task_run in list(waiting):
                state: State[Any] = Crashed(message=task_run.reason)
                try:
                    client.set_task_run_state(task_run.task_run_id, state, force=True)
                    waiting.remove(task_run)
                except (PrefectException, HTTPError) as error:
                    get_run_logger().debug("no record of the lost task run of %s yet: %s", task_run.unit, error)
            now = time.monotonic()
            waiting = [task_run for task_run in waiting if now < task_run.since_s + PATIENCE_S]
            if not waiting:
                return
            time.sleep(0.5)
