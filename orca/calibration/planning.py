"""Which integrations are calibrated, and where the tables go. Looks at names on disk; opens nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from orca import naming, telescope
from orca.calibration.options import BlockOptions, DelayOptions
from orca.errors import InputError, MissingDataError
from orca.recordings import block_about, nearest, recordings, subbands_recorded


@dataclass(frozen=True)
class Table:
    """One calibration table to make.

    Attributes
    ----------
    name : str
    day : date
    time : datetime
        Middle of the data that are wanted.
    sources : dict of path by name
        By subband for delays, by start for a bandpass.
    root : Path
        Of all calibrations.
    subband : str or None
        None for delays.
    missing : tuple of str
        Subbands that should be there and are not.
    """

    name: str
    day: date
    time: datetime
    sources: dict[str, Path]
    root: Path
    subband: str | None = None
    missing: tuple[str, ...] = ()

    def path(self, failed: bool = False) -> Path:
        """Where it goes if it passes, or if it has failed."""
        if self.subband is None:
            return naming.delay_path(self.root, self.day, failed=failed)
        return naming.bandpass_path(self.root, self.subband, self.day, self.time.hour, failed=failed)

    def report(self, ending: str, failed: bool = False) -> Path:
        """Where its report goes: pdf, png or json."""
        if self.subband is None:
            return naming.delay_qa_path(self.root, self.day, ending, failed=failed)
        return naming.bandpass_qa_path(self.root, self.subband, self.day, self.time.hour, ending, failed=failed)


def last_transit(before: datetime | None = None) -> datetime:
    """The last transit of Cyg A that is over."""
    from orca.sky import CYG_A

    end = before or datetime.now(UTC)
    return telescope.transits(CYG_A.ra_rad, CYG_A.dec_rad, end - timedelta(days=1.1), end)[-1]


def transit_on(day: date) -> datetime:
    """The first transit of Cyg A on a date (UTC)."""
    from orca.sky import CYG_A

    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return telescope.next_transit(CYG_A.ra_rad, CYG_A.dec_rad, midnight)


def plan_delay(day: date, raw: Path, calibration: Path, options: DelayOptions) -> Table:
    """Which integrations show the delays of a day: of each subband the one nearest to the transit of Cyg A.

    Raises
    ------
    MissingDataError
        There is no such folder of raw data.
    """
    raw = raw.absolute()
    transit = transit_on(day)
    reach = timedelta(seconds=options.tolerance_s + telescope.INTEGRATION_S)
    sources, missing = {}, []
    for band in telescope.SUBBANDS:
        if band.first_channel_hz < (options.min_subband_mhz - 0.5) * 1e6:
            continue
        found = nearest(recordings(raw, band.name, transit - reach, transit + reach), transit, options.tolerance_s)
        if found is None:
            missing.append(band.name)
        else:
            sources[band.name] = found.path
    return Table(
        name=f"delay {day}",
        day=day,
        time=transit,
        sources=sources,
        root=calibration,
        missing=tuple(missing),
    )


def plan_bandpasses(
    day: date,
    subbands: Sequence[str] | None,
    hours: Sequence[int] | None,
    raw: Path,
    calibration: Path,
    options: BlockOptions,
) -> list[Table]:
    """Which integrations make the bandpasses of a day, one table for each subband and hour.

    Raises
    ------
    MissingDataError
        Nothing was recorded on that day.
    InputError
        An hour or a subband that does not exist.
    """
    if hours and not all(0 <= hour < 24 for hour in hours):
        raise InputError(f"hours are 0 to 23, not {max(hours, key=abs)}")
    raw = raw.absolute()
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    bands = [telescope.subband(name).name for name in subbands] if subbands else subbands_recorded(raw, midnight)
    if not bands:
        raise MissingDataError(f"nothing was recorded on {day}", raw, "Take another date, or set paths.raw or --raw")
    times = [midnight + timedelta(hours=hour, minutes=30) for hour in hours] if hours else [transit_on(day)]
    return [_plan_bandpass(band, time, raw, calibration, options) for band in dict.fromkeys(bands) for time in times]


def _plan_bandpass(band: str, time: datetime, raw: Path, calibration: Path, options: BlockOptions) -> Table:
    found = block_about(raw, band, time, options.integrations or 1)
    return Table(
        name=f"bandpass {band} {time:%Y-%m-%d %Hh}",
        day=time.date(),
        time=time,
        sources={naming.stamp(recording.start): recording.path for recording in found},
        root=calibration,
        subband=band,
    )
