"""The spectrum cache: put, get, list and delete spectra that expire by themselves, in Redis or in a folder."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self, TypeVar

from orca.cache.entry import Entry, Label, belongs, decode, encode, key_of, keys_begin, label_of
from orca.cache.store import Store
from orca.errors import CacheAwayError, InputError, InvalidDataError

T = TypeVar("T")

PATIENCE_S = 10.0
AT_ONCE = 256
"""Spectra of one round trip; 0.8 MB of 192 channels."""
_WAITS_S = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Between two tries; the last one goes on."""


class SpectrumCache:
    """The entries of one user. For one thread; every process opens its own.

    What is written is there for `expire_s`, unless the cache is emptied before. A cache that does not answer, or is
    full, is asked again for `patience_s`; then it is an error, and the next call asks once only, until it succeeds.

    Parameters
    ----------
    store : Store
        See `open`.
    prefix : str
        Of the user.
    expire_s : float
    patience_s : float
    """

    def __init__(self, store: Store, prefix: str, expire_s: float, patience_s: float = PATIENCE_S) -> None:
        keys_begin(prefix)
        if expire_s <= 0:
            raise InputError(f"entries cannot expire after {expire_s} s", remedy="Give more than 0")
        self.store, self.prefix, self.expire_s = store, prefix, expire_s
        self._patience_s = patience_s
        self._tired = False
        self._counts: Counter[str] = Counter()

    @classmethod
    def open(cls, where: str | Path, prefix: str, expire_s: float, patience_s: float = PATIENCE_S) -> Self:
        """The cache at an address of Redis, or in a folder.

        Parameters
        ----------
        where : str or Path
            ``redis://:password@host:6379/1``, ``rediss://...``, or a folder.
        prefix : str
            Of the user; others' entries are neither seen nor touched.
        expire_s : float
            Entries are dropped so long after they were put.
        patience_s : float
            How long a cache that is away is asked again.

        Raises
        ------
        InputError, ConfigError
            Prefix or address cannot be.
        CacheAwayError
            The folder cannot be used. (Redis is first asked when something is wanted from it.)
        """
        store: Store
        if "://" in str(where):
            from orca.cache.redis_store import RedisStore

            store = RedisStore(str(where))
        else:
            from orca.cache.folder_store import FolderStore

            store = FolderStore(Path(where))
        return cls(store, prefix, expire_s, patience_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave word of what was asked for and found, for `orca cache stats`, and let go."""
        counts, self._counts = self._counts, Counter()
        try:
            if counts:
                with suppress(CacheAwayError):
                    self.store.count(self.counters, counts, self.expire_s)
        finally:
            self.store.close()

    @property
    def counters(self) -> str:
        """Under this name the store counts."""
        return f"{self.prefix}:spectrum-counts"

    def put_many(self, entries: Sequence[Entry]) -> None:
        """Keep spectra, all in one round trip. Doing it again changes nothing but when they expire.

        Raises
        ------
        CacheAwayError
            They are not, or not all, in the cache: keep them elsewhere (`orca.cache.Spill`).
        InputError
            A spectrum cannot be kept at all.
        """
        items = [(key_of(self.prefix, entry), encode(entry)) for entry in entries]
        if items:
            self._patiently(lambda: self.store.put(items, self.expire_s))
            self._counts["put"] += len(items)

    def get_many(self, keys: Sequence[str]) -> dict[str, Entry | None]:
        """The entries, None for one that is not there, or broken, or not what its key says.

        Raises
        ------
        CacheAwayError
            The cache does not answer.
        """
        found: dict[str, Entry | None] = {}
        for some in in_batches(keys, AT_ONCE):
            values = self._patiently(lambda some=some: self.store.get(some))  # type: ignore[misc]
            entries = {key: self._entry(key, value) for key, value in zip(some, values, strict=True)}
            there, usable = len(values) - values.count(None), sum(entry is not None for entry in entries.values())
            self._counts.update(asked=len(values), found=usable, broken=there - usable)
            found |= entries
        return found

    def keys(self, kind: str | None = None, first_s: float | None = None, last_s: float | None = None) -> list[str]:
        """Keys of the user's entries, sorted: of one kind by time, then by the name of the subband.

        Parameters
        ----------
        kind : str, optional
            Only those of this spectrum.
        first_s, last_s : float, optional
            Only those of integrations whose centre lies there, both ends included; MJD seconds.
        """
        low = float("-inf") if first_s is None else first_s - 5e-4  # keys hold milliseconds
        high = float("inf") if last_s is None else last_s + 5e-4
        begin = keys_begin(self.prefix, kind)

        def listed() -> list[str]:
            found = ((key, label_of(self.prefix, key)) for key in self.store.keys(begin))
            return sorted(key for key, label in found if label is not None and low <= label.time_s <= high)

        return self._patiently(listed)

    def label(self, key: str) -> Label:
        """What a key says. Raises InputError for one that is not this user's."""
        found = label_of(self.prefix, key)
        if found is None:
            raise InputError(f"{key!r} is no key of a spectrum of {self.prefix}")
        return found

    def delete(self, keys: Sequence[str]) -> int:
        """Drop entries of this user, and say how many there were; others are left alone."""
        own = [key for key in keys if label_of(self.prefix, key) is not None]
        return sum(self._patiently(lambda some=some: self.store.delete(some)) for some in in_batches(own, AT_ONCE))  # type: ignore[misc]

    def size(self) -> int:
        """How many entries the user has."""
        return len(self.keys())

    def _entry(self, key: str, value: bytes | None) -> Entry | None:
        """What a value holds, if that is what its key says."""
        try:
            entry = None if value is None else decode(value)
        except (InvalidDataError, UnicodeDecodeError):
            return None
        return entry if entry is not None and belongs(self.prefix, key, entry) else None

    def _patiently(self, action: Callable[[], T]) -> T:
        """Try again what may pass, for a bounded time."""
        end = time.monotonic() + (0.0 if self._tired else self._patience_s)
        tries = 0
        while True:
            try:
                result = action()
            except CacheAwayError as error:
                wait_s = _WAITS_S[min(tries, len(_WAITS_S) - 1)]
                if not error.may_pass or time.monotonic() + wait_s > end:
                    self._tired = True
                    raise
                time.sleep(wait_s)
                tries += 1
            else:
                self._tired = False
                return result


def in_batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Parts of a sequence, all but the last of this size."""
    return (items[start : start + size] for start in range(0, len(items), size))
