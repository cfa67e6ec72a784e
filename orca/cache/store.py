"""What the two kinds of cache have in common: bytes under keys for a limited time, and a few figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Room:
    """What all users together take.

    Attributes
    ----------
    kind : str
        ``redis`` or ``folder``.
    where : str
        Address without user and password, or folder.
    used_bytes, peak_bytes : int
    limit_bytes : int or None
        None: none but that of the machine.
    when_full : str
        What happens at the limit.
    version : str
        Of the software behind it.
    """

    kind: str
    where: str
    used_bytes: int
    peak_bytes: int
    limit_bytes: int | None
    when_full: str
    version: str


@dataclass(frozen=True)
class Kept:
    """One entry as the store has it.

    Attributes
    ----------
    value_bytes : int
    stored_bytes : int
        With key and overhead.
    left_s : float
        Until it expires.
    """

    value_bytes: int
    stored_bytes: int
    left_s: float


class Store(Protocol):
    """Bytes under keys. Every method raises CacheAwayError when the store does not answer, is full or refuses.

    Attributes
    ----------
    where : str
        For messages: without user and password.
    """

    where: str

    def put(self, items: Sequence[tuple[str, bytes]], expire_s: float) -> None:
        """Keep values, in one round trip; older ones are replaced."""

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values, None where there is none, in one round trip."""

    def keys(self, begin: str) -> Iterator[str]:
        """All keys with a beginning, in no order; one that comes or goes meanwhile may be among them or not."""

    def delete(self, keys: Sequence[str]) -> int:
        """Forget, and say how many there were."""

    def look(self, keys: Sequence[str]) -> list[Kept | None]:
        """What entries take and how long they stay; None where there is none."""

    def count(self, name: str, more: Mapping[str, int], expire_s: float) -> None:
        """Add to counters; they are forgotten when nothing is added for so long."""

    def counted(self, name: str) -> dict[str, int]:
        """The counters."""

    def room(self) -> Room:
        """What all users together take."""

    def close(self) -> None:
        """Let go."""
