"""Redis: reached, with a policy that loses nothing, and with room for the spectra of ten hours."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from orca.cluster.doctor.finding import Check, Finding
from orca.cluster.machine import standing
from orca.cluster.security import secured
from orca.config import Config, SecretUri
from orca.disk import free_bytes, readable
from orca.errors import InfrastructureError

SECTION = "redis"
PATIENCE_S = 3.0
FULL = 0.9
"""Share of maxmemory above which somebody should know."""


def checks(settings: Config) -> list[Check]:
    """One for each server, and one for a cache in a folder."""
    found = []
    servers = addresses(settings)
    for where, (uri, cache) in servers.items():
        found.append(Check(SECTION, where, partial(_server, settings, where, uri, cache)))
    if not isinstance(settings.cache.uri, SecretUri):
        found.append(Check(SECTION, "cache", lambda: _folder(settings)))
    if not servers:
        seen = "none is configured, and `orca up` has started none: results and spectra are kept in folders"
        found.append(Check(SECTION, "redis", lambda: [Finding(SECTION, "redis", "note", seen)]))
    return found


def addresses(settings: Config) -> dict[str, tuple[SecretUri, bool]]:
    """Address of each Redis server, by host and port, and whether the spectrum cache is there."""
    try:
        results = standing.result_backend_uri(settings)
    except InfrastructureError:  # the file of `orca up` is broken, which another check says
        results = None
    found: dict[str, tuple[SecretUri, bool]] = {}
    for uri, cache in ((results, False), (settings.cache.uri, True)):
        if isinstance(uri, SecretUri):
            parts = urlsplit(uri.reveal())
            where = f"{parts.hostname}:{parts.port or 6379}"
            found[where] = (uri, cache or found.get(where, (uri, False))[1])
    return found


def connected(settings: Config, uri: SecretUri) -> Any:
    """A client that does not wait for long."""
    import redis

    address = secured(uri, settings.network.tls)
    plain = address.reveal() if isinstance(address, SecretUri) else str(address)
    return redis.Redis.from_url(
        plain, socket_timeout=PATIENCE_S, socket_connect_timeout=PATIENCE_S, retry=None, decode_responses=True
    )


def _server(settings: Config, where: str, uri: SecretUri, cache: bool) -> Iterator[Finding]:
    import redis

    key = "cache.uri" if cache else "queue.result_backend_uri"
    try:
        with connected(settings, uri) as client:
            client.ping()
            info = client.info()
            saves = _saves(client)
    except redis.AuthenticationError as error:
        remedy = f"Check user and password in {key}"
        yield Finding(SECTION, where, "error", f"refuses the login ({error})", remedy)
        return
    except (redis.RedisError, OSError) as error:
        told = (str(error).splitlines() or [type(error).__name__])[0]
        remedy = f"systemctl start redis-server there (or orca up), or mend {key}"
        yield Finding(SECTION, where, "error", f"does not answer ({told})", remedy)
        return
    yield Finding(SECTION, where, "ok", f"Redis {info['redis_version']} answers")
    host, _, port = where.rpartition(":")
    cli = f"redis-cli -h {host} -p {port}{' --askpass' if uri.has_password else ''}"
    yield _policy(info, cli)
    yield from _memory(info, cli, settings.cache.expire_hours * 3600 if cache else None)
    yield from _persistence(info, cli, saves)


def _policy(info: dict[str, Any], cli: str) -> Finding:
    policy, limit = str(info.get("maxmemory_policy", "")), int(info.get("maxmemory", 0))
    if policy == "noeviction" or policy.startswith("volatile-"):
        return Finding(SECTION, "eviction policy", "ok", policy)
    seen = f"{policy}: at its limit Redis throws away what others still need"
    seen += "" if limit else ", once it has a limit (maxmemory is 0)"
    remedy = f"{cli} CONFIG SET maxmemory-policy noeviction, and in redis.conf"
    return Finding(SECTION, "eviction policy", "error" if limit else "warning", seen, remedy)


def _memory(info: dict[str, Any], cli: str, expire_s: float | None) -> Iterator[Finding]:
    """Against its limit, else against the memory of its machine."""
    used, limit = int(info["used_memory"]), int(info.get("maxmemory", 0))
    machine = int(info.get("total_system_memory", 0))
    room = limit or machine
    of = f"maxmemory {readable(limit)}" if limit else f"the machine's {readable(machine)}, as maxmemory is 0"
    seen = f"{readable(used)} used of {of}"
    level, remedy = "ok", ""
    if expire_s is not None:
        from orca.cache.statistics import day_need

        need = day_need(expire_s)
        seen += (
            f"; {expire_s / 3600:g} h of spectra need {readable(need.held_bytes)}, a day {readable(need.stored_bytes)}"
        )
        if room and need.held_bytes > room:
            level = "error" if limit else "warning"
            remedy = f"{cli} CONFIG SET maxmemory {-(-need.held_bytes * 13 // 10_000_000_000)}gb, and in redis.conf"
            remedy += "; or a smaller cache.expire_hours"
            seen += ": too little"
    if room and used > FULL * room:
        level, remedy = "warning" if level == "ok" else level, remedy or "orca cache stats; then raise maxmemory"
        seen += ": nearly full"
    yield Finding(SECTION, "memory", level, seen, remedy)  # type: ignore[arg-type]


def _saves(client: Any) -> str:
    """When Redis writes snapshots; empty for never, and where we may not know."""
    import redis

    try:
        return str(client.config_get("save").get("save", ""))
    except redis.ResponseError:
        return ""


def _persistence(info: dict[str, Any], cli: str, saves: str) -> Iterator[Finding]:
    """All that is kept there can be made again: writing it to disk costs, and a failure of that stops Redis."""
    if info.get("role") == "slave":
        remedy = "Name its master in the configuration"
        yield Finding(SECTION, "role", "error", "a replica, which takes no writes", remedy)
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        seen = "the last snapshot could not be written, and Redis refuses writes until one can"
        yield Finding(SECTION, "persistence", "error", seen, f'Free disk or memory there, or: {cli} CONFIG SET save ""')
    elif info.get("aof_enabled"):
        seen = "every write goes to its append-only file; nothing of ORCA's needs that"
        yield Finding(SECTION, "persistence", "note", seen, f"{cli} CONFIG SET appendonly no")
    elif saves:
        seen = f"snapshots are written (save {saves}), for which Redis forks; nothing of ORCA's needs them"
        yield Finding(SECTION, "persistence", "note", seen, f'{cli} CONFIG SET save ""')
    else:
        yield Finding(SECTION, "persistence", "ok", "off: what is kept there can be made again")


def _folder(settings: Config) -> Iterator[Finding]:
    from orca.cache.statistics import day_need

    folder = settings.cache.uri
    if isinstance(folder, SecretUri):
        return
    need = day_need(settings.cache.expire_hours * 3600)
    free = free_bytes(folder)
    hours = f"{settings.cache.expire_hours:g} h of the telescope"
    seen = f"{folder}: {readable(free)} free; {hours} need {readable(need.held_bytes)}"
    yield Finding(SECTION, "cache folder", "ok" if free > need.held_bytes else "note", seen)
