"""RabbitMQ: reached, logged in, with the queues that are wanted; what lies in them, and what waits on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orca.cluster.doctor.finding import Check, Finding, failure
from orca.cluster.machine import standing
from orca.config import Config
from orca.errors import InfrastructureError, OrcaError, RightsError

SECTION = "broker"
CONNECT_S = 3.0
ANSWER_S = 4.0


def checks(settings: Config) -> list[Check]:
    """All of the section."""
    spool = Check(SECTION, "spool", lambda: _spool(settings))
    try:
        uri = standing.broker_uri(settings)
    except InfrastructureError:  # the file of `orca up` is broken, which another check says
        uri = None
    if uri is None:
        seen = "none is configured, and `orca up` has started none: nothing is started by messages"
        remedy = "Set queue.broker_uri, or: orca up"
        return [Check(SECTION, "rabbitmq", lambda: [Finding(SECTION, "rabbitmq", "note", seen, remedy)]), spool]
    return [
        Check(SECTION, "rabbitmq", lambda: _login(settings)),
        Check(SECTION, "queues", lambda: _queues(settings)),
        Check(SECTION, "management", lambda: _management(settings)),
        spool,
    ]


def _login(settings: Config) -> Iterator[Finding]:
    from orca.events import broker

    uri = broker.broker_uri(settings)
    with broker.connect(settings, patience_s=CONNECT_S) as connection:
        version = connection.connection.server_properties.get("version", "of an unknown version")
        seen = f"{version} at {broker.place(uri)}, user and vhost {broker.vhost(uri)} accepted"
        yield Finding(SECTION, "rabbitmq", "ok", seen)
    remote = not str(connection.hostname).startswith("127.") and connection.hostname not in ("localhost", "::1")
    if remote and uri.scheme != "amqps" and uri.has_password:
        seen = f"the password for {broker.place(uri)} crosses the network as it is"
        yield Finding(SECTION, "rabbitmq", "note", seen, "amqps:// in queue.broker_uri, with network.tls")


def _queues(settings: Config) -> Iterator[Finding]:
    """Nothing is said where the login fails: another check does."""
    from orca.events import broker

    try:
        differences = broker.setup(settings, dry_run=True)
    except RightsError as error:
        yield failure(SECTION, "queues", error, "note")
        return
    except OrcaError:
        return
    missing = [each.name for each in differences if each.state == "missing"]
    if missing:
        names = ", ".join(missing) if len(missing) <= 4 else f"{', '.join(missing[:3])} and {len(missing) - 3} more"
        yield Finding(SECTION, "queues", "error", f"missing at the broker: {names}", "orca events setup")
    for each in differences:
        if each.state == "differs":
            seen = f"{each.kind} {each.name} has {each.now}, not {each.wanted}"
            yield Finding(SECTION, "queues", "error", seen, each.remedy)
    if not differences:
        yield Finding(SECTION, "queues", "ok", "all exchanges and queues are as `orca events setup` wants them")
    yield from _contents(settings)


def _contents(settings: Config) -> Iterator[Finding]:
    from orca.cluster.pools import POOLS
    from orca.events import names
    from orca.events.broker import connect
    from orca.events.health import waiting
    from orca.events.refusals import translated

    prefix = settings.queue.prefix
    with connect(settings, patience_s=CONNECT_S) as connection, translated():
        for pool in POOLS:
            queue = names.queue(prefix, pool)
            ready, consumers = waiting(connection, queue) or (0, 0)
            if ready and not consumers:
                seen = f"{_messages(ready)} in {queue}, and nobody takes them"
                remedy = "orca trigger (systemctl start orca-trigger, or orca up)"
                yield Finding(SECTION, "queues", "warning", seen, remedy)
            if dead := (waiting(connection, names.dead(prefix, pool)) or (0, 0))[0]:
                seen = f"{_messages(dead)} in {names.dead(prefix, pool)} that could not be used"
                remedy = "orca queues dead ls; then orca queues dead replay, or drop"
                yield Finding(SECTION, "dead letters", "warning", seen, remedy)


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count} messages"


def _management(settings: Config) -> Iterator[Finding]:
    """Alarms, at which RabbitMQ takes no messages; only some users may see them."""
    from orca.events import management

    api = management.find(settings, answer_s=ANSWER_S)
    if api is None:
        return
    wanted = settings.queue.management_uri is not None
    try:
        nodes: list[dict[str, Any]] = api.call("nodes") or []
    except OrcaError as error:
        yield failure(
            SECTION, "management", error, "warning" if wanted and not isinstance(error, RightsError) else "note"
        )
        return
    alarms = {"mem_alarm": "memory", "disk_free_alarm": "disk"}
    found = [(node["name"], what) for node in nodes for key, what in alarms.items() if node.get(key)]
    for node, what in found:
        seen = f"{node} is short of {what} and takes no messages"
        remedy = "Free some there, or raise its limit: rabbitmqctl status, section alarms"
        yield Finding(SECTION, "alarms", "error", seen, remedy)
    stopped = [node["name"] for node in nodes if not node.get("running", True)]
    for name in stopped:
        yield Finding(
            SECTION, "alarms", "warning", f"node {name} of the broker does not run", "rabbitmqctl cluster_status"
        )
    if not found and not stopped:
        yield Finding(SECTION, "alarms", "ok", "none at the broker: it has memory and disk")


def _spool(settings: Config) -> Iterator[Finding]:
    """Messages that could not be sent."""
    from orca.events.spool import Spool

    folder = settings.paths.spool
    if not folder.is_dir():
        return
    spool = Spool(folder)
    waits, broken = len(spool.waiting()), len(spool.broken())
    if waits:
        seen = f"{_messages(waits)} in {folder}, kept while the broker was away"
        yield Finding(SECTION, "spool", "warning", seen, "orca events flush")
    if broken:
        yield Finding(
            SECTION,
            "spool",
            "warning",
            f"{broken} files that are no messages: {folder}/*.broken",
            "Look at them, and remove them",
        )
    if not waits and not broken:
        yield Finding(SECTION, "spool", "ok", f"nothing waits in {folder}")
