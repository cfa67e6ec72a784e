"""How long the oldest message of a queue waits, found out without harm to it.

Only the message itself says when it was published, and RabbitMQ shows a message of a quorum queue to nobody without
counting it as delivered: at the delivery limit looking would make a dead letter of it. So the message at the head of a
queue is looked at `LOOKS` times at most. What was seen last is remembered, and told until the queue has moved.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from orca.cluster.machine.standing import run_folder, write_private
from orca.config import Config
from orca.disk import make_folder, storage_errors
from orca.errors import StorageError
from orca.events import letters, names

LOOKS = names.DELIVERY_LIMIT // 4
"""A message that came back so often is not looked at any more: the other deliveries are the consumers'."""


@dataclass(frozen=True)
class Head:
    """The message at the head of a queue, as it was seen last.

    Attributes
    ----------
    sent : float or None
        Unix time at which it was published; None where it does not say.
    deliveries : int
        How often it has been delivered, that look included.
    looked : float
        Unix time of the look.
    ready : int
        Messages that waited at the last question, with or without a look.
    """

    sent: float | None
    deliveries: int
    looked: float
    ready: int

    def still(self, ready: int) -> bool:
        """Whether it has to be told as it was: it was looked at often enough, and nothing left the queue since."""
        return self.deliveries >= LOOKS and ready >= self.ready


class Heads:
    """What was seen at the heads of queues, in a file of this user's.

    Parameters
    ----------
    settings : Config
    broker : str
        Address and vhost, which tell queues of the same name apart.
    """

    def __init__(self, settings: Config, broker: str) -> None:
        self._path, self._broker = run_folder(settings) / "heads.json", broker

    def look(self, channel: Any, exchange: str, queue: str, ready: int) -> Head | None:
        """The head of a queue in which messages wait; None when it is empty, or nothing can be remembered.

        Parameters
        ----------
        channel
            With confirms.
        exchange, queue : str
        ready : int
            Messages that wait.
        """
        known = self._read()
        key = f"{self._broker} {queue}"
        last = known.get(key)
        if ready == 0:
            head = None
        elif last is not None and last.still(ready):
            head = replace(last, ready=ready)
        elif not self._write(known):  # before the look: one that is not remembered may be one too many
            return None
        else:
            head = _seen(channel, exchange, queue, ready)
        if head != last:
            self._write({name: each for name, each in {**known, key: head}.items() if each is not None})
        return head

    def _read(self) -> dict[str, Head]:
        with suppress(OSError, ValueError, TypeError, AttributeError):
            return {name: Head(**values) for name, values in json.loads(self._path.read_text()).items()}
        return {}

    def _write(self, heads: dict[str, Head]) -> bool:
        try:
            make_folder(self._path.parent)
            with storage_errors(self._path):
                write_private(self._path, json.dumps({name: asdict(head) for name, head in heads.items()}, indent=1))
        except StorageError:
            return False
        return True


def _seen(channel: Any, exchange: str, queue: str, ready: int) -> Head | None:
    for message in letters.look(channel, exchange, queue, 1):
        return Head(letters.sent(message), letters.deliveries(message) + 1, time.time(), ready)
    return None
