"""Which Measurement Sets are made into spectra together: batches of some tens of seconds, by names on disk alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from pathlib import Path

import numpy as np

from orca import naming, telescope
from orca.errors import InputError, MissingDataError
from orca.recordings import Recording, check_hours, given, recordings, subbands_recorded
from orca.sky import BRIGHT_SOURCES, plain_name
from orca.spectrum_options import SpectrumOptions

KINDS = {"raw": naming.Kind.RAW, "averaged": naming.Kind.AVERAGED}
_TAKEN = (naming.Kind.RAW, naming.Kind.AVERAGED, naming.Kind.COSMOLOGY)


@dataclass(frozen=True)
class Batch:
    """Measurement Sets of one subband and hour whose spectra are made by one task.

    Attributes
    ----------
    name : str
    subband : str
    start : datetime
        Of the first integration.
    recordings : tuple of Recording
        In the order of time.
    """

    name: str
    subband: str
    recordings: tuple[Recording, ...]

    @property
    def start(self) -> datetime:
        return self.recordings[0].start

    @property
    def sources(self) -> tuple[Path, ...]:
        return tuple(recording.path for recording in self.recordings)


def plan_day(
    root: Path,
    kind: naming.Kind,
    size: int,
    day: date,
    subbands: Sequence[str] | None = None,
    hours: Sequence[int] | None = None,
) -> list[Batch]:
    """The batches of a day (UTC), the oldest first.

    Parameters
    ----------
    root : Path
        Of raw or averaged data.
    kind : Kind
        What lies there.
    size : int
        Measurement Sets of a batch at most.
    day : date
    subbands : names, optional
        All that are there when not given.
    hours : list of int, optional
        All when not given.

    Raises
    ------
    MissingDataError
        There is no such folder, or nothing in it of that day.
    InputError
        A subband or an hour that does not exist.
    """
    check_hours(hours)
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    found: list[tuple[str, Recording]] = []
    for name in subbands or subbands_recorded(root, midnight):
        band = telescope.subband(name).name
        for hour in sorted(set(hours or range(24))):
            first = midnight + timedelta(hours=hour)
            last = first + timedelta(minutes=60, microseconds=-1)
            found += [(band, recording) for recording in recordings(root, band, first, last, kind)]
    if not found:
        wanted = [*(subbands or ()), *(f"{hour:02d}h" for hour in hours or ())]
        of = f"{day}{', ' if wanted else ''}{' '.join(wanted)}"
        raise MissingDataError(f"there are no {kind} data of {of}", root, "Ask for another time, or give their root")
    return _batches(found, size)


def plan_given(paths: Sequence[Path], size: int) -> list[Batch]:
    """The batches of some Measurement Sets; raises as `orca.recordings.given`."""
    return _batches(given(paths, _TAKEN, "a Measurement Set"), size)


def chosen(batches: Sequence[Batch], paths: Collection[Path], size: int) -> list[Batch]:
    """Batches of some of the Measurement Sets of others."""
    found = [(batch.subband, each) for batch in batches for each in batch.recordings if each.path in paths]
    return _batches(found, size)


def place_rad(options: SpectrumOptions) -> tuple[float, float]:
    """Right ascension and declination of `towards`. Raises InputError for a source that is not known."""
    if options.place_deg is not None:
        ra_rad, dec_rad = np.radians(options.place_deg)
        return float(ra_rad), float(dec_rad)
    known = {plain_name(source.name): source for source in BRIGHT_SOURCES}
    source = known.get(plain_name(options.towards or ""))
    if source is None:
        names = ", ".join(each.name for each in known.values())
        raise InputError(f"there is no source {options.towards!r}", remedy=f"Known are {names}; or give its place")
    return source.ra_rad, source.dec_rad


def _batches(found: Iterable[tuple[str, Recording]], size: int) -> list[Batch]:
    """Cut what lies in one hour of a subband into parts of about equal size."""
    ordered = sorted(found)
    batches = []
    for (band, hour), group in groupby(ordered, key=lambda each: (each[0], each[1].start.replace(minute=0, second=0))):
        members = [recording for _, recording in group]
        parts = -(-len(members) // size)
        for number in range(parts):
            some = members[number * len(members) // parts : (number + 1) * len(members) // parts]
            part = f" part {number + 1} of {parts}" if parts > 1 else ""
            batches.append(Batch(f"{band} {hour:%Y-%m-%d %Hh}{part}", band, tuple(some)))
    return sorted(batches, key=lambda batch: (batch.start, batch.name))
