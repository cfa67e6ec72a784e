"""What Prefect may start, and when: the deployments of deployments/prefect.yaml."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyOptions, DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import construct_schedule
from prefect.exceptions import MissingFlowError, ObjectNotFound, ScriptError
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from pydantic import BaseModel, ConfigDict

import orca
from orca.cluster import checked_yaml
from orca.cluster.api import Change
from orca.cluster.pools import PoolName, pool_name
from orca.errors import ConfigError, InputError

PACKAGED = Path(orca.__file__).parents[1] / "deployments" / "prefect.yaml"
"""In a clone, which is how ORCA is installed."""
NONE = "none"


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


class Deployment(_Part):
    """One entry of the file, in Prefect's own format; a part of what that can have."""

    name: str
    entrypoint: str
    """Module and function."""
    description: str
    tags: list[str] = []
    work_pool: _WorkPool
    parameters: dict[str, Any] = {}
    concurrency_limit: ConcurrencyLimitConfig | None = None
    schedules: list[Schedule] = []


@dataclass(frozen=True)
class Wanted:
    """A deployment as it has to be on the server.

    Attributes
    ----------
    flow, name : str
        Prefect calls it flow/name.
    entry : Deployment
    pool : str
        Prefect's name of the work pool.
    schema : dict
        Types, defaults and help of the parameters.
    """

    flow: str
    name: str
    entry: Deployment
    pool: str
    schema: dict[str, Any]

    @property
    def full_name(self) -> str:
        """As the command line and the page have it."""
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


def wanted(deployments: Sequence[Deployment], prefix: str) -> list[Wanted]:
    """Return the deployments as the user with this `queue.prefix` has them; imports their flows.

    Raises
    ------
    ConfigError
        An entrypoint names no flow.
    """
    found = []
    for entry in deployments:
        try:
            flow: Flow[Any, Any] = load_flow_from_entrypoint(entry.entrypoint, use_placeholder_flow=False)
        except (ImportError, MissingFlowError, ScriptError, ValueError) as error:
            problem = f"deployment {entry.name}: {entry.entrypoint} is no flow ({str(error).splitlines()[0]})"
            raise ConfigError(problem) from error
        schema = parameter_schema(flow).model_dump(exclude_unset=True)
        name, pool = pool_name(prefix, entry.name), pool_name(prefix, entry.work_pool.name)
        found.append(Wanted(flow.name, name, entry, pool, schema))
    return found


def apply(client: SyncPrefectClient, deployments: Sequence[Wanted], *, dry_run: bool = False) -> list[Change]:
    """Make and update deployments, and return what was changed. Others are left alone.

    A schedule that somebody has paused stays paused.

    Parameters
    ----------
    client : SyncPrefectClient
    deployments : sequence of Wanted
    dry_run : bool
        Only return what would be changed.

    Raises
    ------
    InputError
        A work pool is not there (not in a dry run). Nothing is changed then.
    """
    if not dry_run:
        _check_pools(client, deployments)
    changes = []
    for each in deployments:
        there = _read(client, each.full_name)
        differing = _differing(each, there)
        changes += differing
        if differing and not dry_run:
            _create(client, each, there)
    return changes


def _check_pools(client: SyncPrefectClient, deployments: Sequence[Wanted]) -> None:
    there = {pool.name for pool in client.read_work_pools()}
    if missing := sorted({each.pool for each in deployments} - there):
        raise InputError(f"Prefect has no work pool {' or '.join(missing)}", remedy="Run `orca pools apply` first")


def _read(client: SyncPrefectClient, full_name: str) -> DeploymentResponse | None:
    try:
        return client.read_deployment_by_name(full_name)
    except ObjectNotFound:
        return None


def _create(client: SyncPrefectClient, deployment: Wanted, there: DeploymentResponse | None) -> None:
    """Make or replace one."""
    entry = deployment.entry
    limit = entry.concurrency_limit
    paused = {schedule.slug for schedule in there.schedules if not schedule.active} if there else set()
    client.create_deployment(
        flow_id=client.create_flow_from_name(deployment.flow),
        name=deployment.name,
        entrypoint=entry.entrypoint,
        description=entry.description,
        tags=entry.tags,
        parameters=entry.parameters,
        parameter_openapi_schema=deployment.schema,
        enforce_parameter_schema=True,
        work_pool_name=deployment.pool,
        pull_steps=[],
        concurrency_limit=limit.limit if limit else None,
        concurrency_options=ConcurrencyOptions(collision_strategy=limit.collision_strategy) if limit else None,
        schedules=[
            DeploymentScheduleCreate(slug=each.slug, schedule=_schedule(each), active=each.slug not in paused)
            for each in entry.schedules
        ],
    )


def _schedule(schedule: Schedule) -> Any:
    return construct_schedule(**schedule.model_dump(exclude={"slug"}))


def _differing(deployment: Wanted, there: DeploymentResponse | None) -> list[Change]:
    entry, limit = deployment.entry, deployment.entry.concurrency_limit
    if there is None:
        return [Change(deployment.full_name, "deployment", NONE, f"{entry.entrypoint} in pool {deployment.pool}")]
    now_limit, now_options = there.global_concurrency_limit, there.concurrency_options
    facts: list[tuple[str, Any, Any]] = [
        ("entrypoint", there.entrypoint, entry.entrypoint),
        ("work pool", there.work_pool_name, deployment.pool),
        ("description", there.description, entry.description),
        ("tags", ", ".join(sorted(there.tags)), ", ".join(sorted(entry.tags))),
        ("parameters", there.parameters, entry.parameters),
        ("flow runs at once", now_limit and now_limit.limit, limit and limit.limit),
        (
            "collision strategy",
            now_options and now_options.collision_strategy.value,
            limit and limit.collision_strategy.value,
        ),
        (
            "schedules",
            "; ".join(sorted(map(_shown, there.schedules))),
            "; ".join(sorted(_shown(DeploymentSchedule(slug=s.slug, schedule=_schedule(s))) for s in entry.schedules)),
        ),
        ("steps before a run", there.pull_steps or [], []),
    ]
    changes = [
        Change(
            deployment.full_name, what, NONE if now in (None, "") else str(now), NONE if to in (None, "") else str(to)
        )
        for what, now, to in facts
        if now != to
    ]
    if there.parameter_openapi_schema != deployment.schema:
        changes.append(Change(deployment.full_name, "types and help of parameters", "others", "those of the flow"))
    return changes


def _shown(schedule: DeploymentSchedule) -> str:
    """A schedule in a few words; equal ones are equal, paused or not."""
    how = schedule.schedule.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    return " ".join([f"{schedule.slug}:", *(f"{key} {value}" for key, value in sorted(how.items()))])
