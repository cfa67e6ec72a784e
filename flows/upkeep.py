"""Upkeep: what was recorded, and was never asked for or failed, is asked for again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count, zip_longest
from typing import Any

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Completed

from orca import config, naming
from orca.catch_up import ATTEMPTS, Batch, OnItsWay, Plan, find_missing, plan
from orca.cluster.artifacts import show_table
from orca.cluster.deployment_file import read_deployments
from orca.cluster.pools import pool_name
from orca.cluster.runner import pool_flow
from orca.config import Config
from orca.errors import OrcaError
from orca.reduction_options import ReductionOptions

DEPLOYMENT = "reduction/reduction"
TAG = "catch-up"
"""Of the flow runs that were asked for here."""
AHEAD = timedelta(minutes=10)
"""Flow runs that are scheduled within this time are on their way: until the next catch-up."""
AT_ONCE = 16
"""Flow runs that one catch-up asks for at most."""
SHOWN = 500
"""Rows of its table at most."""
NAMED = 10
"""Blocks that are named in its warning."""
_PAGE = 50
"""Flow runs of one answer of the server: their lists of files are long."""


def _run_name() -> str:
    """What a flow run is called on Prefect's page: catch-up 2026-01-10 18:17."""
    return f"catch-up {datetime.now(UTC):%Y-%m-%d %H:%M}"


@pool_flow("default", "catch-up", _run_name)
def catch_up(only_tell: bool = False) -> Any:
    """Ask for the reduction of what was recorded, has no product with all of it, and is not on its way.

    Args:
        only_tell: List what is missing, and ask for nothing.
    """
    from orca.events.rules import left_to_trigger

    settings, now = config.load(), datetime.now(UTC)
    raw, averaged = settings.paths.raw.absolute(), settings.paths.averaged.absolute()
    lifetime = timedelta(hours=settings.limits.raw_lifetime_h)
    if not raw.is_dir():
        get_run_logger().warning("there is no folder of raw data %s", raw)
    coming, tried = _coming(settings, OnItsWay(raw, averaged), now), _tried(settings, now - lifetime)
    # after that, so that what ends meanwhile counts as on its way
    todo = plan(
        find_missing(raw, averaged, ReductionOptions().block, lifetime, left_to_trigger(DEPLOYMENT), now), coming, tried
    )
    asked = [] if only_tell else _ask(settings, todo.batches[:AT_ONCE])
    if not only_tell:
        _announce_late(settings)
    _tell(todo, asked, lifetime, now)
    return Completed(message=_summary(todo, len(asked)))


def _coming(settings: Config, coming: OnItsWay, now: datetime) -> OnItsWay:
    """Take note of all reductions that have not ended, but for those of a schedule's far future."""
    unfinished = {
        "state": {"type": {"any_": sorted(set(StateType) - TERMINAL_STATES)}},
        "expected_start_time": {"before_": now + AHEAD},
    }
    for run in _reductions(settings, unfinished):
        coming.add(run.parameters, run.start_time or max(run.expected_start_time or now, now))
    return coming


def _tried(settings: Config, since: datetime) -> Counter[str]:
    """How often each integration was asked for here by flow runs that have ended."""
    ended = {
        "state": {"type": {"any_": sorted(TERMINAL_STATES)}},
        "expected_start_time": {"after_": since},
        "tags": {"all_": [TAG]},
    }
    tried = Counter[str]()
    for run in _reductions(settings, ended):
        tried.update(map(naming.strip_suffix, run.parameters.get("measurement_sets") or ()))
    return tried


def _reductions(settings: Config, which: dict[str, Any]) -> Iterator[FlowRun]:
    """Flow runs of all our deployments of the reduction."""
    flow = DEPLOYMENT.partition("/")[0]
    ours = [pool_name(settings.queue.prefix, each.name) for each in read_deployments() if each.flow == flow]
    filters: dict[str, Any] = {
        "flow_run_filter": FlowRunFilter.model_validate(which),
        "deployment_filter": DeploymentFilter.model_validate({"name": {"any_": ours}}),
        "sort": FlowRunSort.ID_DESC,
    }
    with get_client(sync_client=True) as client:
        for offset in count(0, _PAGE):
            found = client.read_flow_runs(**filters, limit=_PAGE, offset=offset)
            yield from found
            if len(found) < _PAGE:
                return


def _ask(settings: Config, batches: Sequence[Batch]) -> list[str]:
    """Ask for a flow run for each batch; returns their numbers. For the same blocks and attempt there is one only."""
    from orca.events.journal import Request
    from orca.events.runs import FlowRuns, run_key

    runs = FlowRuns(settings)
    return [
        runs.ask(
            Request(
                key=run_key(DEPLOYMENT, batch.sources, batch.attempt),
                deployment=DEPLOYMENT,
                parameters={"measurement_sets": batch.sources},
                tags=(TAG, *sorted({f"{block.start:%Y-%m-%d}" for block in batch.blocks})),
            )
        )
        for batch in batches
    ]


def _announce_late(settings: Config) -> None:
    """Announce what could not be announced when it was made, because the broker was away."""
    from orca.events.untold import send_waiting, waiting

    try:
        if waiting(settings):
            get_run_logger().info("announced later: %d", send_waiting(settings))
    except OrcaError as error:
        get_run_logger().warning("announcements wait on: %s", error)


def _tell(todo: Plan, asked: Sequence[str], lifetime: timedelta, now: datetime) -> None:
    """Name what is missing, in a table, and what is given up, in the log as well."""
    known = [(ATTEMPTS, "given up", block) for block in todo.given_up]
    known += [(batch.attempt, run, block) for batch, run in zip_longest(todo.batches, asked) for block in batch.blocks]
    rows = [
        {
            "block": block.name,
            "integrations": len(block.sources),
            "hours left": f"{block.left_h(lifetime / timedelta(hours=1), now):.1f}",
            "attempt": attempt,
            "flow run": run or "not asked for",
        }
        for attempt, run, block in known
    ]
    if rows:
        show_table("catch-up-summary", rows[:SHOWN], _summary(todo, len(asked)))
    if todo.given_up:
        named = ", ".join(block.name for block in todo.given_up[:NAMED])
        more = f" and {len(todo.given_up) - NAMED} more" if len(todo.given_up) > NAMED else ""
        get_run_logger().warning("given up after %d attempts: %s%s", ATTEMPTS, named, more)


def _summary(todo: Plan, asked: int) -> str:
    """One line: how many blocks are missing, and what becomes of them."""
    counts = {
        "on their way": todo.coming,
        "asked for": sum(len(batch.blocks) for batch in todo.batches[:asked]),
        "not asked for": sum(len(batch.blocks) for batch in todo.batches[asked:]),
        "given up": len(todo.given_up),
    }
    told = ", ".join(f"{number} {what}" for what, number in counts.items() if number)
    return f"{sum(counts.values())} blocks missing{f': {told}' if told else ''}"
