"""Flows on Dask workers of two sizes; prints what was seen. Run by test_runner.py."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SMALL_GB, LARGE_GB = 0.7, 1.6


@dataclass(frozen=True)
class Ended:
    """What the tasks here return."""

    where: Path = Path("/somewhere")
    skipped: bool = False


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """A small worker and a large one, which have to be told of apart."""
    import dask
    from distributed import Nanny, Scheduler, SpecCluster

    from orca.cluster.nodes.parts import DASK_SETTINGS, MEMORY

    def nanny(gb: float) -> dict[str, Any]:
        resources = {"default": 1, "imaging": 1, MEMORY: gb}
        options = {"nthreads": 1, "memory_limit": int(gb * 1e9), "resources": resources, "host": "127.0.0.1"}
        return {
            "cls": Nanny,
            "options": {**options, "local_directory": str(folder), "dashboard_address": "127.0.0.1:0"},
        }

    quick = {"distributed.scheduler.allowed-failures": 0, "distributed.scheduler.no-workers-timeout": "3s"}
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}}
    with dask.config.set(DASK_SETTINGS | quick):
        with SpecCluster({"small": nanny(SMALL_GB), "large": nanny(LARGE_GB)}, scheduler) as made:
            yield str(made.scheduler_address)


def main(folder: Path) -> None:
    from prefect import flow, get_client, task

    from orca.cluster import gather as gathering
    from orca.cluster import server
    from orca.cluster.gather import conclude, gather, listening
    from orca.cluster.nodes.parts import MEMORY
    from orca.cluster.runner import PoolTaskRunner
    from orca.config import load

    gathering.TELL_S = 1.0
    own, _ = server.ensure(load().prefect.home)
    server.wait_until_healthy(own)
    seen: dict[str, Any] = {}

    @task(name="sleep", persist_result=False)
    def sleep(name: str, until: str = "") -> Ended:
        with (folder / "order").open("a") as order:
            order.write(f"{name} ")
        while until and not (folder / until).exists():
            time.sleep(0.05)
        return Ended()

    @task(name="take", persist_result=False)
    def take(name: str, gb: float) -> Ended:
        (folder / name).touch()
        taken = bytearray(int(gb * 1e9))
        taken[::4096] = b"x" * len(taken[::4096])
        time.sleep(2)
        return Ended()

    def await_beginning(*names: str) -> None:
        while not (folder / "order").exists() or not set(names) <= set((folder / "order").read_text().split()):
            time.sleep(0.05)

    def told(outcomes: list[Any]) -> list[list[Any]]:
        return [[o.unit, o.status, o.cause, o.reason, o.attempts] for o in outcomes]

    with cluster(folder / "dask") as address:
        import dask

        def on(pool: str) -> Callable[..., Any]:
            return flow(task_runner=PoolTaskRunner(pool, address), persist_result=False)

        @on("default")
        def memory() -> None:
            with dask.annotate(resources={MEMORY: LARGE_GB}):
                holder = sleep.submit("holder", until="hungry")
            await_beginning("holder")
            seen["hungry"] = told(gather(take, {"hungry": {"name": "hungry", "gb": 0.9}}))
            holder.result()
            seen["starving"] = told(gather(take, {"starving": {"name": "starving", "gb": 3.0}}))

        @on("nobody")
        def nobody() -> None:
            events: list[str] = []
            with listening(lambda event: events.append(event.step)):
                begin = time.monotonic()
                outcomes = gather(sleep, {name: {"name": name} for name in ("one", "two")})
            seen["nobody"], seen["nobody_s"], seen["nobody_told"] = told(outcomes), time.monotonic() - begin, events

        @on("imaging")
        def priority(secret: str) -> None:
            from prefect.context import FlowRunContext

            context = FlowRunContext.get()
            assert context is not None
            client = context.task_runner.client  # type: ignore[attr-defined]
            holders = [sleep.submit(f"holder{i}", until="go") for i in range(2)]
            await_beginning("holder0", "holder1")
            tasks = []
            with dask.annotate(resources={MEMORY: LARGE_GB}):  # one worker, so that there is an order
                for name, value in (("low", -5), ("usual", 0), ("high", 5)):
                    with dask.annotate(priority=value):
                        tasks.append(sleep.submit(name))
            time.sleep(1)
            shipped = client.run_on_scheduler(_everything)
            found = {name: os.environ[name].encode() in shipped for name in ("SETTINGS_SECRET", "PARAMETERS_SECRET")}
            seen["shipped"] = found | {"argument": b"holder0" in shipped, "bytes": len(shipped)}
            (folder / "go").touch()
            for future in [*holders, *tasks]:
                future.result()
            seen["order"] = (folder / "order").read_text().split()

        @on("default")
        def keeping() -> Any:
            return conclude(gather(sleep, {"kept": {"name": "kept"}}), "keeping")

        memory()
        nobody()
        priority(os.environ["PARAMETERS_SECRET"])
        kept = keeping()
        seen["in_process"] = [type(kept[0]).__name__, type(kept[0].result).__name__, str(kept[0].result.where)]
    with get_client(sync_client=True) as client:
        run = max(client.read_flow_runs(), key=lambda run: run.expected_start_time)
        assert run.state is not None
        seen["kept"], seen["key"] = run.state.result(), run.state.data.storage_key
        seen["message"] = run.state.message
        time.sleep(2)
        seen["states"] = sorted({r.state.type.value for r in client.read_task_runs() if r.state})
    sys.stdout.write(json.dumps(seen) + "\n")


def _everything(dask_scheduler: Any) -> bytes:
    """All that the scheduler was sent for the tasks that it knows."""
    from distributed.protocol.pickle import dumps

    return b"".join(dumps(task.run_spec) for task in dask_scheduler.tasks.values())


if __name__ == "__main__":
    os.environ["PREFECT_API_AUTH_STRING"] = f"admin:{os.environ['SETTINGS_SECRET']}"
    main(Path(sys.argv[1]))
