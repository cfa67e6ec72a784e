"""What is in the cache, and whether a day of the telescope has room in it."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field

from orca.cache.entry import Label, keys_begin, label_of
from orca.cache.spectra import SpectrumCache
from orca.cache.store import Kept, Room
from orca.telescope import INTEGRATION_S, N_CHANNELS, SUBBANDS

SETS_A_DAY = round(86400 / INTEGRATION_S * len(SUBBANDS))
SPECTRA = 6
"""Of each Measurement Set, as the telescope makes them."""
SAMPLES_BYTES = N_CHANNELS * 4 * 4
"""Of one spectrum: four correlations of float32."""
STORED_BYTES = 3680
"""What one takes in Redis, key and overhead included, while there is none to look at."""
_SAMPLE = 200


@dataclass(frozen=True)
class KindStatistics:
    """The entries of one kind.

    Attributes
    ----------
    kind : str
    entries : int
    subbands : int
    first_s, last_s : float
        Centres of the first and last integration, MJD seconds.
    stored_bytes : int
        With keys and overhead, from a sample.
    oldest_s, youngest_s : float or None
        Since they were put, from a sample.
    """

    kind: str
    entries: int
    subbands: int
    first_s: float
    last_s: float
    stored_bytes: int
    oldest_s: float | None
    youngest_s: float | None


@dataclass(frozen=True)
class DayNeed:
    """What a full day of the telescope needs.

    Attributes
    ----------
    entries : int
    samples_bytes, stored_bytes : int
        Without, and with headers, keys and overhead.
    held_bytes : int
        Of the latter what is there at a time, since entries expire.
    """

    entries: int
    samples_bytes: int
    stored_bytes: int
    held_bytes: int


@dataclass(frozen=True)
class Statistics:
    """The cache as one user sees it.

    Attributes
    ----------
    room : Room
        Of all users.
    kinds : tuple of KindStatistics
    put, asked, found, broken : int
        Entries of this user, until nothing was asked for during the time after which entries expire.
    expire_s : float
    day : DayNeed
    """

    room: Room
    kinds: tuple[KindStatistics, ...]
    put: int
    asked: int
    found: int
    broken: int
    expire_s: float
    day: DayNeed

    @property
    def entries(self) -> int:
        """Of this user."""
        return sum(kind.entries for kind in self.kinds)

    @property
    def hit_rate(self) -> float | None:
        """Share of what was asked for that was there; None if nothing was."""
        return self.found / self.asked if self.asked else None


@dataclass
class _Kind:
    """What is known of a kind while keys pass by; a sample of these is kept, each as likely."""

    entries: int = 0
    first_s: float = float("inf")
    last_s: float = float("-inf")
    subbands: set[str] = field(default_factory=set)
    sample: list[str] = field(default_factory=list)

    def add(self, key: str, label: Label, chance: random.Random) -> None:
        self.entries += 1
        self.first_s, self.last_s = min(self.first_s, label.time_s), max(self.last_s, label.time_s)
        self.subbands.add(label.subband)
        if len(self.sample) < _SAMPLE:
            self.sample.append(key)
        elif (place := chance.randrange(self.entries)) < _SAMPLE:
            self.sample[place] = key


def statistics(cache: SpectrumCache) -> Statistics:
    """Look at all keys of the user, and at a sample of the entries.

    Raises
    ------
    CacheAwayError
        The cache does not answer.
    """
    found: dict[str, _Kind] = defaultdict(_Kind)
    chance = random.Random(0)
    for key in cache.store.keys(keys_begin(cache.prefix)):
        label = label_of(cache.prefix, key)
        if label is not None:
            found[label.kind].add(key, label, chance)
    kinds = tuple(_of_kind(cache, kind, each) for kind, each in sorted(found.items()))
    counts = cache.store.counted(cache.counters)
    asked = {name: counts.get(name, 0) for name in ("put", "asked", "found", "broken")}
    return Statistics(cache.store.room(), kinds, **asked, expire_s=cache.expire_s, day=day_need(cache.expire_s, kinds))


def _of_kind(cache: SpectrumCache, kind: str, found: _Kind) -> KindStatistics:
    kept: list[Kept] = [each for each in cache.store.look(found.sample) if each is not None]
    stored = sum(each.stored_bytes for each in kept) / len(kept) if kept else 0.0
    ages = [cache.expire_s - each.left_s for each in kept]
    return KindStatistics(
        kind,
        found.entries,
        len(found.subbands),
        found.first_s,
        found.last_s,
        round(found.entries * stored),
        max(ages, default=None),
        min(ages, default=None),
    )


def day_need(expire_s: float, kinds: tuple[KindStatistics, ...] = ()) -> DayNeed:
    """What a full day of the telescope needs where entries expire after so long, by the size of those there are."""
    entries = sum(kind.entries for kind in kinds)
    each = sum(kind.stored_bytes for kind in kinds) / entries if entries else STORED_BYTES
    wanted = SPECTRA * SETS_A_DAY
    stored = wanted * each
    return DayNeed(wanted, wanted * SAMPLES_BYTES, round(stored), round(stored * min(1.0, expire_s / 86400)))
