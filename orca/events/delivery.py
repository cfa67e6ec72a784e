"""Messages that the trigger has in hand, and how it gives them back: acknowledged, or as dead letters."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import amqp  # type: ignore[import-untyped]

from orca.events import names
from orca.events.letters import REASON
from orca.events.state import TriggerState

log = logging.getLogger("orca.trigger")

ANNOUNCEMENTS = "events"
"""Instead of a pool, for what comes from the queue of announcements."""


@dataclass(eq=False)
class Delivery:
    """A message in hand.

    Attributes
    ----------
    pool : str
        Of its queue; `ANNOUNCEMENTS` for an announcement.
    message : amqp.Message
    waits_for : set of str
        Rules for which it has no flow run yet.
    """

    pool: str
    message: Any
    waits_for: set[str] = field(default_factory=set)
    settled: bool = False
    """Acknowledged, which must happen once."""

    @property
    def body(self) -> bytes:
        """As it was sent."""
        body = self.message.body
        return body.encode() if isinstance(body, str) else bytes(body)


class Settling:
    """Gives deliveries of one connection back.

    Parameters
    ----------
    channel
        That they came on.
    publisher
        Another one, with confirms.
    prefix : str
    state : TriggerState
        Counts what is refused.
    """

    def __init__(self, channel: Any, publisher: Any, prefix: str, state: TriggerState) -> None:
        self._channel, self._publisher, self._prefix, self._state = channel, publisher, prefix, state

    def done(self, delivery: Delivery, rule: str = "") -> None:
        """A rule is done with a delivery; when no other waits, it is acknowledged."""
        delivery.waits_for.discard(rule)
        if not delivery.waits_for and not delivery.settled:
            self._channel.basic_ack(delivery.message.delivery_tag)
            delivery.settled = True

    def refuse(self, delivery: Delivery, why: str) -> None:
        """Put a message to the dead letters with the reason, and only then acknowledge it."""
        if delivery.settled:
            return
        pool = "default" if delivery.pool == ANNOUNCEMENTS else delivery.pool
        queue = names.queue(self._prefix, pool)
        kept = {key: value for key, value in delivery.message.properties.items() if key != "application_headers"}
        headers = {
            **(delivery.message.headers or {}),
            REASON: why[:1000],
            "x-orca-refused": datetime.now(UTC).isoformat(),
        }
        headers.pop("x-delivery-count", None)
        dead = amqp.Message(delivery.message.body, application_headers=headers, **{**kept, "delivery_mode": 2})
        self._publisher.basic_publish(dead, names.dead_exchange(self._prefix, pool), queue, mandatory=True)
        delivery.waits_for.clear()
        self.done(delivery)
        self._state.refused += 1
        log.warning("refused a message of %s: %s", queue, why)
