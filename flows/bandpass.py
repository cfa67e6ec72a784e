"""Calibration: the delays of a day, the bandpass of each subband, and the nightly calibration that is made of both.

The science is imported where it runs: the process of the flow starts two seconds sooner without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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
from orca.calibration.planning import Table, last_transit, plan_bandpasses, plan_delay
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
from orca.scratch import scratch_folder, sweep
from orca.skyoptions import SkyOptions

if TYPE_CHECKING:
    from orca.calibration.made import Calibrated
    from orca.calibration.making import Knowledge

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
    table = replace(table, sources=there)
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
    making = draft(table.path().name, kind, inputs, chosen)
    for failed in (False, True):
        if manifest := fresh(naming.manifest_path(table.path(failed)), making.inputs, making.options):
            return _judged(manifest, table, failed=failed, skipped=True)

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
        failed = not made.passed
        told: Quality = {"left_out": len(made.left_out), "warnings": "\n".join(_warnings(made, table))}
        manifest = publish(
            _files(work.path, table, failed=failed),
            making.manifest(
                cpu_seconds=made.cpu_seconds,
                peak_memory_bytes=made.peak_memory_bytes,
                quality={**made.numbers, **told},
            ),
            naming.manifest_path(table.path(failed)),
        )
    if made.passed:
        withdraw(naming.manifest_path(table.path(failed=True)))
    return _judged(manifest, table, failed=failed, skipped=False)


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


def _warnings(made: Calibrated, table: Table) -> list[str]:
    """What somebody should know who uses the table; what is noted of single antennas is left to the report."""
    warnings = list(made.warnings)
    if made.left_out:
        named = [f"{name}: {reason}" for name, reason in list(made.left_out.items())[:_SHOWN]]
        more = [f"and {len(made.left_out) - _SHOWN} more"] if len(made.left_out) > _SHOWN else []
        count = f"{len(made.left_out)} of {len(table.sources)} Measurement Sets left out"
        warnings.append(f"{count} ({'; '.join([*named, *more])})")
    return [*warnings, *made.notes]


def _files(scratch: Path, table: Table, *, failed: bool) -> dict[Path, Path]:
    """What goes where."""
    from orca.calibration import made

    reports = {scratch / name: table.report(Path(name).suffix[1:], failed) for name in made.REPORTS}
    return {scratch / made.TABLE: table.path(failed), **reports}


def _judged(manifest: Manifest, table: Table, *, failed: bool, skipped: bool) -> Made:
    """What a table that passed is worth; raises for one that did not."""
    from orca.plots import thumbnail

    path, picture = table.path(failed), table.report("png", failed)
    if not skipped:
        show_picture(table.name, thumbnail(picture), str(picture), manifest.quality)
    if failed:
        problem = f"did not pass: {manifest.quality.get('reason')}"
        raise FailedCalibrationError(problem, path, f"See {table.report('pdf', failed).name} beside it")
    return Made(
        table=path,
        manifest=naming.manifest_path(path),
        picture=picture,
        seconds=manifest.seconds,
        skipped=skipped,
        quality=manifest.quality,
        warnings=tuple(str(manifest.quality.get("warnings") or "").splitlines()),
    )
