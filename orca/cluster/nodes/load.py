"""How busy a node is, and whether it may start more: the recorders come first."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from orca.cluster.pools import Limits

LOOK_S = 2.0
"""How long a measurement holds."""
MARGIN = 0.1
"""A node that was over a limit has to come this share below it before it starts anything again."""


@dataclass(frozen=True)
class Load:
    """What a node has left.

    Attributes
    ----------
    per_core : float
        Load average of one minute, of all that runs there, for each core that is not reserved.
    free_memory_gb, free_scratch_gb : float
        GB of 1e9 bytes.
    """

    per_core: float
    free_memory_gb: float
    free_scratch_gb: float


def measure(scratch: Path, reserved_cores: int) -> Load:
    """Look at this machine, and at the disk that `scratch` is on, or will be."""
    there = next(folder for folder in (scratch, *scratch.parents) if folder.exists())
    return Load(
        per_core=os.getloadavg()[0] / max(1, (os.cpu_count() or 1) - reserved_cores),
        free_memory_gb=psutil.virtual_memory().available / 1e9,
        free_scratch_gb=shutil.disk_usage(there).free / 1e9,
    )


def excess(load: Load, limits: Limits, margin: float = 0.0) -> str:
    """Which limit a node is over, or nearer to than a share of it; empty if none."""
    if load.per_core > limits.load * (1 - margin):
        return f"load {load.per_core:.2f} a core, limit {limits.load:g}"
    if load.free_memory_gb < limits.free_memory_gb * (1 + margin):
        return f"{load.free_memory_gb:.1f} GB of memory free, needed {limits.free_memory_gb:g}"
    if load.free_scratch_gb < limits.free_scratch_gb * (1 + margin):
        return f"{load.free_scratch_gb:.1f} GB of scratch free, needed {limits.free_scratch_gb:g}"
    return ""


class LoadWatch:
    """Looks at a node now and then, and says why it may not start anything.

    Parameters
    ----------
    limits : Limits
    scratch : Path
    reserved_cores : int
    """

    def __init__(self, limits: Limits, scratch: Path, reserved_cores: int) -> None:
        self._limits, self._scratch, self._reserved = limits, scratch, reserved_cores
        self._looked = -LOOK_S
        self.reason = ""
        """Why nothing new may start, as of the last look; empty if it may."""
        self.load: Load | None = None
        """As of the last look."""

    def look(self) -> str:
        """Measure, unless that was done just now, and return the reason."""
        if time.monotonic() - self._looked >= LOOK_S:
            self._looked = time.monotonic()
            self.load = measure(self._scratch, self._reserved)
            self.reason = excess(self.load, self._limits, MARGIN if self.reason else 0.0)
        return self.reason
