"""What was recorded and is not reduced, by names and manifests on disk; and what of it to ask for, in which order.

An integration is known by its name without .ms and .tar. Nothing here opens a Measurement Set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

from orca import naming, telescope
from orca.errors import DataError, InputError, MissingDataError
from orca.manifest import read_manifest
from orca.recordings import subbands_recorded
from orca.reduction import Block, finished_hours, plan_hours

ATTEMPTS = 3
"""How often a block is asked for in all."""
TOGETHER = 64
"""Blocks of one flow run at most."""
SPAN = timedelta(hours=1)
"""So far apart they may be, so that the oldest do not wait for younger ones."""


@dataclass(frozen=True)
class Missing:
    """A block that has to be reduced, or has to be reduced again as more of it has come.

    Attributes
    ----------
    block : Block
        With all integrations that are there.
    names : tuple of str
        Those of them that no product was made of.
    """

    block: Block
    names: tuple[str, ...]


@dataclass(frozen=True)
class Batch:
    """Blocks of similar age that one flow run is asked for.

    Attributes
    ----------
    attempt : int
        From 1.
    blocks : tuple of Block
        The oldest first.
    """

    attempt: int
    blocks: tuple[Block, ...]

    @property
    def sources(self) -> list[str]:
        """Paths of all that is to be reduced."""
        return [str(source) for block in self.blocks for source in block.sources]


@dataclass(frozen=True)
class Plan:
    """What becomes of what is missing.

    Attributes
    ----------
    coming : int
        How many blocks are on their way.
    batches : tuple of Batch
        What to ask for, the oldest first.
    given_up : tuple of Block
        What was asked for often enough.
    """

    coming: int
    batches: tuple[Batch, ...]
    given_up: tuple[Block, ...]


def find_missing(
    raw: Path, averaged: Path, size: int, lifetime: timedelta, settle: timedelta, now: datetime
) -> list[Missing]:
    """The blocks that lack a product, or integrations in it, those first that the recorder deletes first.

    Parameters
    ----------
    raw, averaged : Path
        Roots.
    size : int
        Integrations of a block.
    lifetime : timedelta
        Of raw data.
    settle : timedelta
        A block is left alone until so long after its last integration was recorded, and after what is missing came.
    now : datetime
        With a time zone.
    """
    first, last = _hour(now - lifetime), _hour(now)
    days = [_midnight(first) + timedelta(days=n) for n in range((last.date() - first.date()).days + 1)]
    missing: list[Missing] = []
    for band in sorted({band for day in days for band in subbands_recorded(raw, day)}):
        try:
            blocks = plan_hours(raw, averaged, size, first, last, [band])
        except MissingDataError:  # nothing in these hours
            continue
        for folder, of_hour in groupby(blocks, key=lambda block: block.prefix.parent):
            made = _made(folder)
            for block in of_hour:
                if names := _missing(block, made, now - settle):
                    missing.append(Missing(block, names))
    return sorted(missing, key=lambda each: (each.block.start, each.block.name))


def _made(folder: Path) -> set[str]:
    """What all products of an hour were made of, however that was cut into blocks."""
    made: set[str] = set()
    for path in folder.glob(f"*_block*{naming.MANIFEST_SUFFIX}"):
        try:
            made.update(naming.strip_suffix(entry.path) for entry in read_manifest(path).inputs)
        except DataError:  # broken, or gone: no product
            continue
    return made


def _missing(block: Block, made: set[str], settled: datetime) -> tuple[str, ...]:
    """Which integrations no product was made of; none while a part of it is so young that others may ask for it."""
    new = {name: source for source in block.sources if (name := naming.strip_suffix(source)) not in made}
    if not new or _end(block.sources[-1]) > settled:
        return ()
    came = {name: at for name, source in new.items() if (at := _came(source)) is not None}
    return () if any(at > settled.timestamp() for at in came.values()) else tuple(came)


def _end(source: Path) -> datetime:
    return naming.parse(source).observation.start + timedelta(seconds=telescope.INTEGRATION_S)


def _came(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # deleted or trashed meanwhile
        return None


class OnItsWay:
    """What flow runs that have not ended are about.

    Parameters
    ----------
    raw, averaged : Path
        Roots: flow runs with others do not count.
    """

    def __init__(self, raw: Path, averaged: Path) -> None:
        self._roots = {"raw": raw, "out": averaged}
        self._names: set[str] = set()
        self._spans: list[tuple[datetime, datetime, set[int], set[str]]] = []

    def add(self, parameters: Mapping[str, Any], begins: datetime) -> None:
        """Take note of a flow run of the reduction.

        Parameters
        ----------
        parameters : mapping
            Of the flow, as Prefect keeps them.
        begins : datetime
            When it began, or will.
        """
        if any(Path(parameters.get(key) or root) != root for key, root in self._roots.items()):
            return
        if given := parameters.get("measurement_sets"):
            self._names.update(map(naming.strip_suffix, given))
            return
        with suppress(InputError, ValueError):  # such a flow run fails
            bands = {telescope.subband(name).name for name in parameters.get("subbands") or ()}
            first, last = finished_hours(parameters.get("last_hours") or 24, begins)
            if day := parameters.get("day"):
                first = _midnight(date.fromisoformat(day))
                last = first.replace(hour=23)
            self._spans.append((first, last, set(parameters.get("hours") or ()), bands))

    def has(self, block: Block) -> bool:
        """Whether one of them is about a block, or a part of it."""
        start = _hour(block.start)
        return any(
            first <= start <= last and (not hours or start.hour in hours) and (not bands or block.subband in bands)
            for first, last, hours, bands in self._spans
        ) or any(naming.strip_suffix(source) in self._names for source in block.sources)


def plan(missing: Iterable[Missing], coming: OnItsWay, tried: Mapping[str, int]) -> Plan:
    """What of the missing blocks to ask for, and which of them in one flow run.

    Parameters
    ----------
    missing : blocks
        The oldest first.
    coming : OnItsWay
    tried : mapping
        How often an integration was asked for in vain. A block was as often as all that it lacks, so that one to which
        an integration came late is tried anew.
    """
    on_their_way = 0
    given_up: list[Block] = []
    batches: list[Batch] = []
    begun: dict[int, list[Block]] = {}
    for block, names in ((each.block, each.names) for each in missing):
        attempt = 1 + min(tried.get(name, 0) for name in names)
        if coming.has(block):
            on_their_way += 1
        elif attempt > ATTEMPTS:
            given_up.append(block)
        else:
            together = begun.setdefault(attempt, [])
            if together and (len(together) == TOGETHER or block.start - together[0].start > SPAN):
                batches.append(Batch(attempt, tuple(together)))
                together.clear()
            together.append(block)
    batches += [Batch(attempt, tuple(together)) for attempt, together in begun.items()]
    return Plan(on_their_way, tuple(sorted(batches, key=lambda batch: batch.blocks[0].start)), tuple(given_up))


def _hour(time: datetime) -> datetime:
    return time.replace(minute=0, second=0, microsecond=0)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


__all__ = ["ATTEMPTS", "Batch", "Missing", "OnItsWay", "Plan", "find_missing", "plan"]
