"""Flows that tests start through a warm worker; deployed from this file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.runtime import flow_run

from orca.cluster.runner import PoolTaskRunner
from orca.cluster.warm.records import register


def _tell(folder: Path, **values: object) -> None:
    """Leave a file a start: when, and in which process."""
    number = len(list(folder.glob("start-*")))
    part = folder / f"part-{number}"
    part.write_text(json.dumps({"time": time.time(), "pid": os.getpid(), **values}))
    part.replace(folder / f"start-{number}")


@flow(name="first-line")
def first_line(folder: Path) -> None:
    """Say when it began, and in which process."""
    _tell(folder, parent=os.getppid(), session=os.getsid(0), modules="prefect_dask" in sys.modules)
    sys.stdout.write("printed by the flow\n")
    get_run_logger().info("logged by the flow")


@flow(name="swallow")
def swallow(measurement_sets: list[Path]) -> int:
    """Take files, and do nothing with them."""
    return len(measurement_sets)


@flow(name="wait")
def wait(folder: Path, seconds: float = 60.0) -> None:
    """Run until the file `go` is there, with a child process."""
    child = subprocess.Popen(["sleep", "600"])
    _tell(folder, child=child.pid)
    end = time.monotonic() + seconds
    while time.monotonic() < end and not (folder / "go").exists():
        time.sleep(0.05)
    child.kill()
    child.wait()


@flow(name="kill-itself")
def kill_itself(folder: Path, number: int = signal.SIGKILL, times: int = 99) -> None:
    """End by a signal the first times."""
    _tell(folder)
    if len(list(folder.glob("start-*"))) <= times:
        sys.stdout.write("last words\n")
        sys.stdout.flush()
        os.kill(os.getpid(), number)


@task(name="slow", persist_result=False)
def slow(folder: Path) -> None:
    """Run until the file `go` is there."""
    _tell(folder)
    while not (folder / "go").exists():
        time.sleep(0.05)


@flow(name="on-dask", task_runner=PoolTaskRunner("default"))
def on_dask(folder: Path) -> None:
    """A task on a Dask cluster of the flow's own."""
    slow.submit(folder).result()


@flow(name="by-hand")
def by_hand(folder: Path, runs: Path) -> None:
    """What a person starts: makes its process known, and waits."""
    register(runs, str(flow_run.id))
    _tell(folder, run=str(flow_run.id))
    while not (folder / "go").exists():
        time.sleep(0.05)


if __name__ == "__main__":
    by_hand(Path(sys.argv[1]), Path(sys.argv[2]))
