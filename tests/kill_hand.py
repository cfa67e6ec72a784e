"""A seeded hand that sends kill -9 to something of `orca up` every few seconds, and sees how long that is missed."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from orca.cluster.machine import standing, supervision
from orca.cluster.machine.overview import Overview, look
from orca.cluster.machine.questions import call_api
from orca.cluster.pools import load_pools
from orca.config import Config
from orca.errors import InfrastructureError

PARTS = {
    "dask-node": "workers",
    "scheduler": "scheduler",
    "flow-worker": "flow-workers",
    "trigger": "trigger",
    "rabbitmq": "rabbitmq",
    "redis": "redis",
    "server": "server",
}
"""What the hand knows, and what `orca up` calls that; besides, `OTHERS`."""
OTHERS = ("dask-worker", "flow-run")
"""The process below a node's, in which the tasks run; and that of a flow run."""
VICTIMS = (*PARTS, *OTHERS)
LOOK_S = 0.5
NOBODY_S = 30.0
"""So long the hand waits for one that it may kill."""


@dataclass
class Kill:
    """A process that was killed.

    Attributes
    ----------
    what : str
        One of `VICTIMS`.
    name : str
        Of the part, or id of the flow run.
    pid : int
    at_s : float
        After the hand began.
    recovery_s : float or None
        Until it answered again: another process, healthy; a flow run: until Prefect had it ended, or begun again. None:
        not yet.
    """

    what: str
    name: str
    pid: int
    at_s: float
    recovery_s: float | None = None
    run_count: int = 0


@dataclass
class Hand:
    """Kills until it is told to stop, and watches what becomes of it.

    Parameters
    ----------
    settings : Config
        Of a home in which `orca up` was called.
    seed : int
    pause_s : pair of float
        Shortest and longest time between two kills.
    victims : names of `VICTIMS`
        Each in turn, in an order that is drawn anew for each round.
    """

    settings: Config
    seed: int = 0
    pause_s: tuple[float, float] = (2.0, 5.0)
    victims: Sequence[str] = VICTIMS
    kills: list[Kill] = field(default_factory=list)

    def __post_init__(self) -> None:
        found = standing.standing(self.settings)
        assert found is not None, "nothing stands"
        self.standing, self.pools = found, load_pools(Path(found.pools))
        self.overview()  # imports what the watching needs, before there is anything to watch
        self._random = random.Random(self.seed)
        self._begin = time.monotonic()
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def overview(self) -> Overview:
        """All parts as they are now."""
        return look(self.settings, self.pools, self.standing)

    @property
    def url(self) -> str:
        """Address of Prefect's API."""
        return str(self.standing.address("server"))

    def strike(self, count: int | None = None, seconds: float | None = None) -> list[Kill]:
        """Kill so many, or for so long; returns what was killed, once all of it is back, or ten minutes after.

        Parameters
        ----------
        count : int, optional
        seconds : float, optional
        """
        self._begin = time.monotonic()
        self._watcher.start()
        for what in self._order():
            done = count is not None and len(self.kills) >= count
            if done or (seconds is not None and time.monotonic() - self._begin > seconds):
                break
            self._kill(what)
            time.sleep(self._random.uniform(*self.pause_s))
        end = time.monotonic() + 600
        while any(kill.recovery_s is None for kill in self.kills) and time.monotonic() < end:
            time.sleep(LOOK_S)
        self._ended.set()
        self._watcher.join()
        return self.kills

    def _order(self) -> Iterator[str]:
        while True:
            round_ = list(self.victims)
            self._random.shuffle(round_)
            yield from round_

    def _kill(self, what: str) -> None:
        """Kill one of a kind, unless there is none for a while."""
        end = time.monotonic() + NOBODY_S
        while time.monotonic() < end:
            if found := sorted(self._candidates(what)):
                name, pid = self._random.choice(found)
                run_count = self._run(name)["run_count"] if what == "flow-run" else 0
                with suppress(psutil.Error):
                    psutil.Process(pid).kill()
                    self.kills.append(Kill(what, name, pid, time.monotonic() - self._begin, None, run_count))
                    return
            time.sleep(0.1)

    def _candidates(self, what: str) -> list[tuple[str, int]]:
        if what == "flow-run":
            return self._flow_runs()
        found = self._processes("workers" if what == "dask-worker" else PARTS[what])
        return (
            [(name, child) for name, pid in found for child in workers_below(pid)] if what == "dask-worker" else found
        )

    def _processes(self, kind: str) -> list[tuple[str, int]]:
        names = {part.name for part in self.standing.parts if part.kind == kind}
        try:
            with supervision.connected(self.standing.folder) as supervisor:
                told = supervisor.getAllProcessInfo()
        except InfrastructureError:
            return []
        return [
            (each["name"], each["pid"]) for each in told if each["name"] in names and each["statename"] == "RUNNING"
        ]

    def _flow_runs(self) -> list[tuple[str, int]]:
        """Those that have a process that lives, by the records beside Prefect's database."""
        found = []
        for path in (self.settings.prefect.home / "runs").glob("*/*.json"):
            with suppress(OSError, ValueError, KeyError):
                record = json.loads(path.read_text())
                known = self._run(record["flow_run_id"])
                if psutil.pid_exists(record["process"]["pid"]) and known["state_type"] == "RUNNING":
                    found.append((record["flow_run_id"], record["process"]["pid"]))
        return found

    def _run(self, number: str) -> dict[str, Any]:
        found: dict[str, Any] = call_api(self.url, f"flow_runs/{number}", patience_s=10)
        return found

    def _watch(self) -> None:
        """Note when what was killed is back."""
        while not self._ended.wait(LOOK_S):
            if not (waiting := [kill for kill in list(self.kills) if kill.recovery_s is None]):
                continue
            parts = {part.name: part for part in self.overview().parts}
            for kill in waiting:
                with suppress(OSError, ValueError):
                    if self._is_back(kill, parts):
                        kill.recovery_s = time.monotonic() - self._begin - kill.at_s

    def _is_back(self, kill: Kill, parts: dict[str, Any]) -> bool:
        if kill.what == "flow-run":
            run = self._run(kill.name)
            return run["state_type"] != "RUNNING" or run["run_count"] > kill.run_count
        part = parts[kill.name]
        if not part.healthy or part.pid is None:
            return False
        return bool(set(workers_below(part.pid)) - {kill.pid}) if kill.what == "dask-worker" else part.pid != kill.pid


def workers_below(pid: int) -> list[int]:
    """The process of a Dask node in which its tasks run."""
    with suppress(psutil.Error):
        node = psutil.Process(pid)
        return [child.pid for child in node.children(recursive=True) if child.name() != "cat" and _computes(child)]
    return []


def _computes(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.num_threads() > 3
    except psutil.Error:
        return False


def table(kills: Sequence[Kill]) -> str:
    """What was killed when, and how long that was missed."""
    lines = [f"{'at s':>7}  {'killed':12} {'name':36} {'pid':>8} {'back after s':>13}"]
    for kill in kills:
        back = "not back" if kill.recovery_s is None else f"{kill.recovery_s:.1f}"
        lines.append(f"{kill.at_s:7.1f}  {kill.what:12} {kill.name:36} {kill.pid:8} {back:>13}")
    return "\n".join(lines)
