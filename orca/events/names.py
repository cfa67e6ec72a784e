"""What ORCA has at the broker, by name: exchanges, queues, and with which arguments.

::

    exchange <pool>       direct, key <pool>   -> queue <pool>        quorum, at most 20 redeliveries of a message
    exchange <pool>.dead  direct, key <pool>   -> queue <pool>.dead   classic, until somebody decides
    exchange <prefix>.events  topic            -> queue <prefix>.triggers, and whoever wants to hear what became ready

<pool> is `orca.cluster.pools.pool_name` of `queue.prefix` and a pool.
"""

from __future__ import annotations

from typing import Any

from orca.cluster.pools import pool_name

DELIVERY_LIMIT = 20


def exchange(prefix: str, pool: str) -> str:
    """Where messages for a pool are published, with `queue` of the same pool as routing key."""
    return pool_name(prefix, pool)


def queue(prefix: str, pool: str) -> str:
    """Where they wait."""
    return pool_name(prefix, pool)


def dead_exchange(prefix: str, pool: str) -> str:
    """Where those go that nobody could work with; the routing key stays."""
    return f"{exchange(prefix, pool)}.dead"


def dead(prefix: str, pool: str) -> str:
    """The queue in which those are kept."""
    return f"{queue(prefix, pool)}.dead"


def events_exchange(prefix: str) -> str:
    """The topic exchange of announcements: calibration.ready, image.ready, night.done and failures."""
    return f"{prefix}.events"


def triggers(prefix: str) -> str:
    """The queue of announcements that start something."""
    return f"{prefix}.triggers"


def lock(prefix: str) -> str:
    """The queue that only one trigger can have: RabbitMQ's exclusive ones live as long as their connection."""
    return f"{prefix}.trigger-lock"


def arguments(prefix: str, pool: str) -> dict[str, Any]:
    """Arguments of a pool's queue.

    Dead letters leave it only when the queue of dead letters has confirmed them (at-least-once). That needs
    reject-publish: a queue that is full refuses what comes, instead of dropping what it has.
    """
    return {
        "x-queue-type": "quorum",
        "x-delivery-limit": DELIVERY_LIMIT,
        "x-overflow": "reject-publish",
        "x-dead-letter-exchange": dead_exchange(prefix, pool),
        "x-dead-letter-routing-key": queue(prefix, pool),
        "x-dead-letter-strategy": "at-least-once",
    }


def triggers_arguments(prefix: str) -> dict[str, Any]:
    """Arguments of the queue of announcements; those that nobody can work with are dead letters of pool default."""
    return arguments(prefix, "default")


def dead_arguments() -> dict[str, Any]:
    """Arguments of a queue of dead letters.

    Classic, since a quorum queue counts how often a message was looked at and put back, and drops it at its delivery
    limit, which newer brokers have even where none is asked for. A letter that is looked at has to stay.
    """
    return {"x-queue-type": "classic"}
