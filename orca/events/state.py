"""What a trigger shows of itself: a small file that `orca status` and others read."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from orca.config import Config
from orca.disk import make_folder
from orca.errors import StorageError
from orca.products import write_text

EVERY_S = 2.0
STALE_S = 30.0
"""A state that is older was left by a trigger that is gone, or hangs."""


def trigger_folder(settings: Config) -> Path:
    """Where the trigger of a prefix keeps its journal and its state."""
    return settings.paths.data / "trigger" / settings.queue.prefix


@dataclass
class TriggerState:
    """Its state, and what it has counted since it started.

    Attributes
    ----------
    path : Path
        The file; made anew every few seconds.
    doing : str
        ``takes messages``, or what it waits for.
    problem : str
        Why it waits.
    received, refused, flow_runs : int
        Messages taken, messages put to the dead letters, flow runs asked for.
    waiting_files, waiting_blocks, waiting_runs : int
        Files in blocks that are not complete, those blocks, and flow runs that Prefect has not taken yet.
    oldest_s : float
        How long the first file has waited.
    """

    path: Path
    doing: str = "starts"
    problem: str = ""
    received: int = 0
    refused: int = 0
    flow_runs: int = 0
    waiting_files: int = 0
    waiting_blocks: int = 0
    waiting_runs: int = 0
    oldest_s: float = 0.0
    started: float = field(default_factory=time.time)
    _told: float = 0.0

    def tell(self, doing: str, problem: str = "") -> None:
        """Write it down, if it is another one than before or some time has passed."""
        changed = (doing, problem) != (self.doing, self.problem)
        self.doing, self.problem = doing, problem
        if changed or time.monotonic() - self._told >= EVERY_S:
            self._told = time.monotonic()
            values = {name: value for name, value in asdict(self).items() if name not in {"path", "_told"}}
            make_folder(self.path.parent)
            try:
                write_text(self.path, json.dumps({**values, "time": time.time(), "pid": os.getpid()}, indent=1) + "\n")
            except StorageError:
                if changed:
                    raise


def read_state(settings: Config) -> dict[str, Any] | None:
    """The state of the trigger on this machine; None if there is none, or it has not told anything for a while."""
    try:
        found = json.loads((trigger_folder(settings) / "state.json").read_text())
        return found if time.time() - float(found["time"]) < STALE_S else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
