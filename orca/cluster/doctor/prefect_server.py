"""Prefect's server, as its API tells without Prefect being imported: version, pools, deployments, flow workers."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit

from orca.cluster import server
from orca.cluster.deployment_file import Deployment, read_deployments
from orca.cluster.doctor.finding import Check, Finding, first_line
from orca.cluster.doctor.site import Examined
from orca.cluster.machine import standing
from orca.cluster.machine.overview import why_late
from orca.cluster.machine.questions import ask_server, call_api
from orca.cluster.pools import WorkPools, pool_name
from orca.config import Config
from orca.config.secret import mask
from orca.errors import InfrastructureError, OrcaError

SECTION, WORKERS = "prefect", "flow-workers"
NONE_RUNS = "none is configured, and none runs here: `orca run` starts one when it is needed"


def checks(site: Examined) -> list[Check]:
    """Those of Prefect, and those of flow workers."""
    settings = site.settings
    if settings is None:
        return []
    url = address(settings)
    ours = [Check(SECTION, "environment", lambda: _environment(settings, url))]
    if url is None:
        nothing = [Finding(SECTION, "server", "note", NONE_RUNS, "orca up, where more than `orca run` is wanted")]
        nobody = [Finding(WORKERS, "flow workers", "note", "none are needed by `orca run`; `orca up` starts some")]
        return [*ours, Check(SECTION, "server", lambda: nothing), Check(WORKERS, "flow workers", lambda: nobody)]
    ours.append(Check(SECTION, "server", lambda: _server(settings, url)))
    if not _stands(settings):  # what `orca run` has started needs neither pools nor deployments nor flow workers
        nobody = [Finding(WORKERS, "flow workers", "note", "none are needed by `orca run`; `orca up` starts some")]
        return [*ours, Check(WORKERS, "flow workers", lambda: nobody)]
    if site.pools is not None:
        pools = site.pools
        ours.append(Check(SECTION, "pools", lambda: _pools(settings, pools, url)))
        ours.append(Check(WORKERS, "flow workers", lambda: _workers(settings, pools, url)))
    return [*ours, Check(SECTION, "deployments", lambda: _deployments(settings, url))]


def address(settings: Config) -> str | None:
    """API of the server of the configuration, of `orca up`, or that `orca run` left; None where there is none."""
    try:
        if url := standing.api_url(settings):
            return url
        own = server.find(settings.prefect.home)
    except OrcaError:
        return None
    return None if own is None else own.url


def _stands(settings: Config) -> bool:
    """Whether the server is one of a cluster or of `orca up`."""
    try:
        return standing.api_url(settings) is not None
    except InfrastructureError:
        return False


def _environment(settings: Config, url: str | None) -> Iterator[Finding]:
    named = os.environ.get("PREFECT_API_URL")
    if named and url and named.rstrip("/") != url.rstrip("/"):
        seen = f"$PREFECT_API_URL is {mask(named)}: Prefect's own commands ask that one, and ORCA {url}"
        yield Finding(SECTION, "PREFECT_API_URL", "warning", seen, f"export PREFECT_API_URL={url}")
    if url is None or _goes_direct(url):
        return
    host = urlsplit(url).hostname
    seen = f"what is asked of {host} goes to a proxy (http_proxy)"
    yield Finding(SECTION, "proxy", "warning", seen, f"export no_proxy=$no_proxy,{host}")


def _goes_direct(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme not in urllib.request.getproxies() or bool(urllib.request.proxy_bypass(parts.hostname or ""))


def _server(settings: Config, url: str) -> Iterator[Finding]:
    tls = settings.network.tls
    if not url.rstrip("/").endswith("/api"):
        remedy = f"Set prefect.api_url to {url.rstrip('/')}/api"
        yield Finding(SECTION, "api_url", "warning", f"{url} does not end in /api", remedy)
    if tls is not None and url.startswith("http://") and settings.prefect.api_url is not None:
        seen = f"{url} talks no TLS although network.tls is set"
        yield Finding(SECTION, "api_url", "warning", seen, "https:// in prefect.api_url")
    try:
        call_api(url, "health", tls=tls)
        theirs = str(call_api(url, "admin/version", tls=tls))
    except (OSError, ValueError) as error:
        yield Finding(SECTION, "server", "error", f"{url} does not answer ({first_line(error)})", _start(settings))
        return
    ours = version("prefect")
    if theirs != ours:
        level = "error" if theirs.split(".")[:2] != ours.split(".")[:2] else "warning"
        seen = f"{url} runs Prefect {theirs}, and {ours} is installed here"
        remedy = "script/bootstrap on both, then restart the server: systemctl restart orca-server"
        yield Finding(SECTION, "server", level, seen, remedy)  # type: ignore[arg-type]
    else:
        yield Finding(SECTION, "server", "ok", f"{url}, Prefect {theirs}")
    yield _database(settings)


def _start(settings: Config) -> str:
    if settings.prefect.api_url is None:
        return "orca down, then orca up; its log: orca status --json"
    host = urlsplit(settings.prefect.api_url.reveal()).hostname
    return f"systemctl status orca-server on {host}, or mend prefect.api_url"


def _database(settings: Config) -> Finding:
    """By the configuration: the server itself keeps its database to itself."""
    if settings.prefect.database is not None:
        return Finding(SECTION, "database", "ok", f"PostgreSQL, {settings.prefect.database}")
    seen = f"SQLite in {settings.prefect.home}, by this configuration"
    if settings.dask.address is not None:
        remedy = "Set prefect.database to postgresql://user:password@host:5432/orca where the server runs"
        return Finding(SECTION, "database", "note", f"{seen}, which is for one machine", remedy)
    return Finding(SECTION, "database", "ok", seen)


def _pools(settings: Config, pools: WorkPools, url: str) -> Iterator[Finding]:
    tls = settings.network.tls
    try:
        there = {pool["name"]: pool for pool in call_api(url, "work_pools/filter", {}, tls=tls)}
    except (OSError, ValueError):  # another check says so
        return
    wrong = False
    for pool, wanted in pools.pools.items():
        name = pool_name(settings.queue.prefix, pool)
        seen, remedy = "", "orca pools apply"
        found = there.get(name)
        if found is None:
            seen = f"Prefect has no work pool {name}"
        elif found["type"] != wanted.worker:
            seen = f"work pool {name} is of type {found['type']}, not {wanted.worker}"
            remedy = f"prefect work-pool delete {name}; then orca pools apply, and orca deploy"
        elif found.get("concurrency_limit") != wanted.runs:
            seen = f"work pool {name} runs {found.get('concurrency_limit') or 'any number'} at once, not {wanted.runs}"
        elif found.get("is_paused"):
            seen, remedy = f"work pool {name} is paused", f"prefect work-pool resume {name}"
        if seen:
            wrong = True
            broken = found is None or found["type"] != wanted.worker
            yield Finding(SECTION, "pools", "error" if broken else "warning", seen, remedy)
    if not wrong:
        yield Finding(SECTION, "pools", "ok", f"as {pools.path} says: {', '.join(pools.pools)}")


def _deployments(settings: Config, url: str) -> Iterator[Finding]:
    prefix, wrong = settings.queue.prefix, 0
    wanted = read_deployments()
    for entry in wanted:
        name = f"{entry.flow}/{pool_name(prefix, entry.name)}"
        try:
            found = call_api(url, f"deployments/name/{quote(name)}", tls=settings.network.tls)
        except HTTPError as error:
            if error.code != 404:
                return
            wrong += 1
            yield Finding(SECTION, "deployments", "error", f"Prefect has no deployment {name}", "orca deploy")
            continue
        except (OSError, ValueError):  # another check says so
            return
        if differs := _differing(entry, found, prefix):
            wrong += 1
            seen = f"deployment {name} has another {' and '.join(differs)} than the file"
            yield Finding(SECTION, "deployments", "warning", seen, "orca deploy --dry-run; then orca deploy")
        paused = [each["slug"] for each in found.get("schedules") or () if not each.get("active", True)]
        if paused:
            seen = f"schedule {', '.join(map(str, paused))} of {name} is paused"
            remedy = f"prefect deployment schedule ls {name}, then resume, if nobody paused it on purpose"
            yield Finding(SECTION, "schedules", "note", seen, remedy)
    if not wrong:
        yield Finding(SECTION, "deployments", "ok", f"{len(wanted)}, as deployments/prefect.yaml says")


def _differing(entry: Deployment, found: dict[str, Any], prefix: str) -> list[str]:
    """What can be compared without importing the flows; `orca deploy --dry-run` compares all."""
    limit = found.get("global_concurrency_limit") or {}
    facts = {
        "entrypoint": (found.get("entrypoint"), entry.entrypoint),
        "work pool": (found.get("work_pool_name"), pool_name(prefix, entry.work_pool.name)),
        "set of parameters": (found.get("parameters") or {}, entry.parameters),
        "number of flow runs at once": (limit.get("limit"), entry.concurrency_limit and entry.concurrency_limit.limit),
        "set of schedules": (
            sorted(str(each.get("slug")) for each in found.get("schedules") or ()),
            sorted(each.slug for each in entry.schedules),
        ),
    }
    return [what for what, (now, to) in facts.items() if now != to]


def _workers(settings: Config, pools: WorkPools, url: str) -> Iterator[Finding]:
    names = {pool_name(settings.queue.prefix, pool): pool for pool in pools.pools}
    answer = ask_server(url, list(names), settings.network.tls)
    if not answer.healthy:  # another check says so
        yield Finding(WORKERS, "flow workers", "note", "not known, as Prefect's server does not answer")
        return
    left_out = _left_out(settings)
    for name in answer.facts["pools"]:
        online = [each["name"] for each in answer.facts["workers"][name] if each["status"] == "ONLINE"]
        if online:
            yield Finding(WORKERS, name, "ok", f"{', '.join(online)} online")
        elif left_out and (left_out & {"flow-workers", f"flow-worker-{names[name]}"}):
            yield Finding(WORKERS, name, "note", "none: `orca up` was told to start none", "orca up")
        else:
            seen = "none is online: no flow run of this pool begins"
            remedy = f"systemctl start orca-flows@{names[name]} on the machine of the flow workers, or orca up"
            yield Finding(WORKERS, name, "error", seen, remedy)
    for name, late in answer.facts["late"].items():
        why = why_late(answer.facts["pools"][name], answer.facts["workers"][name], late)
        if why:
            seen = f"{late['count']} flow runs wait since {late['since'][:16].replace('T', ' ')}: {why}"
            yield Finding(WORKERS, name, "warning", seen, "orca runs ls --state waiting")


def _left_out(settings: Config) -> set[str]:
    """Parts that `orca up` was told to leave out."""
    found = standing.standing(settings)
    return set() if found is None else set(found.left_out)
