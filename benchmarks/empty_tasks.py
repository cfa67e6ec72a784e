"""A flow of empty tasks on a Dask cluster, and such a cluster; run by tasks.py and scheduler_memory.py.

empty_tasks.py cluster FOLDER WORKERS      prints the scheduler's address, ends with its standard input
empty_tasks.py ours|stock|prefect|dask ADDRESS TASKS    prints seconds and CPU seconds of the flow as JSON

Prefect runs the tasks in the flow's own process, Dask runs empty functions that Prefect does not know: together they
are what a task costs at least that both know.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Nothing:
    """What a task returns that does nothing."""

    skipped: bool = False


def cluster(folder: Path, workers: int) -> None:
    from distributed import Client

    from orca.cluster.local import local_cluster

    with local_cluster(folder, workers=workers, memory_gb=2.0) as address:
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(workers)
        sys.stdout.write(f"{address}\n")
        sys.stdout.flush()
        sys.stdin.read()


def nothing(number: int) -> Nothing:
    """What Dask runs alone."""
    return Nothing()


def dask_alone(address: str, tasks: int) -> Callable[[], list[bool]]:
    """So many empty functions, each asked for when one has ended, as a flow asks for tasks when a slot is free."""
    from distributed import Client, as_completed

    def run() -> list[bool]:
        def submit(number: int) -> Any:
            return client.submit(nothing, number, pure=False, resources={"default": 1})

        with Client(address, set_as_default=False) as client:
            todo = iter(range(tasks))
            waiting = as_completed([submit(number) for number in islice(todo, len(client.ncores()))], loop=client.loop)
            done = []
            for future in waiting:
                done.append(isinstance(future.result(), Nothing))
                if (number := next(todo, None)) is not None:
                    waiting.add(submit(number))
            return done

    return run


def flow_of(kind: str, address: str, tasks: int) -> Any:
    """A flow that runs so many empty tasks: through our runner and gather, through stock prefect-dask, or by itself."""
    from prefect import flow, task
    from prefect_dask import DaskTaskRunner

    from orca.cluster.gather import gather
    from orca.cluster.runner import PoolTaskRunner

    @task(name="empty", persist_result=False)
    def empty(number: int) -> Nothing:
        return Nothing()

    if kind == "ours":

        @flow(name="ours", task_runner=PoolTaskRunner("default", address), persist_result=False)
        def ours() -> list[bool]:
            units = {str(number): {"number": number} for number in range(tasks)}
            return [outcome.status == "done" for outcome in gather(empty, units)]

        return ours

    if kind == "prefect":

        @flow(name="prefect", persist_result=False)
        def alone() -> list[bool]:
            return [isinstance(empty(number), Nothing) for number in range(tasks)]

        return alone

    @flow(name="stock", task_runner=DaskTaskRunner(address=address), persist_result=False)
    def stock() -> list[bool]:
        futures = [empty.submit(number) for number in range(tasks)]
        return [isinstance(future.result(), Nothing) for future in futures]

    return stock


def main() -> None:
    if sys.argv[1] == "cluster":
        cluster(Path(sys.argv[2]), int(sys.argv[3]))
        return
    kind, address, tasks = sys.argv[1], sys.argv[2], int(sys.argv[3])
    run = dask_alone(address, tasks) if kind == "dask" else flow_of(kind, address, tasks)
    begin, begin_cpu = time.perf_counter(), time.process_time()
    done = run()
    assert len(done) == tasks
    assert all(done)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
    sys.stdout.write(json.dumps({"seconds": seconds, "flow": cpu}) + "\n")


if __name__ == "__main__":
    main()
