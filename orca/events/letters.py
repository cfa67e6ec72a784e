"""Messages as somebody sees them who looks into a queue.

Anybody may have written what lies in a queue, so a message is only read here, never believed.
"""

from __future__ import annotations

import hashlib
import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import amqp  # type: ignore[import-untyped]
from amqp.exceptions import MessageNacked  # type: ignore[import-untyped]

from orca.errors import BrokerAwayError, InfrastructureError, MessageError
from orca.events import names
from orca.events.broker import PATIENCE_S
from orca.events.message import Message

REASON = "x-orca-reason"
"""Header of a dead letter in which the trigger says why it refused the message."""
REFUSED = "x-orca-refused"
"""And when, in ISO 8601."""
NOTED = (REASON, REFUSED, "x-death", "x-delivery-count")
"""Headers that tell what became of a message."""
SHORT = 8
"""Characters at the end of an id that tell it from others."""
MOST_HELD = 32
"""RabbitMQ puts more than that back in another order when the connection breaks."""
_KEPT = (
    "content_type",
    "content_encoding",
    "priority",
    "correlation_id",
    "reply_to",
    "message_id",
    "timestamp",
    "type",
)
_WORDS = {
    "delivery_limit": "taken and put back too often",
    "expired": "waited too long",
    "rejected": "refused without a reason",
    "maxlen": "there was no room in its queue",
}


@dataclass(frozen=True)
class Letter:
    """A message that was looked at.

    Attributes
    ----------
    number : int
        Place in its queue, from 1.
    pool : str
    id : str
        Its own; for a foreign body the property ``message_id``, or a part of the body's checksum.
    attempt : int or None
        None for what has none: an announcement, a foreign body.
    what : str
        Deployment, path or announcement; for a foreign body why it is none of ours.
    sent : float or None
        Unix time at which it was published, by the publisher's clock.
    deliveries : int
        How often it was delivered before and came back.
    reason : str
        Why it is dead; empty for one that is not.
    died : float or None
        Unix time at which RabbitMQ gave it up, or the trigger refused it.
    announcement : bool
        Whether it belongs to `orca.events.names.triggers`, not to the pool.
    headers : dict
    body : bytes
    """

    number: int
    pool: str
    id: str
    attempt: int | None
    what: str
    sent: float | None
    deliveries: int
    reason: str
    died: float | None
    announcement: bool
    headers: dict[str, Any] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def short(self) -> str:
        """The end of its id, which commands take for the whole."""
        return self.id[-SHORT:]

    @property
    def age_s(self) -> float | None:
        """How long ago it was published, else how long ago it died; None where nothing tells."""
        since = self.sent if self.sent is not None else self.died
        return None if since is None else max(0.0, time.time() - since)


def read(message: Any, pool: str, number: int) -> Letter:
    """A message from the broker as a `Letter`."""
    body = message.body.encode() if isinstance(message.body, str) else bytes(message.body)
    headers = dict(message.headers or {})
    known, attempt, what, announcement = _content(body)
    reason, died = _death(headers)
    return Letter(
        number=number,
        pool=pool,
        id=known or _foreign_id(message, body),
        attempt=attempt,
        what=what,
        sent=sent(message),
        deliveries=deliveries(message),
        reason=reason,
        died=died,
        announcement=announcement,
        headers=headers,
        body=body,
    )


def _content(body: bytes) -> tuple[str, int | None, str, bool]:
    """Id, attempt, subject, and whether it is an announcement."""
    try:
        ours = Message.decode(body)
        return ours.id, ours.attempt, ours.subject, False
    except MessageError as error:
        foreign = f"foreign: {error}"
    from orca.events.announcements import Announcement  # with numpy, for which others need not wait

    try:
        told = Announcement.decode(body)
        return told.id, None, f"announcement {told.routing_key}", True
    except MessageError:
        return "", None, foreign, False


def sent(message: Any) -> float | None:
    """Unix time that its publisher gave it."""
    stamp = message.properties.get("timestamp")
    return float(stamp) if isinstance(stamp, int) else None


def deliveries(message: Any) -> int:
    """How often it came back to its quorum queue; 0 in a classic one, which does not count."""
    count = (message.headers or {}).get("x-delivery-count", 0)
    return count if isinstance(count, int) else 0


def _foreign_id(message: Any, body: bytes) -> str:
    named = message.properties.get("message_id")
    if isinstance(named, str) and re.fullmatch(r"[A-Za-z0-9._:-]{1,64}", named):
        return named
    return hashlib.sha256(body).hexdigest()[:16]


def _death(headers: dict[str, Any]) -> tuple[str, float | None]:
    """Why and when it died, by the trigger's header, else by RabbitMQ's."""
    deaths = headers.get("x-death")
    last = deaths[0] if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict) else {}
    when = last.get("time")
    died = when.replace(tzinfo=UTC).timestamp() if isinstance(when, datetime) else None
    if said := headers.get(REASON):
        return str(said), _moment(headers.get(REFUSED)) or died
    reason = str(last.get("reason", ""))
    return _WORDS.get(reason, reason), died


def _moment(text: Any) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (TypeError, ValueError):
        return None


def look(channel: Any, exchange: str, queue: str, count: int) -> list[Any]:
    """The messages at the head of a quorum queue; they are put back before this returns, in their order.

    RabbitMQ puts what comes back behind what came back before, and all that before what never was delivered. So for
    the order to stay, all that came back before is taken and put back as well; only where that is more than
    `MOST_HELD`, as it is when a consumer died with many, they change places.

    RabbitMQ counts looking like a consumer's failure. A message that has used up its deliveries would become a dead
    letter by it, so a copy of it is put at the end of its queue instead.

    Parameters
    ----------
    channel
        One with confirms.
    exchange, queue : str
        The queue, and an exchange that leads to it by its name.
    count : int
        So many at most, and not more than `MOST_HELD`.
    """
    taken: list[Any] = []
    while len(taken) < count or (deliveries(taken[-1]) and len(taken) < MOST_HELD):
        message = channel.basic_get(queue)
        if message is None:
            break
        taken.append(message)
    for message in taken:  # one by one: RabbitMQ sorts them otherwise
        if deliveries(message) < names.DELIVERY_LIMIT:
            channel.basic_reject(message.delivery_tag, requeue=True)
        else:
            publish_again(channel, message, message.body, exchange, queue)
            channel.basic_ack(message.delivery_tag)
    return taken[:count]


def publish_again(channel: Any, message: Any, body: bytes | str, exchange: str, key: str) -> None:
    """Publish a copy of a message with another body, and return when the broker has it in a queue.

    What the broker and the trigger had noted on it is left out. The channel has to be one with confirms.

    Raises
    ------
    BrokerAwayError
        The broker does not say that it has it.
    InfrastructureError
        The queue is full.
    amqp.ChannelError
        There is no such exchange, or it leads to no queue.
    """
    headers = {name: value for name, value in (message.headers or {}).items() if not _noted(name)}
    kept = {name: message.properties[name] for name in _KEPT if name in message.properties}
    copy = amqp.Message(body, application_headers=headers, delivery_mode=2, **kept)
    try:
        channel.basic_publish(copy, exchange, key, mandatory=True, confirm_timeout=PATIENCE_S)
    except TimeoutError as error:
        remedy = "A disk or the memory of RabbitMQ may be full: see its log"
        raise BrokerAwayError("RabbitMQ did not confirm a message", remedy=remedy) from error
    except MessageNacked as error:
        raise InfrastructureError(f"queue {key} is full: RabbitMQ has refused the message") from error


def _noted(header: str) -> bool:
    return header in NOTED or header.startswith(("x-first-death-", "x-last-death-"))
