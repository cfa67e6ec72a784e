"""Whether a nightly calibration that was scheduled still makes sense, and whether there is anything to calibrate."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from orca.errors import MissingDataError
from orca.recordings import recordings
from orca.telescope import SUBBANDS, utc_of

RAW_LIFETIME = timedelta(days=1)
"""The recorders delete what is older."""
ARRIVAL = timedelta(minutes=30)
"""So long before its scheduled time a run wants to see data."""


def why_too_late(transit: datetime, now: datetime) -> str | None:
    """Return why the calibration of a transit cannot be made any more, or None while its data should be there.

    Parameters
    ----------
    transit : datetime
        Of Cyg A, with a time zone.
    now : datetime
        With a time zone.
    """
    age = utc_of(now) - utc_of(transit)
    if age < RAW_LIFETIME:
        return None
    hours = age.total_seconds() / 3600
    return f"started {hours:.1f} h after the transit of {utc_of(transit):%Y-%m-%d %H:%M:%S} UTC: its data are deleted"


def check_recorded(raw: Path, scheduled: datetime, before: timedelta = ARRIVAL) -> None:
    """Return when anything was recorded in the half hour before a time.

    Parameters
    ----------
    raw : Path
        Root of the raw data.
    scheduled : datetime
        When the run was to start, with a time zone.
    before : timedelta, optional
        Another span than half an hour.

    Raises
    ------
    MissingDataError
        Nothing was recorded, or there is no such root.
    StorageError
        A folder cannot be read.
    """
    scheduled = utc_of(scheduled)
    if not any(recordings(raw, band.name, scheduled - before, scheduled) for band in reversed(SUBBANDS)):
        minutes = before.total_seconds() / 60
        raise MissingDataError(
            f"nothing was recorded in the {minutes:.0f} minutes before {scheduled:%Y-%m-%d %H:%M:%S} UTC",
            raw,
            "No calibration is made: see whether the recorders run",
        )
