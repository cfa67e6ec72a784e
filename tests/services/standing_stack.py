"""A whole cluster of `orca up` in a home of its own, for tests that look at it or kill parts of it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml
from site_of_tests import Site

# Loads that no test machine reaches: the workers shall work however busy it is.
POOLS: dict[str, Any] = {
    "hosts": None,
    "pools": {
        "default": {"runs": 2, "slots": 1, "threads": 1, "memory_gb": 2, "scratch_gb": 1},
        "imaging": {"runs": 1, "slots": 1, "threads": 1, "memory_gb": 2, "scratch_gb": 1},
        "bandpass": {"runs": 1, "slots": 1, "threads": 1, "memory_gb": 2, "scratch_gb": 1},
        "cosmology": {"runs": 1, "slots": 1, "threads": 1, "memory_gb": 2, "scratch_gb": 1},
    },
    "limits": {"load": 1000, "free_memory_gb": 0, "free_scratch_gb": 0},
    "recycle": {"tasks": 20, "memory_gb": 4},
    "take_turns": True,
}


@dataclass
class Stack:
    """A home in which `orca up` is called."""

    site: Site
    without: tuple[str, ...] = ()
    pools: dict[str, Any] = field(default_factory=dict)

    @property
    def run_folder(self) -> Path:
        return self.site.data / "run"

    @property
    def file(self) -> Path:
        path = self.site.folder / "pools.yaml"
        if not path.exists():
            path.write_text(yaml.safe_dump({**POOLS, **self.pools}))
        return path

    def up(self) -> Any:
        words = [word for part in self.without for word in ("--without", part)]
        return self.site.run("up", "--cluster", self.file, *words)

    def down(self, *words: str) -> Any:
        return self.site.run("down", *words)

    def status(self) -> dict[str, Any]:
        return json.loads(self.site.run("status", "--json").stdout)

    def part(self, name: str) -> dict[str, Any]:
        return next(part for part in self.status()["parts"] if part["name"] == name)

    def known(self) -> dict[str, Any]:
        """What is written down, with passwords."""
        return json.loads((self.run_folder / "up.json").read_text())

    def address(self, name: str) -> str:
        return next(part["address"] for part in self.known()["parts"] if part["name"] == name)

    def processes(self) -> list[psutil.Process]:
        """All that run because of this home, however they were started: by environment, folder or command."""
        found = []
        test = psutil.Process(os.getpid())
        for process in psutil.process_iter():
            try:
                told = [*process.environ().values(), process.cwd(), *process.cmdline()]
                if process not in (test, *test.parents()) and any(str(self.site.folder) in text for text in told):
                    found.append(process)
            except psutil.Error:
                continue
        return found
