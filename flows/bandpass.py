"""Calibration: the delays of a day, the bandpass of each subband, and the nightly calibration that is made of both.

The science is imported where it runs: the process of the flow starts two seconds sooner without it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prefect import flow, get_run_logger, task
from prefect.runtime import flow_run

from flows.common import Frozen, Quality, acceptance_of
from orca import config, naming, telescope
from orca.antennas import BadAntennas, bad_antennas
from orca.calibration.choose import latest_good
from orca.calibration.options import BlockOptions, DelayOptions, SolveOptions
from orca.cluster.artifacts import show_picture
from orca.cluster.gather import Outcome, conclude, gather
from orca.cluster.runner import PoolTaskRunner
from orca.cluster.worker import report_step, stop_signal
from orca.config import Config
from orca.errors import FailedCalibrationError, InputError, MissingDataError
from orca.isolation import preload, run_isolated
from orca.manifest import Manifest, draft, fresh
from orca.ms.acceptance import Acceptance
from orca.products import publish, withdraw
from orca.quality_limits import QualityLimits
from orca.recordings import Recording, block_about, nearest, recordings, subbands_recorded
from orca.scratch import scratch_folder, sweep
from orca.skyoptions import SkyOptions

if TYPE_CHECKING:
    from orca.calibration.making import Calibrated, Knowledge

_REPORT_BYTES = 100_000_000
_SHOWN = 3
"""Measurement Sets that were left out and are named in one warning; the report has all of them."""


class Site(Frozen):
    """What the machines are like, and what is known there."""

    calibration: Path
    scratch: Path
    stage_s: float
    reserve_bytes: int
    acceptance: Acceptance
    outriggers: tuple[int, ...] | None
    bad: BadAntennas
    limits: QualityLimits


class Table(Frozen):
    """One calibration table to make.

    Attributes
    ----------
    name : str
    day : date
    time : datetime
        Middle of the data that are wanted.
    sources : paths by name
        By subband for delays, by start for a bandpass.
    final, failed : Path
        Its place if it passes, and if not.
    subband : str or None
        None for delays.
    missing : tuple of str
        What should be there and is not.
    """

    name: str
    day: date
    time: datetime
    sources: dict[str, Path]
    final: Path
    failed: Path
    subband: str | None = None
    missing: tuple[str, ...] = ()


class Options(Frozen):
    """How to make it."""

    sky: SkyOptions
    solve: SolveOptions
    block: BlockOptions = BlockOptions()
    delay: DelayOptions = DelayOptions()


class Made(Frozen):
    """A calibration table as published."""

    table: Path
    manifest: Path
    picture: Path
    seconds: float
    skipped: bool
    quality: Quality
    warnings: tuple[str, ...] = ()


def dask_setup(_worker: Any) -> None:
    """Called by Dask in the workers of these flows."""
    preload(("orca.calibration.making", "orca.warm"))


def _run_name() -> str:
    """What a flow run is called on Prefect's page: bandpass 2026-01-10."""
    return f"{flow_run.flow_name} {flow_run.parameters.get('day') or 'last night'}"


_FLOW: dict[str, Any] = {
    "flow_run_name": _run_name,
    "task_runner": PoolTaskRunner("bandpass", preload=("flows.bandpass",)),
    "persist_result": False,
    "validate_parameters": True,
}


@flow(name="delay", **_FLOW)
def delay(
    day: date | None = None,
    raw: Path | None = None,
    out: Path | None = None,
    sky: SkyOptions = SkyOptions(),
    solve: SolveOptions = SolveOptions(),
    options: DelayOptions = DelayOptions(),
) -> Any:
    """Find the delays of all antennas from the transit of Cyg A.

    Args:
        day: Date of the transit, UTC; that of the last one when not given.
        raw: Root of the raw data; the configuration's when not given.
        out: Root of the calibrations; the configuration's when not given.
        sky: Sources of the model.
        solve: How to solve.
        options: Which data to take.
    """
    when = day or last_transit().date()
    settings, site = _site(when, out)
    how = Options(sky=_absolute(sky), solve=_resolved(solve, settings), delay=options)
    table = plan_delay(when, raw or settings.paths.raw, site.calibration, options)
    return conclude(_make([table], how, site), "delay")


@flow(name="bandpass", **_FLOW)
def bandpass(
    day: date | None = None,
    subbands: list[str] | None = None,
    hours: list[int] | None = None,
    use_delay: bool = True,
    raw: Path | None = None,
    out: Path | None = None,
    sky: SkyOptions = SkyOptions(),
    solve: SolveOptions = SolveOptions(),
    block: BlockOptions = BlockOptions(),
) -> Any:
    """Solve for the bandpass of each subband.

    Args:
        day: Date, UTC; that of the last transit of Cyg A when not given.
        subbands: Such as 73MHz; all that were recorded when not given.
        hours: Hours of the day (UTC), of each of which the middle block is taken; the block about the transit of Cyg A
            when not given.
        use_delay: Apply the delays of the day first, or the last good ones.
        raw: Root of the raw data; the configuration's when not given.
        out: Root of the calibrations; the configuration's when not given.
        sky: Sources of the model.
        solve: How to solve.
        block: Which integrations to take.
    """
    when = day or last_transit().date()
    settings, site = _site(when, out)
    block = _complete(block, settings)
    how = Options(sky=_absolute(sky), solve=_resolved(solve, settings), block=block)
    tables = plan_bandpasses(when, subbands, hours, raw or settings.paths.raw, site.calibration, block)
    if not subbands:
        _tell_missing(when, tables)
    delays = _delays_for(when, site, settings) if use_delay else None
    return conclude(_make(tables, how, site, delays), "bandpass")


@flow(name="nightly-calibration", **_FLOW)
def nightly_calibration(
    day: date | None = None,
    subbands: list[str] | None = None,
    raw: Path | None = None,
    out: Path | None = None,
    sky: SkyOptions = SkyOptions(),
    solve: SolveOptions = SolveOptions(),
    block: BlockOptions = BlockOptions(),
    delay_options: DelayOptions = DelayOptions(),
) -> Any:
    """Calibrate a day at the transit of Cyg A: delays, then the bandpasses of all subbands side by side.

    Args:
        day: Date of the transit, UTC; that of the last one when not given.
        subbands: Those to solve for a bandpass; all that were recorded when not given.
        raw: Root of the raw data; the configuration's when not given.
        out: Root of the calibrations; the configuration's when not given.
        sky: Sources of the model. With Cyg A alone, delays would be off by 0.4 ns: Cas A is half as bright.
        solve: How to solve.
        block: Which integrations make a bandpass.
        delay_options: Which data show the delays.
    """
    when = day or last_transit().date()
    settings, site = _site(when, out)
    root, sky = raw or settings.paths.raw, _absolute(sky)
    resolved, block = _resolved(solve, settings), _complete(block, settings)
    tables = plan_bandpasses(when, subbands, None, root, site.calibration, block)
    if not subbands:
        _tell_missing(when, tables)
    for_delay = Options(sky=sky, solve=resolved, delay=delay_options)
    of_delay = _make([plan_delay(when, root, site.calibration, delay_options)], for_delay, site)
    how = Options(sky=sky, solve=resolved, block=block)
    outcomes = [*of_delay, *_make(tables, how, site, _delays_for(when, site, settings))]
    return conclude(outcomes, "nightly-calibration")


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
        final=naming.delay_path(calibration, day),
        failed=naming.delay_path(calibration, day, failed=True),
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
    found: list[Recording] = block_about(raw, band, time, options.integrations or 1)
    place = (calibration, band, time.date(), time.hour)
    return Table(
        name=f"bandpass {band} {time:%Y-%m-%d %Hh}",
        day=time.date(),
        time=time,
        sources={naming.stamp(recording.start): recording.path for recording in found},
        final=naming.bandpass_path(*place),
        failed=naming.bandpass_path(*place, failed=True),
        subband=band,
    )


def _tell_missing(day: date, tables: Sequence[Table]) -> None:
    """Say which subbands were not recorded at all: no table is planned for them."""
    planned = {table.subband for table in tables}
    if missing := [band.name for band in telescope.SUBBANDS if band.name not in planned]:
        get_run_logger().warning("not recorded on %s: %s", day, ", ".join(missing))


def _site(day: date, out: Path | None) -> tuple[Config, Site]:
    settings = config.load()
    known = settings.calibration
    return settings, Site(
        calibration=(out or settings.paths.calibration).absolute(),
        scratch=settings.paths.scratch,
        stage_s=settings.limits.stage_s,
        reserve_bytes=int(settings.limits.scratch_reserve_gb * 1e9),
        acceptance=acceptance_of(settings),
        outriggers=settings.telescope.outriggers,
        bad=bad_antennas(known.bad_antennas, day),  # asked once, so that all tables of a night agree
        limits=QualityLimits(alarm_ns=known.alarm_ns),
    )


def _resolved(solve: SolveOptions, settings: Config) -> SolveOptions:
    """With the configuration's reference antenna where none was asked for."""
    wanted = solve.reference_antenna or str(settings.calibration.reference_antenna)
    return solve.model_copy(update={"reference_antenna": wanted})


def _complete(block: BlockOptions, settings: Config) -> BlockOptions:
    """With the configuration's numbers where none were asked for."""
    integrations = block.integrations or settings.calibration.integrations
    minimum = block.min_integrations or min(settings.calibration.min_integrations, integrations)
    if minimum > integrations:
        raise InputError(
            f"a block of {integrations} integrations cannot have at least {minimum}", remedy="Lower the minimum"
        )
    return BlockOptions(integrations=integrations, min_integrations=minimum)


def _absolute(sky: SkyOptions) -> SkyOptions:
    """With paths that workers understand, which have a current folder of their own."""
    files = {"sky_file": sky.sky_file, "beam_file": sky.beam_file}
    return sky.model_copy(update={name: file.absolute() for name, file in files.items() if file is not None})


def _delays_for(day: date, site: Site, settings: Config) -> Path | None:
    """The delay table of a day, or the last good one before that is not too old."""
    end = telescope.time_s_of(datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1))
    found = latest_good(site.calibration, "delay", end)
    parsed = naming.parse(found).day if found else None
    if found is None or parsed is None or (day - parsed).days > settings.calibration.max_age_days:
        get_run_logger().warning("no delays of %s or before it: the bandpasses are solved without", day)
        return None
    if parsed != day:
        get_run_logger().warning("no delays of %s: those of %s are taken", day, parsed)
    return found


def _make(tables: Sequence[Table], how: Options, site: Site, delays: Path | None = None) -> list[Outcome]:
    units = {table.name: {"table": table, "how": how, "site": site, "delays": delays} for table in tables}
    return gather(make_table, units)


@task(name="calibrate", task_run_name="{table.name}", persist_result=False)
def make_table(table: Table, how: Options, site: Site, delays: Path | None) -> Made:
    """Make one calibration table: read and solve in a child process, judge, draw, publish. Fresh ones are left alone.

    A table that is not good enough is published beside, as failed, and is an error; an earlier good one stays.
    """
    there = {key: path for key, path in table.sources.items() if path.exists()}  # some may be gone since it was planned
    table = table.model_copy(update={"sources": there})
    if not table.sources:
        about, remedy = f"about {table.time:%Y-%m-%d %H:%M:%S} UTC", "See the raw data, or take another time"
        if table.subband is None:
            about = f"within {how.delay.tolerance_s:g} s of the transit of Cyg A, {table.time:%Y-%m-%d %H:%M:%S} UTC"
            remedy = "Take another date, or a larger tolerance"
        raise MissingDataError(f"nothing was recorded {about}", None, remedy)
    kind: Literal["delay", "bandpass"] = "delay" if table.subband is None else "bandpass"
    files = (how.sky.sky_file, how.sky.beam_file, delays)
    inputs = [*table.sources.values(), *(file for file in files if file is not None)]
    particular = {"delay": how.delay} if table.subband is None else {"block": how.block}
    chosen = {"sky": how.sky, "solve": how.solve, **particular, "bad": site.bad.antennas, "limits": site.limits}
    making = draft(table.final.name, kind, inputs, chosen)
    for path in (table.final, table.failed):
        if manifest := fresh(naming.manifest_path(path), making.inputs, making.options):
            return _judged(manifest, path, table, skipped=True)

    from orca.calibration.making import Knowledge  # here: what is fresh does without its imports

    sweep(site.scratch)
    largest = max((entry.size for entry in making.inputs), default=0)
    with scratch_folder(
        site.scratch, need_bytes=2 * largest + _REPORT_BYTES + site.reserve_bytes, label=table.name
    ) as work:
        report_step(table.name, f"solving {len(table.sources)} Measurement Sets")
        knowledge = Knowledge(
            bad=site.bad,
            outriggers=site.outriggers,
            previous=latest_good(site.calibration, kind, telescope.time_s_of(table.time) - 3600.0, table.subband),
            limits=site.limits,
            acceptance=site.acceptance,
        )
        made = _calibrated(table, how, site, knowledge, delays, work)
        report_step(table.name, "publishing")
        path = table.final if made.passed else table.failed
        told: Quality = {"left_out": len(made.left_out), "warnings": "\n".join(_warnings(made, table, work.path))}
        manifest = publish(
            _files(work.path, path, table),
            making.manifest(
                cpu_seconds=made.cpu_seconds,
                peak_memory_bytes=made.peak_memory_bytes,
                quality={**made.numbers, **told},
            ),
            naming.manifest_path(path),
        )
    if made.passed:
        withdraw(naming.manifest_path(table.failed))
    return _judged(manifest, path, table, skipped=False)


def _calibrated(
    table: Table, how: Options, site: Site, knowledge: Knowledge, delays: Path | None, work: Any
) -> Calibrated:
    from orca.calibration.making import make_bandpass, make_delays

    isolated: dict[str, Any] = {
        "deadline_s": site.stage_s,
        "stop": stop_signal(),
        "owner": work.owner,
        "disk": work.path,
        "title": table.name,
        "sky": how.sky,
        "solve": how.solve,
        "knowledge": knowledge,
    }
    if table.subband is None:
        return run_isolated(make_delays, table.sources, work.path, options=how.delay, missing=table.missing, **isolated)
    sources = [table.sources[stamp] for stamp in sorted(table.sources)]
    return run_isolated(make_bandpass, sources, work.path, block=how.block, delay=delays, **isolated)


def _warnings(made: Calibrated, table: Table, scratch: Path) -> list[str]:
    """What somebody should know who uses the table; what is noted of single antennas is left to the report."""
    from orca.calibration.making import NUMBERS

    warnings = list(made.warnings)
    if made.left_out:
        named = [f"{name}: {reason}" for name, reason in list(made.left_out.items())[:_SHOWN]]
        more = [f"and {len(made.left_out) - _SHOWN} more"] if len(made.left_out) > _SHOWN else []
        count = f"{len(made.left_out)} of {len(table.sources)} Measurement Sets left out"
        warnings.append(f"{count} ({'; '.join([*named, *more])})")
    notes = json.loads((scratch / NUMBERS).read_text())["notes"]
    return warnings + [note for note in notes if not re.match(r"\S+ \(\d+\): ", note)]


def _files(scratch: Path, path: Path, table: Table) -> dict[Path, Path]:
    """What goes where."""
    from orca.calibration import making

    failed = path == table.failed
    finals = {scratch / making.TABLE: path}
    for name in (making.PDF, making.PICTURE, making.NUMBERS):
        finals[scratch / name] = _qa_path(path, table, Path(name).suffix[1:], failed)
    return finals


def _qa_path(path: Path, table: Table, ending: str, failed: bool) -> Path:
    """Beside the table."""
    root = path.parents[2] if table.subband is None else path.parents[4]
    if table.subband is None:
        return naming.delay_qa_path(root, table.day, ending, failed=failed)
    return naming.bandpass_qa_path(root, table.subband, table.day, table.time.hour, ending, failed=failed)


def _judged(manifest: Manifest, path: Path, table: Table, *, skipped: bool) -> Made:
    """What a table that passed is worth; raises for one that did not."""
    from orca.plots import thumbnail

    failed = path == table.failed
    picture = _qa_path(path, table, "png", failed)
    if not skipped:
        show_picture(table.name, thumbnail(picture), str(picture), manifest.quality)
    if failed:
        problem = f"did not pass: {manifest.quality.get('reason')}"
        report = _qa_path(path, table, "pdf", failed)
        raise FailedCalibrationError(problem, path, f"See {report.name} beside it")
    return Made(
        table=path,
        manifest=naming.manifest_path(path),
        picture=picture,
        seconds=manifest.seconds,
        skipped=skipped,
        quality=manifest.quality,
        warnings=tuple(str(manifest.quality.get("warnings") or "").splitlines()),
    )
