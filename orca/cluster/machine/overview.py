"""What runs: each part and its health, queues, slots, tasks and flow runs. Works when half of it is down."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from orca.cluster import server
from orca.cluster.machine import questions, supervision
from orca.cluster.machine.questions import Answer
from orca.cluster.machine.standing import Known, Standing, api_url, broker_uri, dask_address, result_backend_uri
from orca.cluster.pools import POOLS, WorkPools, pool_name
from orca.cluster.security import security
from orca.config import Config, SecretUri
from orca.errors import InfrastructureError


@dataclass(frozen=True)
class PartState:
    """A part as it is.

    Attributes
    ----------
    name, kind : str
    address : str
        Without its password.
    version : str
    healthy : bool
        It answered, or those who know it say that it is there.
    state : str
        In a word or two.
    since : float or None
        Unix time of its start; None where nobody here supervises it, or it does not run.
    restarts : int or None
        How often it was started again; None as for `since`.
    pid : int or None
    log : str
    """

    name: str
    kind: str
    address: str
    version: str
    healthy: bool
    state: str
    since: float | None = None
    restarts: int | None = None
    pid: int | None = None
    log: str = ""


@dataclass(frozen=True)
class Task:
    """A Dask task that runs, or is about to."""

    task: str
    pools: tuple[str, ...]
    host: str
    worker: str
    since: float | None
    unit: str
    step: str


@dataclass(frozen=True)
class FlowRun:
    """A flow run that has not ended."""

    name: str
    pool: str
    state: str
    since: float | None
    id: str


@dataclass(frozen=True)
class Waiting:
    """Flow runs of a pool that should have begun.

    Attributes
    ----------
    pool : str
    count : int
    since : float or None
        Unix time at which the first should have.
    why : str
        Empty where nothing stands in the way: they are about to begin.
    """

    pool: str
    count: int
    since: float | None
    why: str


@dataclass(frozen=True)
class Overview:
    """Everything at one instant.

    Attributes
    ----------
    parts : tuple of PartState
    left_out : dict
        Kind -> why it does not run.
    queues : dict
        RabbitMQ's queue of each pool -> messages that wait; None: not declared.
    slots : dict
        Pool -> node -> (used, offered).
    tasks : tuple of Task
    flow_runs : tuple of FlowRun
    waiting : tuple of Waiting
    """

    parts: tuple[PartState, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    queues: Mapping[str, int | None] = field(default_factory=dict)
    slots: Mapping[str, Mapping[str, tuple[int, int]]] = field(default_factory=dict)
    tasks: tuple[Task, ...] = ()
    flow_runs: tuple[FlowRun, ...] = ()
    waiting: tuple[Waiting, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether all that should run does."""
        return all(part.healthy for part in self.parts)


def look(settings: Config, pools: WorkPools, standing: Standing | None) -> Overview:
    """Ask all parts of the configuration and of `orca up`, side by side.

    Parameters
    ----------
    settings : Config
    pools : WorkPools
    standing : Standing or None
        What `orca up` started, whether or not its supervisor is alive.
    """
    known = list(standing.parts) if standing else []
    known += [each for each in _configured(settings) if each.kind not in {part.kind for part in known}]
    names = [pool_name(settings.queue.prefix, pool) for pool in pools.pools]
    addresses = {each.kind: each.address for each in known if each.address}
    tls = settings.network.tls
    asked: dict[str, Callable[[str], Answer]] = {
        "server": lambda url: questions.ask_server(url, names, tls),
        "redis": lambda uri: questions.ask_redis(SecretUri(uri)),
        "rabbitmq": lambda uri: _ask_broker(settings, uri, names),
        "metrics": lambda url: questions.ask_metrics(url, tls),
        "scheduler": lambda address: questions.ask_scheduler(address, security(settings, address)),
    }
    with ThreadPoolExecutor(len(asked)) as threads:
        waiting = {kind: threads.submit(asked[kind], address) for kind, address in addresses.items()}
        supervised = _supervised(standing) if standing else {}
        answers = {kind: answer.result() for kind, answer in waiting.items()}
    workers = {each["name"]: each for each in _facts(answers, "scheduler", "workers", [])}
    flow_workers = _facts(answers, "server", "workers", {})
    if any(each.kind == "trigger" for each in known):
        answers["trigger"] = _ask_trigger(settings)
    parts = [_part(each, answers.get(each.kind), supervised, workers, flow_workers) for each in known]
    return Overview(
        parts=tuple(parts),
        left_out=standing.left_out if standing else {},
        queues=_facts(answers, "rabbitmq", "queues", {}),
        slots=_slots(workers),
        tasks=tuple(task for worker in workers.values() for task in _tasks(worker)),
        flow_runs=tuple(_flow_run(run) for run in _facts(answers, "server", "flow_runs", [])),
        waiting=_waiting(answers),
    )


def _ask_broker(settings: Config, uri: str, queues: list[str]) -> Answer:
    from orca.events.health import ask_broker  # with kombu, for which others need not wait

    return ask_broker(settings, SecretUri(uri), queues)


def _ask_trigger(settings: Config) -> Answer:
    from orca.events.state import read_state

    state = read_state(settings)
    if state is None:
        return Answer(False, problem="has not told anything for a while")
    if state["doing"] != "takes messages":
        return Answer(False, problem=f"{state['doing']} ({state['problem']})" if state["problem"] else state["doing"])
    return Answer(True, facts={"trigger": state})


STARTING_S = 30.0
"""How long after its start a part that does not answer yet is nothing to worry about."""


def _configured(settings: Config) -> list[Known]:
    """Parts that run elsewhere, by the configuration, and the server that `orca run` left."""
    own = server.find(settings.prefect.home)
    found: dict[str, str | SecretUri | None] = {
        "redis": settings.queue.result_backend_uri and result_backend_uri(settings),
        "rabbitmq": settings.queue.broker_uri and broker_uri(settings),
        "server": api_url(settings) if settings.prefect.api_url else None if own is None else own.url,
        "scheduler": settings.dask.address and dask_address(settings),
    }
    return [
        Known(kind, kind, address.reveal() if isinstance(address, SecretUri) else address)
        for kind, address in found.items()
        if address
    ]


def _supervised(standing: Standing) -> dict[str, dict[str, Any]]:
    """What supervisord says of each part; empty where it does not answer."""
    try:
        with supervision.connected(standing.folder) as supervisor:
            told = {each["name"]: each for each in supervisor.getAllProcessInfo()}
    except InfrastructureError:
        return {}
    restarts = supervision.restarts(standing.folder)
    return {name: {**each, "restarts": restarts[name]} for name, each in told.items()}


def _facts(answers: Mapping[str, Answer], kind: str, fact: str, nothing: Any) -> Any:
    return answers[kind].facts.get(fact, nothing) if kind in answers else nothing


def _part(
    known: Known,
    answer: Answer | None,
    supervised: Mapping[str, dict[str, Any]],
    workers: Mapping[str, dict[str, Any]],
    flow_workers: Mapping[str, list[dict[str, Any]]],
) -> PartState:
    process = supervised.get(known.name)
    running = process is not None and process["statename"] == "RUNNING"
    if answer is not None:
        healthy, state = answer.healthy, answer.problem or "healthy"
    elif known.kind == "workers":
        worker = workers.get(known.name)
        healthy = worker is not None
        state = "unknown to the scheduler" if worker is None else worker["node"].get("reason") or worker["status"]
    elif known.kind == "flow-workers":
        healthy = _online(flow_workers.get(known.pool, []), f"{known.host}-{known.pool}", process)
        state = "online" if healthy else "not online in Prefect"
    else:
        healthy, state = running, "runs" if running else "does not run"
    if running and not healthy and process and time.time() - process["start"] < STARTING_S:
        state = f"starting ({state})"
    if process is not None and not running:
        healthy, state = healthy and answer is not None, _not_running(process)
    return PartState(
        name=known.name,
        kind=known.kind,
        address=str(SecretUri(known.address)).partition("?")[0],
        version=answer.version if answer else _version(known, workers),
        healthy=healthy,
        state=state,
        since=float(process["start"]) if process and running else None,
        restarts=process["restarts"] if process else None,
        pid=process["pid"] if process and running else None,
        log=process["stdout_logfile"] if process else "",
    )


def _not_running(process: dict[str, Any]) -> str:
    words = {"STARTING": "starting", "BACKOFF": "ended at once, is tried again", "FATAL": "ended too often"}
    return words.get(process["statename"], process["statename"].lower())


def _version(known: Known, workers: Mapping[str, dict[str, Any]]) -> str:
    return str(workers[known.name]["node"].get("version", "")) if known.name in workers else ""


def _online(workers: list[dict[str, Any]], name: str, process: dict[str, Any] | None) -> bool:
    """Whether Prefect has heard of the worker, and since its process began."""
    began = process["start"] if process else 0
    return any(
        worker["name"] == name and worker["status"] == "ONLINE" and (_time(worker["last_heartbeat_time"]) or 0) >= began
        for worker in workers
    )


def _slots(workers: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, tuple[int, int]]]:
    slots: dict[str, dict[str, tuple[int, int]]] = {}
    for worker in workers.values():
        for pool, offered in worker["slots"].items():
            if pool not in POOLS:  # memory is a resource as well
                continue
            nodes = slots.setdefault(pool, {})
            used, all_of_them = nodes.get(_host(worker), (0, 0))
            nodes[_host(worker)] = (used + int(worker["used"].get(pool, 0)), all_of_them + int(offered))
    return slots


def _host(worker: dict[str, Any]) -> str:
    return str(worker["node"].get("host") or worker["name"].rpartition("-")[0] or worker["name"])


def _tasks(worker: dict[str, Any]) -> list[Task]:
    told = {task: rest for task, *rest in worker["node"].get("running", ())}
    found = []
    for each in worker["processing"]:
        since, unit, step = told.get(each["task"], (None, "", ""))
        pools = tuple(name for name in each["pools"] if name in POOLS)
        found.append(Task(each["task"], pools, _host(worker), worker["name"], since, unit, step))
    return found


def _flow_run(run: dict[str, Any]) -> FlowRun:
    since = _time(run.get("start_time") or (run.get("state") or {}).get("timestamp"))
    return FlowRun(run["name"], run.get("work_pool_name") or "", run.get("state_name") or "", since, run["id"])


def _waiting(answers: Mapping[str, Answer]) -> tuple[Waiting, ...]:
    pools, workers = _facts(answers, "server", "pools", {}), _facts(answers, "server", "workers", {})
    late = _facts(answers, "server", "late", {})
    return tuple(
        Waiting(name, each["count"], _time(each["since"]), why_late(pools[name], workers[name], each))
        for name, each in late.items()
    )


def why_late(pool: dict[str, Any], workers: list[dict[str, Any]], late: dict[str, Any]) -> str:
    """What keeps flow runs from beginning."""
    limit = pool.get("concurrency_limit")
    if pool.get("is_paused"):
        return f"the pool is paused (`prefect work-pool resume {pool['name']}`)"
    if not any(worker["status"] == "ONLINE" for worker in workers):
        return "no flow worker of the pool is online"
    if limit is not None and late["running"] >= limit:
        return f"the pool runs {late['running']} at once, as many as it may"
    if late["state"] == "AwaitingConcurrencySlot":
        return "their deployment runs as often at once as it may"
    return ""


def _time(text: str | None) -> float | None:
    return None if text is None else datetime.fromisoformat(text).timestamp()


def age(since: float | None) -> str:
    """How long ago in short: 12 s, 5 min, 3 h, 4 d."""
    return "" if since is None else duration(max(0.0, time.time() - since))


def duration(seconds: float) -> str:
    """A time span in short, in the largest unit that it has two of."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
