"""Which integrations are reduced together, in which order, and which originals are kept; by names on disk alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import groupby
from pathlib import Path

from orca import naming, telescope
from orca.errors import InputError, MissingDataError
from orca.recordings import Recording, check_hours, given, hours_recorded, recordings, subbands_recorded
from orca.reduction_options import OriginalOptions


@dataclass(frozen=True)
class Block:
    """Integrations of one subband and hour that are flagged together.

    Attributes
    ----------
    name : str
    subband : str
    start : datetime
        Of the first integration.
    sources : tuple of Path
        In the order of time.
    prefix : Path
        What its manifest is called after; the averaged files lie beside it.
    """

    name: str
    subband: str
    start: datetime
    sources: tuple[Path, ...]
    prefix: Path

    def left_h(self, lifetime_h: float, now: datetime) -> float:
        """Hours until the recorder deletes its first integration; negative when that is past."""
        return lifetime_h - (now - self.start).total_seconds() / 3600


def plan_hours(
    raw: Path,
    averaged: Path,
    size: int,
    first: datetime,
    last: datetime,
    subbands: Sequence[str] | None = None,
    hours: Sequence[int] | None = None,
) -> list[Block]:
    """The blocks of what was recorded in whole hours, the oldest first.

    Parameters
    ----------
    raw, averaged : Path
        Roots.
    size : int
        Integrations of a block.
    first, last : datetime
        Start of the first hour, and of the last.
    subbands : names, optional
        All that were recorded when not given.
    hours : list of int, optional
        Of the day (UTC); all when not given.

    Raises
    ------
    MissingDataError
        There is no such folder of raw data, or nothing was recorded.
    InputError
        A subband or an hour that does not exist.
    """
    check_hours(hours)
    if not raw.is_dir():
        raise MissingDataError("there is no such folder of raw data", raw, "Set paths.raw, or give --raw")
    days = [first.replace(hour=0) + timedelta(days=n) for n in range((last.date() - first.date()).days + 1)]
    blocks: list[Block] = []
    for day in days:
        for band in _bands(raw, day, subbands):
            for hour in hours_recorded(raw, band, day):
                start = day.replace(hour=hour)
                if first <= start <= last and (not hours or hour in hours):
                    found = recordings(raw, band, start, start + timedelta(seconds=3599))
                    blocks += _blocks(band, start, found, averaged, size)
    if not blocks:
        span = f"{first:%Y-%m-%d}" if len(days) == 1 else f"from {first:%Y-%m-%d %Hh} to {last:%Y-%m-%d %Hh}"
        reduced = sum(1 for day in days for _ in averaged.glob(f"*/{day:%Y-%m-%d}/*/*_block*{naming.MANIFEST_SUFFIX}"))
        if reduced:
            problem = f"no raw data are left {span}; {reduced} blocks are reduced, in {averaged}"
            raise MissingDataError(problem, raw, "See the trash for the originals")
        raise MissingDataError(f"nothing was recorded {span}", raw, "Take other hours, or set paths.raw or --raw")
    return sorted(blocks, key=lambda block: (block.start, block.name))


def plan_day(
    raw: Path,
    averaged: Path,
    size: int,
    day: date,
    subbands: Sequence[str] | None = None,
    hours: Sequence[int] | None = None,
) -> list[Block]:
    """The blocks of a day (UTC); as `plan_hours`."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return plan_hours(raw, averaged, size, midnight, midnight.replace(hour=23), subbands, hours)


def plan_given(paths: Sequence[Path], averaged: Path, size: int) -> list[Block]:
    """The blocks of some Measurement Sets, in which they lie as if all of their hour were given.

    Raises as `orca.recordings.given`.
    """
    blocks = []
    ordered = given(paths, (naming.Kind.RAW,), "a raw Measurement Set")
    for (band, hour), group in groupby(ordered, key=lambda each: (each[0], _hour(each[1].start))):
        blocks += _blocks(band, hour, [recording for _, recording in group], averaged, size)
    return sorted(blocks, key=lambda block: (block.start, block.name))


def finished_hours(count: int, now: datetime) -> tuple[datetime, datetime]:
    """The first and the last of so many hours that are over."""
    this = _hour(now)
    return this - timedelta(hours=count), this - timedelta(hours=1)


def why_kept(start: datetime, options: OriginalOptions) -> str:
    """Why the original of an integration is kept; empty if it need not be.

    Parameters
    ----------
    start : datetime
        Of the integration.
    options : OriginalOptions
        Raises InputError for a source that is not known.
    """
    if options.originals == "keep":
        return "all are"
    from orca.sky import BRIGHT_SOURCES, plain_name

    middle = start + timedelta(seconds=telescope.INTEGRATION_S / 2)
    known = {plain_name(source.name): source for source in BRIGHT_SOURCES}
    for name in options.keep_near:
        source = known.get(plain_name(name))
        if source is None:
            there = ", ".join(each.name for each in known.values())
            raise InputError(f"there is no source {name!r} to keep originals near", remedy=f"Known are {there}")
        near = _transits_about(source.ra_rad, source.dec_rad, _hour(start))
        away_min = min(abs((middle - transit).total_seconds()) for transit in near) / 60
        if away_min <= options.keep_minutes:
            return f"{away_min:.1f} min from the transit of {source.name}"
    lst_h = float(telescope.sidereal_time_h(middle))
    if (span := options.lst_range_h) and (lst_h - span[0]) % 24 <= (span[1] - span[0]) % 24:
        return f"sidereal time {lst_h:.2f} h"
    return ""


@lru_cache(maxsize=64)
def _transits_about(ra_rad: float, dec_rad: float, hour: datetime) -> list[datetime]:
    """The transits before and after an hour."""
    return telescope.transits(ra_rad, dec_rad, hour - timedelta(hours=24), hour + timedelta(hours=25))


def _bands(raw: Path, day: datetime, subbands: Sequence[str] | None) -> list[str]:
    return list(dict.fromkeys(telescope.subband(name).name for name in subbands or subbands_recorded(raw, day)))


def beat_s(starts_s: Sequence[float]) -> float:
    """When the first integration of an hour begins, by those that are there: names have whole seconds.

    At least -1 s, so that one that begins with the hour is the first.
    """
    turns = [2 * math.pi * start_s / telescope.INTEGRATION_S for start_s in starts_s]
    turn = math.atan2(sum(map(math.sin, turns)), sum(map(math.cos, turns))) / (2 * math.pi)
    begin_s = (turn % 1) * telescope.INTEGRATION_S
    return begin_s - telescope.INTEGRATION_S if begin_s > telescope.INTEGRATION_S - 1 else begin_s


def block_number(start_s: float, begins_s: float, size: int) -> int:
    """In which block of its hour an integration lies.

    Parameters
    ----------
    start_s : float
        When it starts, after the hour.
    begins_s : float
        `beat_s` of its hour.
    size : int
        Integrations of a block.
    """
    return round((start_s - begins_s) / telescope.INTEGRATION_S) // size


def _hour(time: datetime) -> datetime:
    return time.replace(minute=0, second=0, microsecond=0)


def _blocks(band: str, hour: datetime, found: Iterable[Recording], averaged: Path, size: int) -> list[Block]:
    """What was recorded in an hour, cut by time: so a block stays the same, whichever of its integrations are there."""
    found = sorted(found)
    begins_s = beat_s([(recording.start - hour).total_seconds() for recording in found])

    def number(recording: Recording) -> int:
        return block_number((recording.start - hour).total_seconds(), begins_s, size)

    return [
        Block(
            name=f"{band} {hour:%Y-%m-%d %Hh} block {which:02d}",
            subband=band,
            start=members[0].start,
            sources=tuple(recording.path.absolute() for recording in members),
            prefix=naming.block_prefix(averaged, band, hour.date(), hour.hour, which),
        )
        for which, group in groupby(found, key=number)
        for members in [list(group)]
    ]
