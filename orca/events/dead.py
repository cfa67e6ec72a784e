"""Dead letters: what nobody could work with, shown, sent again, or dropped.

They lie in a classic queue, which does not count how often one was looked at, and puts it back where it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from kombu import Connection

from orca.cluster.pools import POOLS
from orca.config import Config
from orca.errors import InputError
from orca.events import names
from orca.events.broker import connect
from orca.events.health import waiting
from orca.events.letters import Letter, publish_again, read
from orca.events.message import MAX_ATTEMPTS, Message
from orca.events.refusals import translated


class Chosen:
    """Dead letters that are held while somebody decides on them; others are not shown them meanwhile.

    Made by `chosen`. What is neither sent again nor dropped stays where it was.

    Attributes
    ----------
    letters : list of Letter
    """

    def __init__(self, settings: Config, channel: Any) -> None:
        self.letters: list[Letter] = []
        self._prefix, self._channel, self._messages = settings.queue.prefix, channel, list[Any]()

    def add(self, letter: Letter, message: Any) -> None:
        """Hold one."""
        self.letters.append(letter)
        self._messages.append(message)

    def replay(self) -> Iterator[Letter]:
        """Publish each to the queue where it was first, and take it from the dead letters once the broker has it.

        One of ours goes with its attempt raised by one, since the same attempt means the same flow run. A crash in
        between leaves both, and the message runs once more.

        Yields
        ------
        Letter
            Each that was sent again.
        """
        for letter, message in zip(self.letters, self._messages, strict=True):
            with translated():
                publish_again(self._channel, message, _raised(letter), *self._home(letter))
                self._channel.basic_ack(message.delivery_tag)
            yield letter

    def _home(self, letter: Letter) -> tuple[str, str]:
        """Exchange and key that lead to where it was published to."""
        if letter.announcement:
            return "", names.triggers(self._prefix)
        return names.exchange(self._prefix, letter.pool), names.queue(self._prefix, letter.pool)

    def drop(self) -> None:
        """Remove them for good."""
        with translated():
            for message in self._messages:
                self._channel.basic_ack(message.delivery_tag)


def _raised(letter: Letter) -> bytes:
    if letter.attempt is None:
        return letter.body
    ours = Message.decode(letter.body)
    return ours.model_copy(update={"attempt": min(letter.attempt + 1, MAX_ATTEMPTS)}).encode()


@contextmanager
def chosen(
    settings: Config, ids: Sequence[str] | None, pools: Sequence[str] = POOLS, *, count: int | None = None
) -> Iterator[Chosen]:
    """Look through the dead letters, the oldest first, and hold some of them.

    Parameters
    ----------
    settings : Config
    ids : sequence of str or None
        Whole ids or their ends, of four characters or more; None for all.
    pools : sequence of str
    count : int, optional
        Look at no more than so many of each pool.

    Raises
    ------
    InputError
        There is no such dead letter, or an end fits several; nothing was done.
    RightsError, BrokerAwayError, InfrastructureError, ConfigError
        As `orca.events.broker.connect` and `orca.events.refusals.translated` do.
    """
    with connect(settings, confirm=True) as connection:
        with translated():
            channel = connection.channel()
            found = Chosen(settings, channel)
            for pool in pools:
                queue = names.dead(settings.queue.prefix, pool)
                for number, message in enumerate(islice(_waiting(connection, channel, queue), count), 1):
                    letter = read(message, pool, number)
                    if ids is None or any(_meant(letter, each) for each in ids):
                        found.add(letter, message)
        _check(ids or (), found.letters)
        yield found
        with translated():
            channel.close()  # so that all acknowledgements have arrived


def _waiting(connection: Connection, channel: Any, queue: str) -> Iterator[Any]:
    """What waits in a queue now: no more than that, since what is sent again may be back in a moment."""
    count, _ = waiting(connection, queue) or (0, 0)
    for _ in range(count):
        message = channel.basic_get(queue)
        if message is None:  # somebody else holds them
            return
        yield message


def _meant(letter: Letter, text: str) -> bool:
    return letter.id == text or (len(text) >= 4 and letter.id.endswith(text))


def _check(ids: Iterable[str], letters: Sequence[Letter]) -> None:
    for text in ids:
        known = {letter.id for letter in letters if _meant(letter, text)}
        if not known:
            raise InputError(f"there is no dead letter {text}", remedy="`orca queues dead ls` shows all")
        if len(known) > 1 and text not in known:
            raise InputError(f"{text} fits several dead letters: {', '.join(sorted(known))}", remedy="Give a whole id")
