"""What Prefect may start, and when: the deployments of deployments/prefect.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions, DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import construct_schedule
from prefect.exceptions import MissingFlowError, ObjectNotFound, ScriptError
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema

from orca.cluster.api import Change
from orca.cluster.deployment_file import PACKAGED, Deployment, Schedule, choose, read_deployments
from orca.cluster.pools import pool_name
from orca.errors import ConfigError, InputError

__all__ = ["PACKAGED", "Wanted", "apply", "choose", "read_deployments", "wanted"]

NONE = "none"


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
    strategy = None if limit is None else ConcurrencyLimitStrategy(limit.collision_strategy)
    options = None if strategy is None else ConcurrencyOptions(collision_strategy=strategy)
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
        concurrency_options=options,
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
            limit and limit.collision_strategy,
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
