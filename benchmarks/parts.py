"""Processes that benchmarks start and look at: a Prefect server, and CPU time with children."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path

import psutil
import yaml

from orca.cluster.server import FACTORY, LOOPBACK, command
from orca.cluster.server_settings import SERVER_SETTINGS

STOCK = "prefect.server.api.server:create_app"
Cpu = Callable[[], float]
"""CPU seconds that a part has used since it began."""


def cpu_of(pid: int, *, children: bool = True) -> float:
    """CPU seconds of a process, and of its children, those that have ended included."""
    process = psutil.Process(pid)
    if not children:
        return sum(process.cpu_times()[:2])
    total = sum(process.cpu_times()[:4])
    for child in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            total += sum(child.cpu_times()[:4])
    return total


def prefect_environment(home: Path, port: int) -> dict[str, str]:
    """Environment of a process that talks to a server on this port, and of the server itself."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {
        **kept,
        "HOME": str(home),
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "DO_NOT_TRACK": "1",
    }


def pools_file(home: Path, recycle: int) -> Path:
    """Work pools as they come with ORCA, but for the number of tasks after which a worker process is replaced."""
    home.mkdir(parents=True, exist_ok=True)
    pools = yaml.safe_load(resources.files("orca").joinpath("data", "work_pools.yaml").read_text())
    path = home / "work_pools.yaml"
    path.write_text(yaml.safe_dump(pools | {"recycle": {"tasks": recycle, "memory_gb": 8.0}}))
    return path


@contextmanager
def prefect_server(home: Path, port: int, *, stock: bool = False) -> Iterator[int]:
    """Run our Prefect server, or a stock one, with SQLite; yields the number of its process when it answers."""
    home.mkdir(parents=True, exist_ok=True)
    words, settings = command(LOOPBACK, port), SERVER_SETTINGS
    if stock:
        words = [STOCK if word == FACTORY else word for word in words]
        settings = {}
    process = subprocess.Popen(words, env=prefect_environment(home, port) | settings)
    try:
        _wait_for(f"http://127.0.0.1:{port}/api/health")
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def _wait_for(url: str, patience_s: float = 120.0) -> None:
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=2):
            return
        time.sleep(0.2)
    raise TimeoutError(f"{url} did not answer within {patience_s:.0f} s")
