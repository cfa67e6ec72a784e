"""Short questions to the parts of a cluster: each is really asked, and none waits for long.

An answer that does not come is an answer, too: nothing here raises because a part is down.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

from orca.cluster.security import CA
from orca.config.secret import SecretUri, mask

if TYPE_CHECKING:
    from distributed import Security

PATIENCE_S = 2.0
_UNDER_WAY = ("RUNNING", "PENDING", "CANCELLING")


@dataclass(frozen=True)
class Answer:
    """What a part said.

    Attributes
    ----------
    healthy : bool
    version : str
    problem : str
        Why it is not healthy.
    facts : dict
        What else it told.
    """

    healthy: bool
    version: str = ""
    problem: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def silent(error: BaseException) -> Answer:
    """The answer of a part that gave none."""
    reason = mask(str(error).strip().splitlines()[0]) if str(error).strip() else type(error).__name__
    return Answer(False, problem=f"does not answer ({reason})")


def call_api(
    url: str,
    path: str,
    body: Any = None,
    *,
    tls: Path | None = None,
    method: str | None = None,
    patience_s: float = PATIENCE_S,
) -> Any:
    """Call Prefect's API without Prefect, which takes seconds to import; returns what it said, None for nothing.

    Raises
    ------
    OSError, ValueError
        It does not answer, refuses, or says something else than JSON.
    """
    context = ssl.create_default_context(cafile=tls / CA) if tls and url.startswith("https://") else None
    data = None if body is None else json.dumps(body).encode()
    request = Request(f"{url}/{path}", data=data, headers={"Content-Type": "application/json"}, method=method)
    with urlopen(request, timeout=patience_s, context=context) as answer:
        text = answer.read()
        return json.loads(text) if text else None


def unfinished(url: str, tls: Path | None = None) -> list[dict[str, Any]]:
    """Flow runs that run or are about to, the latest 200, as the API has them; raises what `call_api` does."""
    states = {"state": {"type": {"any_": list(_UNDER_WAY)}}}
    question = {"flow_runs": states, "sort": "EXPECTED_START_TIME_DESC", "limit": 200}
    found: list[dict[str, Any]] = call_api(url, "flow_runs/filter", question, tls=tls)
    return found


def late(url: str, pool: dict[str, Any], tls: Path | None = None) -> dict[str, Any] | None:
    """Flow runs of a work pool whose time has come and that wait; None if none do. Raises what `call_api` does.

    Returns
    -------
    dict
        ``count``, ``since`` (when the first should have begun, ISO 8601), ``state`` of that one, and ``running``, how
        many of the pool are under way.
    """
    ours = {"name": {"any_": [pool["name"]]}}
    due = {
        "state": {"type": {"any_": ["SCHEDULED"]}},
        "expected_start_time": {"before_": datetime.now(UTC).isoformat()},
    }
    count = call_api(url, "flow_runs/count", {"work_pools": ours, "flow_runs": due}, tls=tls)
    first = {"work_pools": ours, "flow_runs": due, "sort": "EXPECTED_START_TIME_ASC", "limit": 1}
    if not count or not (found := call_api(url, "flow_runs/filter", first, tls=tls)):
        return None
    under_way = {"work_pools": ours, "flow_runs": {"state": {"type": {"any_": list(_UNDER_WAY)}}}}
    running = call_api(url, "flow_runs/count", under_way, tls=tls)
    [run] = found
    return {"count": count, "since": run["expected_start_time"], "state": run["state_name"], "running": running}


def ask_server(url: str, pools: Sequence[str] = (), tls: Path | None = None) -> Answer:
    """Ask the Prefect server for its health, its version, unfinished flow runs, and who works for some pools.

    The facts are ``flow_runs``, ``pools`` and ``workers`` (a list for each pool that there is), as the API has them,
    and ``late``, what `late` says of each pool in which something waits.
    """
    try:
        call_api(url, "health", tls=tls)
        known = {
            pool["name"]: pool for pool in call_api(url, "work_pools/filter", {}, tls=tls) if pool["name"] in pools
        }
        workers = {pool: call_api(url, f"work_pools/{pool}/workers/filter", {}, tls=tls) for pool in known}
        waiting = {name: found for name, pool in known.items() if (found := late(url, pool, tls))}
        facts = {"flow_runs": unfinished(url, tls), "pools": known, "workers": workers, "late": waiting}
        return Answer(True, str(call_api(url, "admin/version", tls=tls)), facts=facts)
    except (OSError, ValueError) as error:
        return silent(error)


def ask_metrics(url: str, tls: Path | None = None) -> Answer:
    """Ask whether `orca metrics` answers, for something that costs it nothing: for the numbers it asks all others."""
    try:
        call_api(url.removesuffix("/metrics"), "favicon.ico", tls=tls)
    except (OSError, ValueError) as error:
        return silent(error)
    return Answer(True)


def ask_redis(uri: SecretUri) -> Answer:
    """Ask Redis for a sign of life and its version."""
    import redis

    try:
        with redis.Redis.from_url(
            uri.reveal(), socket_timeout=PATIENCE_S, socket_connect_timeout=PATIENCE_S, retry=None
        ) as client:
            client.ping()
            return Answer(True, str(client.info("server")["redis_version"]))
    except (redis.RedisError, OSError, ValueError) as error:
        return silent(error)


def ask_scheduler(address: str, security: Security | None = None) -> Answer:
    """Ask the Dask scheduler for its version, and for its workers, what they run (fact ``workers``) and their versions.

    The fact ``packages`` is package -> version of the scheduler's process, Python and ORCA among them.

    A client of Dask would do as well, but takes part in all the scheduler does until it is closed.
    """
    from distributed import rpc
    from distributed.core import clean_exception
    from distributed.protocol.pickle import dumps

    async def ask() -> dict[str, Any]:
        arguments = security.get_connection_args("client") if security else {}
        async with rpc(address, timeout=PATIENCE_S, connection_args=arguments) as scheduler:
            told = await scheduler.run_function(function=dumps(look), args=(), kwargs={})
        if told["status"] == "error":
            raise clean_exception(**told)[1]
        found: dict[str, Any] = told["result"]
        return found

    try:
        found = asyncio.run(asyncio.wait_for(ask(), 2 * PATIENCE_S))
        return Answer(
            True, found["version"], facts={"workers": found["workers"], "packages": found.get("packages", {})}
        )
    except (OSError, TimeoutError, ValueError, RuntimeError, ImportError) as error:
        return silent(error)


def look(dask_scheduler: Any) -> dict[str, Any]:
    """The version of Dask, and the workers as the scheduler knows them; runs in the scheduler."""
    from distributed import __version__
    from distributed.versions import get_versions

    from orca import __version__ as own_version
    from orca.cluster.worker import NODE_PLUGIN

    workers = [
        {
            "name": str(worker.name),
            "status": worker.status.name,
            "slots": dict(worker.resources),
            "used": dict(worker.used_resources),
            "node": worker.metrics.get(NODE_PLUGIN) or {},
            "packages": (worker.versions or {}).get("packages", {}),
            "processing": [
                {"task": str(task.key), "pools": list(task.resource_restrictions or ())} for task in worker.processing
            ],
        }
        for worker in dask_scheduler.workers.values()
    ]
    packages = {**get_versions()["packages"], "orca": own_version}
    return {"version": __version__, "workers": workers, "packages": packages}
