"""The queues of the pools: what is in them, and emptying them. Dead letters are in `orca.events.letters`.

All is asked for over AMQP, whose numbers are those of this moment; the management API adds what AMQP does not tell.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from kombu import Connection

from orca.cluster.pools import POOLS
from orca.config import Config
from orca.errors import InputError, OrcaError, RightsError
from orca.events import broker, letters, management, names
from orca.events.broker import connect
from orca.events.heads import Heads
from orca.events.health import waiting
from orca.events.letters import MOST_HELD, Letter
from orca.events.refusals import translated

Figures = dict[str, tuple[int | None, float | None]]
Tell = Callable[[str], None]


@dataclass(frozen=True)
class QueueState:
    """The queue of a pool.

    Attributes
    ----------
    name : str
    pool : str
        Empty for the queue of announcements.
    declared : bool
        Whether it is there.
    ready : int
        Messages that wait.
    unacknowledged : int or None
        Messages that consumers have and did not settle yet; None where the management API does not tell.
    dead : int
        Messages in its queue of dead letters.
    consumers : int
    rate_per_s : float or None
        Messages settled a second, mean of the last minute; None as above.
    oldest_s : float or None
        How long ago the oldest message that waits was published; None when none waits, or it does not say.
    looked_s : float or None
        How long ago that was looked up: 0 for now.
    problem : str
        Why something is not known.
    """

    name: str
    pool: str
    declared: bool
    ready: int = 0
    unacknowledged: int | None = None
    dead: int = 0
    consumers: int = 0
    rate_per_s: float | None = None
    oldest_s: float | None = None
    looked_s: float | None = None
    problem: str = ""


def overview(
    settings: Config,
    pools: Sequence[str] = POOLS,
    tell: Tell = lambda text: None,
    *,
    announcements: bool = False,
) -> list[QueueState]:
    """All queues at this moment.

    Parameters
    ----------
    settings : Config
    pools : sequence of str
    tell : callable
        Gets a line where a management API that the configuration names does not do; without one that is no matter.
    announcements : bool
        Also the queue of announcements that the trigger listens to.

    Raises
    ------
    BrokerAwayError, InfrastructureError, ConfigError
        As `orca.events.broker.connect` does.
    """
    uri = broker.broker_uri(settings)
    parts = urlsplit(uri.reveal())
    heads = Heads(settings, f"{parts.hostname}:{parts.port} {broker.vhost(uri)}")
    with connect(settings, confirm=True) as connection:
        told = _figures(settings, broker.vhost(uri), tell)
        states = [_state(connection, settings, pool, told, heads) for pool in pools]
        return [*states, _announcements(connection, settings, told)] if announcements else states


def _figures(settings: Config, vhost: str, tell: Tell) -> Figures:
    api = management.find(settings)
    try:
        return {} if api is None else management.figures(api, vhost)
    except OrcaError as error:
        if settings.queue.management_uri is not None:
            tell(str(error))
        return {}


def _state(connection: Connection, settings: Config, pool: str, told: Figures, heads: Heads) -> QueueState:
    prefix = settings.queue.prefix
    queue = names.queue(prefix, pool)
    with translated():
        found, dead = waiting(connection, queue), waiting(connection, names.dead(prefix, pool))
    if found is None:
        return QueueState(queue, pool, declared=False, dead=dead[0] if dead else 0, problem=broker_has_none(queue))
    (ready, consumers), (unacknowledged, rate) = found, told.get(queue, (None, None))
    now, problem, head = time.time(), "", None
    try:
        with translated(), connection.channel() as channel:
            head = heads.look(channel, names.exchange(prefix, pool), queue, ready)
    except RightsError as error:
        problem = f"age of the oldest: {error.problem}"
    return QueueState(
        name=queue,
        pool=pool,
        declared=True,
        ready=ready,
        unacknowledged=unacknowledged,
        dead=dead[0] if dead else 0,
        consumers=consumers,
        rate_per_s=rate,
        oldest_s=None if head is None or head.sent is None else max(0.0, now - head.sent),
        looked_s=None if head is None else max(0.0, now - head.looked),
        problem=problem,
    )


def _announcements(connection: Connection, settings: Config, told: Figures) -> QueueState:
    """The queue of announcements; its dead letters are among those of pool default."""
    queue = names.triggers(settings.queue.prefix)
    with translated():
        found = waiting(connection, queue)
    if found is None:
        return QueueState(queue, "", declared=False, problem=broker_has_none(queue))
    unacknowledged, rate = told.get(queue, (None, None))
    return QueueState(queue, "", True, found[0], unacknowledged, consumers=found[1], rate_per_s=rate)


def broker_has_none(queue: str) -> str:
    """In words: there is no such queue."""
    return f"there is no queue {queue}: `orca events setup` makes it"


def dead_counts(settings: Config, pools: Sequence[str] = POOLS) -> dict[str, int]:
    """How many dead letters the queues of the pools have; none are looked at.

    Raises
    ------
    RightsError, BrokerAwayError, InfrastructureError, ConfigError
        As `orca.events.broker.connect` and `orca.events.refusals.translated` do.
    """
    with connect(settings) as connection, translated():
        found = {pool: waiting(connection, names.dead(settings.queue.prefix, pool)) for pool in pools}
        return {pool: state[0] if state else 0 for pool, state in found.items()}


def peek(settings: Config, pool: str, count: int) -> list[Letter]:
    """The messages at the head of a queue, in their order; they stay there.

    RabbitMQ counts it as a delivery of each; see `orca.events.letters.look`.

    Parameters
    ----------
    settings : Config
    pool : str
    count : int
        Not more than `orca.events.letters.MOST_HELD`.

    Raises
    ------
    InputError
        Too many are wanted.
    RightsError, BrokerAwayError, InfrastructureError, ConfigError
        As `orca.events.broker.connect` and `orca.events.refusals.translated` do.
    """
    if not 1 <= count <= MOST_HELD:
        raise InputError(f"{count} messages cannot be looked at", remedy=f"From 1 to {MOST_HELD} at once can")
    exchange, queue = names.exchange(settings.queue.prefix, pool), names.queue(settings.queue.prefix, pool)
    with connect(settings, confirm=True) as connection, translated(), connection.channel() as channel:
        seen = letters.look(channel, exchange, queue, count)
        return [letters.read(message, pool, number) for number, message in enumerate(seen, 1)]


def purge(settings: Config, pool: str) -> int:
    """Remove all messages that wait in a queue, and return how many; those that consumers have stay theirs.

    Raises
    ------
    RightsError, BrokerAwayError, InfrastructureError, ConfigError
        As `orca.events.broker.connect` and `orca.events.refusals.translated` do.
    """
    with connect(settings) as connection, translated(), connection.channel() as channel:
        return int(channel.queue_purge(names.queue(settings.queue.prefix, pool)))


def delete(settings: Config, pool: str, *, force: bool = False) -> list[str]:
    """Delete the queue of a pool and its queue of dead letters, and return the names of those that were there.

    Parameters
    ----------
    settings : Config
    pool : str
    force : bool
        Also when there are messages or consumers. Without it, what comes in the moment of the deletion is lost, too:
        RabbitMQ has no such condition for quorum queues.

    Raises
    ------
    InputError
        There are messages or consumers.
    RightsError, BrokerAwayError, InfrastructureError, ConfigError
        As `orca.events.broker.connect` and `orca.events.refusals.translated` do.
    """
    queues = [names.queue(settings.queue.prefix, pool), names.dead(settings.queue.prefix, pool)]
    with connect(settings) as connection, translated():
        found = {queue: state for queue in queues if (state := waiting(connection, queue)) is not None}
        for queue, (ready, consumers) in found.items():
            if (ready or consumers) and not force:
                problem = f"queue {queue} has {ready} messages and {consumers} consumers"
                raise InputError(
                    problem,
                    remedy="Stop who uses it, empty it (`orca queues purge`, `orca queues dead drop`), or say --force",
                )
        for queue in found:
            with connection.channel() as channel:
                channel.queue_delete(queue)
        return list(found)
