"""A flow whose tasks end in every way; prints outcomes and the states of the task runs. Run by test_gather.py."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from orca.cluster import local
from orca.cluster.session import open_session
from orca.config import load

local.DASK_SETTINGS["distributed.scheduler.allowed-failures"] = 0


@dataclass(frozen=True)
class Ended:
    skipped: bool


def main(folder: Path) -> None:
    with open_session(load(), preload=()) as session:
        session.wait()
        from prefect import flow, get_client, task

        from orca.cluster.gather import gather
        from orca.cluster.runner import PoolTaskRunner
        from orca.errors import DataError, InfrastructureError, StoppedError

        @task(name="unit", persist_result=False)
        def unit(how: str) -> Ended:
            first = not (folder / how).exists()
            with (folder / how).open("a") as calls:
                calls.write("x")
            if how == "wrong data":
                raise DataError("is wrong", "the-file", "Do something")
            if how == "stopped":
                raise StoppedError("its Dask worker ends")
            if how == "a bug":
                raise ZeroDivisionError("oops")
            if how == "always kills its worker" or (how == "kills its worker once" and first):
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "machine trouble once" and first:
                raise InfrastructureError("the machine hiccupped")
            return Ended(skipped=how == "fresh")

        ways = ["always kills its worker", "kills its worker once", "machine trouble once"]
        ways += ["fine", "fresh", "wrong data", "a bug", "stopped"]

        @flow(name="ways", task_runner=PoolTaskRunner("default", session.address))
        def run() -> list[dict[str, object]]:
            outcomes = gather(unit, {how: {"how": how} for how in ways}, resubmissions=1)
            return [
                {name: getattr(o, name) for name in ("unit", "status", "cause", "reason", "attempts")} for o in outcomes
            ]

        outcomes = run()
        end = time.monotonic() + 10  # the server takes states in late
        with get_client(sync_client=True) as client:
            found = client.read_task_runs()
            while not all(run.state.is_final() for run in found) and time.monotonic() < end:
                time.sleep(0.5)
                found = client.read_task_runs()
            log = "\n".join(entry.message for entry in client.read_logs(limit=200))
        states = [(run.state.type.value, run.state.message) for run in found]
        sys.stdout.write(json.dumps({"outcomes": outcomes, "states": states, "log": log}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
