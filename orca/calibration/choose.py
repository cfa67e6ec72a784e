"""Which calibration an observation takes, and why: told by names, manifests and fingerprints; no table is opened.

The age of a calibration is absolute: one that was made after the observation is as good as one from before it, since
an evening is often calibrated by the transit that follows it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from orca import naming, telescope
from orca.calibration.candidates import (
    Candidate,
    Kind,
    Refused,
    bandpass_tables,
    check_table,
    days_below,
    delay_of,
    read_candidate,
)
from orca.calibration.choice_options import ChoiceOptions
from orca.errors import InputError, MismatchError, MissingDataError, OrcaError

DAY_S = 86400.0
SAME_SKY_S = 60.0
"""Calibrations no farther apart in sidereal time than this are as good as each other: the younger one is taken."""
_SHOWN = 5


@dataclass(frozen=True)
class Choice:
    """The tables to apply to an observation.

    Attributes
    ----------
    bandpass : Path
    delay : Path or None
        The delay table that the bandpass was solved with, to be applied as well; None if it was solved without.
    why : str
        One line for people: which calibration, and how far from the observation in the sky and in time.
    age_days : float
        Days between observation and calibration, whichever was first.
    """

    bandpass: Path
    delay: Path | None
    why: str
    age_days: float


def find_calibration(root: Path, subband: str, time_s: float, options: ChoiceOptions = ChoiceOptions()) -> Choice:
    """Find the calibration for an observation.

    A candidate is of the same subband, has passed, is no more than `max_age_days` before or after the observation,
    and is the table that its manifest describes; so is the delay table that it was solved with. Of these, the nearest
    in local sidereal time is taken (the one calibrated on the most similar sky; the nearest in time of those within
    a minute), or the nearest in time.

    Parameters
    ----------
    root : path
        Folder of all calibrations.
    subband : str
        As in `orca.telescope.subband`.
    time_s : float
        Middle of the observation, MJD seconds UTC.
    options : ChoiceOptions

    Raises
    ------
    InputError
        There is no such subband, or no such time.
    MissingDataError
        There is none; the message has what was there and why it was refused.
    StorageError
        The folder of the subband cannot be read.
    """
    band = telescope.subband(subband).name
    observed = telescope.datetime_of(time_s)
    folder = naming.bandpass_path(root, band, observed, 0).parents[2]
    days = days_below(folder)
    near = [day for day in days if abs((day - observed.date()).days) <= options.max_age_days + 1]
    candidates: list[Candidate] = []
    refused: Refused = []
    for when, label, table in bandpass_tables(root, band, near, refused):
        try:
            candidate = read_candidate(table, label, "bandpass", band)
            age_days = abs(candidate.time_s - time_s) / DAY_S
            if age_days > options.max_age_days:
                raise MismatchError(f"is {age_days:.1f} days away")
            candidates.append(candidate)
        except OrcaError as error:
            refused.append((when, f"{label} {error.problem}"))
    while candidates:
        best = _nearest(candidates, time_s, options)
        try:
            check_table(best)
            delay = delay_of(best, root, options.use_delay)
            return Choice(best.table, delay, _why(best, delay, time_s), abs(best.time_s - time_s) / DAY_S)
        except OrcaError as error:
            candidates.remove(best)
            refused.append((telescope.datetime_of(best.time_s), f"{best.label} {error.problem}"))
    raise _nothing(folder, band, observed, options, days, refused)


def latest_good(root: Path, kind: Kind, before_s: float, subband: str | None = None) -> Path | None:
    """The newest calibration before a time that passed and is still the table of its manifest, or None.

    Parameters
    ----------
    root : path
        Folder of all calibrations.
    kind : "delay" or "bandpass"
    before_s : float
        MJD seconds UTC. Give the start of the data that are being calibrated, so that a table which is about to be
        replaced does not count as an earlier one.
    subband : str, optional
        Needed for a bandpass.

    Raises
    ------
    InputError
        There is no such subband or time, or none is given for a bandpass.
    StorageError
        The folder of these calibrations cannot be read.
    """
    before = telescope.datetime_of(before_s)
    band = None
    if kind == "bandpass":
        if subband is None:
            raise InputError("a bandpass is one of a subband, and none is given", remedy="Name it, such as 73MHz")
        band = telescope.subband(subband).name
        folder = naming.bandpass_path(root, band, before, 0).parents[2]
    else:
        folder = naming.delay_path(root, before).parents[1]
    for day in sorted(days_below(folder), reverse=True):
        if day > before.date():
            continue
        if band is None:
            tables = [naming.delay_path(root, day)]
        else:
            tables = [table for *_, table in bandpass_tables(root, band, [day], [])]
        good = [found for table in tables if (found := _usable(table, kind, band)) and found.time_s < before_s]
        if good:
            return max(good, key=lambda found: found.time_s).table
    return None


def delays_for(root: Path, day: date, max_age_days: float) -> tuple[Path | None, str]:
    """The delay table with which a day's bandpasses are solved: its own, or the last good one before.

    Returns
    -------
    path, str
        None if there is none that is not too old; and what to say about it, empty if it is the day's own.
    """
    end_s = telescope.time_s_of(datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1))
    found = latest_good(root, "delay", end_s)
    made = naming.parse(found).day if found else None
    if found is None or made is None:
        return None, f"no delays of {day} or before it: the bandpasses are solved without"
    if (day - made).days > max_age_days:
        return None, f"no delays of {day}, and those of {made} are too old: the bandpasses are solved without"
    return found, "" if made == day else f"no delays of {day}: those of {made} are taken"


def _usable(table: Path, kind: Kind, band: str | None) -> Candidate | None:
    try:
        candidate = read_candidate(table, table.name, kind, band)
        check_table(candidate)
    except OrcaError:
        return None
    return candidate


def _sidereal_s(candidate: Candidate, time_s: float) -> float:
    """Distance in local sidereal time, in seconds that pass, 0 to half a day."""
    return abs(math.remainder(candidate.time_s - time_s, telescope.SIDEREAL_DAY_S))


def _nearest(candidates: list[Candidate], time_s: float, options: ChoiceOptions) -> Candidate:
    equal = candidates
    if options.nearest == "sidereal":
        best = min(_sidereal_s(candidate, time_s) for candidate in candidates)
        equal = [candidate for candidate in candidates if _sidereal_s(candidate, time_s) <= best + SAME_SKY_S]
    return min(equal, key=lambda candidate: (abs(candidate.time_s - time_s), candidate.time_s))


def _why(candidate: Candidate, delay: Path | None, time_s: float) -> str:
    later_s = candidate.time_s - time_s
    sidereal_h = _sidereal_s(candidate, time_s) / telescope.SIDEREAL_DAY_S * 24
    amount = f"{abs(later_s) / 60:.0f} minutes" if abs(later_s) < 0.05 * DAY_S else f"{abs(later_s) / DAY_S:.1f} days"
    delays = "without delays" if delay is None else f"with the delays {_named(delay)}"
    away = f"{sidereal_h:.1f} h away in sidereal time, {amount} {'later' if later_s > 0 else 'earlier'}"
    return f"bandpass of {candidate.label} ({away}), {delays}"


def _named(delay: Path) -> str:
    try:
        return f"of {naming.parse(delay).day}"
    except InputError:
        return delay.name


def _nothing(
    folder: Path,
    band: str,
    observed: datetime,
    options: ChoiceOptions,
    days: list[date],
    refused: Refused,
) -> MissingDataError:
    """What was looked for, what was there, and why none of it will do."""
    wanted = f"no bandpass of {band} within {options.max_age_days:g} days of {observed:%Y-%m-%d %H:%M} UTC can be used"
    reasons = [text for _, text in sorted(refused, key=lambda item: abs(item[0] - observed))]
    found = "; ".join(reasons[:_SHOWN])
    if len(reasons) > _SHOWN:
        found += f"; and {len(reasons) - _SHOWN} more"
    if not reasons and days:
        found = f"the nearest is of {min(days, key=lambda day: abs(day - observed.date()))}"
    remedy = f"Make one with: orca run calibrate --date {observed:%Y-%m-%d}"
    return MissingDataError(f"{wanted}: {found or 'there is none'}", folder, remedy)
