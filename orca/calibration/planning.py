"""Which integrations are calibrated, and where the tables go. Looks at names on disk; opens nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from pathlib import Path

from orca import naming, telescope
from orca.calibration.options import BlockOptions, DelayOptions
from orca.errors import InputError, MissingDataError
from orca.recordings import (
    Recording,
    block_about,
    block_in,
    hours_recorded,
    middle_of,
    nearest,
    recordings,
    subbands_recorded,
)


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
    wanted, remedy : str
        Which data are wanted, and what to do where there are none.
    subband : str or None
        None for delays.
    missing : tuple of str
        Subbands that should be there and are not, in ranges.
    """

    name: str
    day: date
    time: datetime
    sources: dict[str, Path]
    root: Path
    wanted: str
    remedy: str
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

    def files(self, scratch: Path, failed: bool = False) -> dict[Path, Path]:
        """Where what was made in scratch goes."""
        from orca.calibration import made

        reports = {scratch / name: self.report(Path(name).suffix[1:], failed) for name in made.REPORTS}
        return {scratch / made.TABLE: self.path(failed), **reports}

    def still_there(self) -> Table:
        """The same without the data that are gone since it was planned.

        Raises
        ------
        MissingDataError
            Nothing is left, or there never was anything.
        """
        there = {key: path for key, path in self.sources.items() if path.exists()}
        if not there:
            raise MissingDataError(f"nothing was recorded {self.wanted}", None, self.remedy)
        return replace(self, sources=there)


def last_transit(before: datetime | None = None) -> datetime:
    """The last transit of Cyg A that is over."""
    from orca.sky import CYG_A

    end = before or datetime.now(UTC)
    return telescope.transits(CYG_A.ra_rad, CYG_A.dec_rad, end - timedelta(days=1.1), end)[-1]


def transit_on(day: date) -> datetime:
    """The transit of Cyg A on a date (UTC); where there are two, once a year, the last one that is over."""
    from orca.sky import CYG_A

    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    first, *others = telescope.transits(CYG_A.ra_rad, CYG_A.dec_rad, midnight, midnight + timedelta(days=1))
    return next((other for other in others if other < datetime.now(UTC)), first)


def plan_delay(day: date, raw: Path, calibration: Path, options: DelayOptions) -> Table:
    """Which integrations show the delays of a day: of each subband the one nearest to the transit of Cyg A.

    Those that were not recorded then are missing, if they were recorded on that day, or asked for by name.

    Raises
    ------
    MissingDataError
        There is no such folder of raw data.
    InputError
        A subband that does not exist.
    """
    raw = raw.absolute()
    transit = transit_on(day)
    reach = timedelta(seconds=options.tolerance_s + telescope.INTEGRATION_S)
    expected = {*subbands_recorded(raw, transit), *(telescope.subband(name).name for name in options.subbands)}
    sources, missing = {}, []
    for band in subbands_of_delays(options):
        found = nearest(recordings(raw, band, transit - reach, transit + reach), transit, options.tolerance_s)
        if found is not None:
            sources[band] = found.path
        elif band in expected:
            missing.append(band)
    return Table(
        name=f"delay {day}",
        day=day,
        time=transit,
        sources=sources,
        root=calibration,
        wanted=f"within {options.tolerance_s:g} s of the transit of Cyg A, {transit:%Y-%m-%d %H:%M:%S} UTC",
        remedy="Take another date, or a larger --tolerance-s",
        missing=in_ranges(missing),
    )


def subbands_of_delays(options: DelayOptions) -> list[str]:
    """The subbands that show delays, if they were recorded."""
    if options.subbands:
        return list(dict.fromkeys(telescope.subband(name).name for name in options.subbands))
    lowest_hz = (options.min_subband_mhz - 0.5) * 1e6
    return [band.name for band in telescope.SUBBANDS if band.first_channel_hz >= lowest_hz]


def plan_bandpasses(
    day: date,
    subbands: Sequence[str] | None,
    hours: Sequence[int] | None,
    raw: Path,
    calibration: Path,
    options: BlockOptions,
) -> list[Table]:
    """Which integrations make the bandpasses of a day, one table for each subband and hour.

    Of an hour, the fullest block is taken, of equals the one nearest to the hour's middle; without hours, the block
    about the transit of Cyg A.

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
    starts = [midnight + timedelta(hours=hour) for hour in dict.fromkeys(hours or ())]
    tables = []
    for band in dict.fromkeys(bands):
        tables += [_in_hour(band, start, raw, calibration, options) for start in starts]
        tables += [] if starts else [_at_transit(band, transit_on(day), raw, calibration, options)]
    return tables


def _in_hour(band: str, start: datetime, raw: Path, calibration: Path, options: BlockOptions) -> Table:
    hour, middle = timedelta(hours=1), start + timedelta(minutes=30)
    found = recordings(raw, band, start, start + hour - timedelta(seconds=1))
    block = block_in(found, middle, options.integrations or 1)
    wanted = f"from {start:%Y-%m-%d %H:%M} to {start + hour:%H:%M} UTC"
    return _bandpass(band, middle_of(block) if block else middle, block, wanted, raw, calibration)


def _at_transit(band: str, transit: datetime, raw: Path, calibration: Path, options: BlockOptions) -> Table:
    block = block_about(raw, band, transit, options.integrations or 1)
    return _bandpass(band, transit, block, f"about {transit:%Y-%m-%d %H:%M:%S} UTC", raw, calibration)


def _bandpass(
    band: str, time: datetime, block: Sequence[Recording], wanted: str, raw: Path, calibration: Path
) -> Table:
    remedy = "See the raw data, or take another time"
    if not block and (hours := hours_recorded(raw, band, time)):
        there = f"the hour{'s' if len(hours) > 1 else ''} {', '.join(map(str, hours))}"
        remedy = f"That day has recordings of {band} in {there}: orca run bandpass --hour {hours[0]}"
    elif not block and (others := subbands_recorded(raw, time)):
        remedy = f"That day has none of {band}, but of {', '.join(in_ranges(others))}"
    return Table(
        name=f"bandpass {band} {time:%Y-%m-%d %Hh}",
        day=time.date(),
        time=time,
        sources={naming.stamp(recording.start): recording.path for recording in block},
        root=calibration,
        wanted=wanted,
        remedy=remedy,
        subband=band,
    )


def not_recorded(raw: Path, day: date, bands: Sequence[str]) -> str:
    """Which of some subbands were not recorded on a day at all, in words; empty if all or none of them were."""
    there = subbands_recorded(raw.absolute(), datetime(day.year, day.month, day.day, tzinfo=UTC))
    missing = [band for band in bands if band not in there]
    if not missing or len(missing) == len(bands):
        return ""
    return f"not recorded on {day}: {len(missing)} of {len(bands)} subbands, {', '.join(in_ranges(missing))}"


def in_ranges(bands: Iterable[str]) -> tuple[str, ...]:
    """Names of subbands, those that follow each other as one: 41MHz to 69MHz, 78MHz."""
    wanted = set(bands)
    runs = [list(run) for there, run in groupby(telescope.SUBBANDS, lambda band: band.name in wanted) if there]
    return tuple(run[0].name if len(run) == 1 else f"{run[0].name} to {run[-1].name}" for run in runs)
