"""Tasks for clusters of tests; the workers import them from here."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

from orca.cluster.worker import report_step, stop_signal
from orca.process import run

kept = []


def count(folder: str, name: object, wait_s: float = 0.0) -> int:
    """Note in a file of this task's own that it ran, and in which process; returns the process."""
    with (Path(folder) / str(name)).open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(wait_s)
    return os.getpid()


def wait_for_file(folder: str, name: str) -> int:
    """The same, and wait until the file `go` is there."""
    count(folder, name)
    report_step(name, "waiting")
    while not (Path(folder) / "go").exists():
        time.sleep(0.02)
    return os.getpid()


def keep_memory(megabytes: int) -> int:
    """Leave the process with more memory."""
    kept.append(b"x" * (megabytes * 1_000_000))
    return os.getpid()


def run_program(folder: str, name: str) -> int:
    """Run a program that does not end, unless the file `go` is there."""
    count(folder, name)
    if not (Path(folder) / "go").exists():
        program = Path(folder) / "endless"
        program.symlink_to("/bin/sleep")
        run([program, "300"], log=Path(folder) / "log", deadline_s=300, threads=1, stop=stop_signal())
    return os.getpid()


def runs(folder: Path, name: object) -> list[int]:
    """Processes in which a task ran, one for each time."""
    file = folder / str(name)
    return [int(pid) for pid in file.read_text().split()] if file.exists() else []


def programs(folder: Path) -> list[int]:
    """Processes of the program that `run_program` runs."""
    found = subprocess.run(["pgrep", "-f", str(folder / "endless")], capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


def begun_in(dask_worker: Any) -> int:
    """Tasks that a worker process has begun; run by `distributed.Client.run`."""
    return int(dask_worker.plugins["orca-node"].metrics()["begun"])
