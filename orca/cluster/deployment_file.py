"""deployments/prefect.yaml: every deployment, its pool and its schedules. Nothing here imports Prefect."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

import orca
from orca.cluster import checked_yaml
from orca.cluster.pools import PoolName
from orca.errors import InputError

CLONE = Path(orca.__file__).parents[1]
"""Where ORCA is installed: the clone itself."""
PACKAGED = CLONE / "deployments" / "prefect.yaml"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Schedule(_Part):
    """When: one of an interval in seconds and cron."""

    slug: str
    interval: float | None = None
    anchor_date: str | None = None
    cron: str | None = None
    timezone: str = "UTC"


class _WorkPool(_Part):
    name: PoolName


class ConcurrencyLimit(_Part):
    """How many flow runs of a deployment run at once."""

    limit: int
    collision_strategy: Literal["ENQUEUE", "CANCEL_NEW"] = "ENQUEUE"
    """What becomes of one more."""


class Deployment(_Part):
    """One entry of the file, in Prefect's own format; a part of what that can have."""

    name: str
    entrypoint: str
    """Module and function."""
    description: str
    tags: list[str] = []
    work_pool: _WorkPool
    parameters: dict[str, Any] = {}
    concurrency_limit: ConcurrencyLimit | None = None
    schedules: list[Schedule] = []

    @property
    def flow(self) -> str:
        """Name of the flow, which is that of its function with dashes."""
        return self.entrypoint.rpartition(".")[2].replace("_", "-")

    @property
    def full_name(self) -> str:
        """As Prefect has it for the user whose `queue.prefix` is default."""
        return f"{self.flow}/{self.name}"


class _File(_Part):
    name: str
    pull: list[Any] = []
    deployments: list[Deployment]


def read_deployments(path: Path = PACKAGED) -> list[Deployment]:
    """Read the file.

    Raises
    ------
    ConfigError
        It is missing, is no YAML, or holds what is unknown or of the wrong type: each with its line.
    """
    return checked_yaml.load(path.absolute(), _File, _contradictions).deployments


def _contradictions(file: _File) -> Iterator[tuple[str, str]]:
    names = [entry.name for entry in file.deployments]
    for number, entry in enumerate(file.deployments):
        if entry.name in names[:number]:
            yield f"deployments.{number}.name", f"there are two deployments {entry.name}"
        for index, schedule in enumerate(entry.schedules):
            if (schedule.interval is None) == (schedule.cron is None):
                yield f"deployments.{number}.schedules.{index}", "expected one of interval and cron"
    if file.pull:
        yield "pull", "expected an empty list: the flows are installed with ORCA"


def choose(deployments: Sequence[Deployment], names: Sequence[str]) -> list[Deployment]:
    """Return those of some names; all without names.

    Raises
    ------
    InputError
        There is none of a name.
    """
    known = {entry.name: entry for entry in deployments}
    chosen = {}
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(known)}"
            raise InputError(f"there is no deployment {name}", remedy=hint)
        chosen[name] = known[name]
    return list((chosen or known).values())
