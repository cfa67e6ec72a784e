"""What alarms are made of: each condition asked of the disks and services that know it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from orca.alarms import calibrations, conditions
from orca.alarms.alarm import Findings
from orca.alarms.conditions import Disk, Sighting
from orca.catch_up import find_missing
from orca.cluster import api
from orca.cluster.deployment_file import read_deployments
from orca.cluster.flow_runs import FlowRun, FlowRunBook
from orca.cluster.machine import questions, standing
from orca.cluster.machine.questions import Answer
from orca.cluster.pools import POOLS, WorkPools, load_pools, pool_name, this_host
from orca.cluster.security import security
from orca.config import Config, SecretUri
from orca.errors import InfrastructureError
from orca.reduction_options import ReductionOptions

CALIBRATION = "nightly-calibration"
FLOWS = (CALIBRATION, "bandpass", "delay")
SHARED = {"9p", "afs", "beegfs", "ceph", "cifs", "fuse.glusterfs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "smb3"}
"""Kinds of file systems that are the same on all machines."""
_SETTLE = timedelta(minutes=10)
_RUNS = 200
"""Flow runs of each of `FLOWS` that are looked at."""


def due(now: datetime) -> datetime | None:
    """When the nightly calibration was to begin last, by deployments/prefect.yaml; None where nothing schedules it."""
    schedules = [each for entry in read_deployments() if entry.name == CALIBRATION for each in entry.schedules]
    times = []
    for each in schedules:
        if each.interval is not None and each.anchor_date is not None:
            anchor, length = datetime.fromisoformat(each.anchor_date), timedelta(seconds=each.interval)
            times.append(anchor + math.floor((now - anchor) / length) * length)
    return max(times, default=None)


def recording(settings: Config, now: datetime) -> Findings:
    """See `orca.alarms.conditions.recording`; where no folder of raw data was ever named or made, nobody records."""
    minutes, last = settings.alarms.recording_minutes, due(now)
    nobody = settings.line_of("paths.raw") is None and not settings.paths.raw.exists()
    if minutes is None or last is None or nobody:
        return Findings("recording")
    return conditions.recording(settings.paths.raw, last, minutes, now)


def raw(settings: Config, now: datetime) -> Findings:
    """See `orca.alarms.conditions.raw_dying`."""
    margin_h, paths, lifetime_h = settings.alarms.raw_left_h, settings.paths, settings.limits.raw_lifetime_h
    if margin_h is None:
        return Findings("raw")
    lifetime = timedelta(hours=lifetime_h)
    missing = find_missing(paths.raw, paths.averaged, ReductionOptions().block, lifetime, _SETTLE, now)
    return conditions.raw_dying(missing, lifetime_h, margin_h, now)


def disks(settings: Config, up: Collection[str]) -> Findings:
    """See `orca.alarms.conditions.disks`: the file systems of the folders of `paths`, as this machine has them."""
    mark = settings.alarms.disk_share
    if mark is None:
        return Findings("disk")
    folders = [getattr(settings.paths, name) for name in type(settings.paths).model_fields]
    found = _disks([*folders, settings.prefect.home])
    return conditions.disks(found, this_host(), mark, settings.alarms.disk_clear_share, up)


def _disks(folders: list[Path]) -> list[Disk]:
    on: dict[int, list[Path]] = {}
    for folder in dict.fromkeys(folders):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        on.setdefault(there.stat().st_dev, []).append(folder)
    found = []
    for together in on.values():
        there = next(path for path in (together[0], *together[0].parents) if path.exists())
        state = os.statvfs(there)
        used, free = state.f_blocks - state.f_bfree, state.f_bavail
        # Only the topmost are named: what is below them is on the same disk.
        names = [str(each) for each in together if not set(each.parents) & set(together)]
        share = used / (used + free) if used + free else 0.0
        mount = _mount(there)
        host = "" if _kind_of(mount) in SHARED else this_host()
        found.append(Disk(mount, host, tuple(names), share, free * state.f_frsize))
    return found


def _mount(path: Path) -> str:
    path = path.resolve()
    return str(next(each for each in (path, *path.parents) if each.is_mount()))


def _kind_of(mount: str) -> str:
    """Kind of the file system that was mounted there last."""
    kinds = [each.fstype for each in psutil.disk_partitions(all=True) if each.mountpoint == mount]
    return kinds[-1] if kinds else ""


def dead_letters(settings: Config) -> Findings:
    """See `orca.alarms.conditions.dead_letters`."""
    mark = settings.alarms.dead_letters
    if mark is None or standing.broker_uri(settings) is None:
        return Findings("dead-letters")
    from orca.events.queues import dead_counts  # with kombu, for which others need not wait

    return conditions.dead_letters(dead_counts(settings), mark)


def calibration(settings: Config, now: datetime) -> Findings:
    """See `orca.alarms.calibrations.calibrations`; without a Prefect server by the tables alone."""
    hours = settings.alarms.calibration_hours
    if hours is None:
        return Findings("calibration")
    tables = calibrations.failed_tables(settings.paths.calibration, now - timedelta(hours=hours))
    if _api_url(settings) is None:
        return calibrations.calibrations(tables, ())
    book = FlowRunBook(settings)
    ended = [
        _ended(run, good)
        for flow in FLOWS
        for state, good in (("done", True), ("failed", False))
        for run in book.latest(_RUNS, states=(state,), flow=flow, since_h=hours + 24)
        if run.end is not None
    ]
    failed = [run for run in calibrations.failed_runs(ended) if run.end >= now - timedelta(hours=hours)]
    return calibrations.calibrations(tables, failed)


def _ended(run: FlowRun, good: bool) -> calibrations.Run:
    end = datetime.fromisoformat(str(run.end)).astimezone(UTC)
    begun = datetime.fromisoformat(run.start or str(run.end)).astimezone(UTC)
    given = run.parameters.get("day")
    day = date.fromisoformat(given) if given else begun.date()
    return calibrations.Run(run.flow, run.name, good, end, day, run.message)


def _api_url(settings: Config) -> str | None:
    try:
        return api.api_url(settings)
    except InfrastructureError:
        if settings.prefect.api_url is not None:
            raise
        return None


def sighting(settings: Config) -> Sighting:
    """What of the services, nodes and workers is there, for `orca.alarms.conditions.gone`."""
    pools = load_pools(standing.cluster_file(settings))
    names = [pool_name(settings.queue.prefix, pool) for pool in POOLS]
    url, scheduler = standing.api_url(settings), standing.dask_address(settings)
    broker, redis = standing.broker_uri(settings), standing.result_backend_uri(settings)
    asked: dict[str, Callable[[], Answer]] = {}
    if url is not None:
        asked["server"] = lambda: questions.ask_server(url, names, settings.network.tls)
    if scheduler is not None:
        asked["scheduler"] = lambda: questions.ask_scheduler(scheduler, security(settings, scheduler))
    if broker is not None:
        asked["rabbitmq"] = lambda: _ask_broker(settings, broker)
    if redis is not None:
        asked["redis"] = lambda: questions.ask_redis(redis)
    with ThreadPoolExecutor(4) as threads:
        waiting = {name: threads.submit(ask) for name, ask in asked.items()}
        answers = {name: answer.result() for name, answer in waiting.items()}
    return seen(settings, pools, answers)


def _ask_broker(settings: Config, uri: SecretUri) -> Answer:
    from orca.events.health import ask_broker

    return ask_broker(settings, uri)


def seen(settings: Config, pools: WorkPools, answers: dict[str, Answer]) -> Sighting:
    """What the answers of the services tell of nodes and workers.

    Parameters
    ----------
    settings : Config
    pools : WorkPools
    answers : dict
        Of those of ``server``, ``scheduler``, ``rabbitmq`` and ``redis`` that there should be.
    """
    there = {f"service {name}" for name, answer in answers.items() if answer.healthy}
    wanted, silent = {f"service {name}" for name in answers}, set[str]()
    listed = {"service", "node", "worker"}
    if (scheduler := answers.get("scheduler")) is not None:
        workers = {each["name"] for each in scheduler.facts.get("workers", ())}
        if not scheduler.healthy:
            silent |= {"node", "worker"}
        for host in pools.hosts:
            processes = {f"{host}-{number}" for number in range(len(pools.processes(host)))}
            wanted.add(f"node {host}")
            if processes & workers:  # of a node that is away its workers are not named as well
                there.add(f"node {host}")
                wanted |= {f"worker {name}" for name in processes}
        there |= {f"worker {name}" for name in workers}
    if (server := answers.get("server")) is None:
        listed.add("flow-worker")
    elif not server.healthy:
        silent.add("flow-worker")
    else:
        online = (each for found in server.facts["workers"].values() for each in found if each["status"] == "ONLINE")
        there |= {f"flow-worker {each['name']}" for each in online}
    if "rabbitmq" not in answers:
        listed.add("trigger")
    elif _trigger(settings) is not None:
        there.add("trigger")
    return Sighting(frozenset(there), frozenset(wanted), frozenset(silent), frozenset(listed))


def _trigger(settings: Config) -> Any:
    from orca.events.state import read_state

    return read_state(settings)
