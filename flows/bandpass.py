"""Calibration: the delays of a day, the bandpass of each subband, and the nightly calibration that is made of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.context import FlowRunContext
from prefect.states import Cancelled

from flows.calibration_table import Options, Site, make_table, ready
from flows.common import check_absolute, concluded, to_announce
from flows.labels import run_name, run_tags
from orca import config, telescope
from orca.antennas import bad_antennas
from orca.calibration.choose import delays_for
from orca.calibration.nightly import check_recorded, why_too_late
from orca.calibration.options import BlockOptions, DelayOptions, SolveOptions
from orca.calibration.planning import (
    Table,
    last_transit,
    not_recorded,
    plan_bandpasses,
    plan_delay,
    subbands_of_delays,
)
from orca.calibration.request import check_antennas, checked_sky, complete_block
from orca.cluster.gather import Outcome, gather
from orca.cluster.local import slot
from orca.cluster.runner import pool_flow
from orca.config import Config
from orca.isolation import preload
from orca.quality_limits import QualityLimits
from orca.skyoptions import SkyOptions


def dask_setup(_worker: Any) -> None:
    """Called by Dask in the workers of these flows."""
    preload(("orca.calibration.making", "orca.warm"))


_PRELOAD = ("flows.bandpass",)


@pool_flow("bandpass", "delay", partial(run_name, "delay", "last transit"), _PRELOAD, run_tags)
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
    asked = _asked(day, raw, out, sky, solve)
    _warn(not_recorded(asked.raw, asked.day, subbands_of_delays(options)))
    table = plan_delay(asked.day, asked.raw, asked.site.calibration, options)
    asked = asked.checked([table])
    return _concluded(_make([table], asked.how(delay=options), asked.site), "delay", [table])


@pool_flow("bandpass", "bandpass", partial(run_name, "bandpass", "last transit"), _PRELOAD, run_tags)
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
    asked = _asked(day, raw, out, sky, solve)
    block = asked.block(block)
    tables = _plan_bandpasses(asked, subbands, hours, block)
    asked = asked.checked(tables)
    outcomes = _make(tables, asked.how(block=block), asked.site, asked.delays() if use_delay else None)
    return _concluded(outcomes, "bandpass", tables)


@pool_flow(
    "bandpass", "nightly-calibration", partial(run_name, "nightly-calibration", "last transit"), _PRELOAD, run_tags
)
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
        day: Date of the transit, UTC; that of the last one when not given. A scheduled run takes the one before its
            time, ends as cancelled when that one's data are deleted, and fails when nothing was recorded since.
        subbands: Those to solve for a bandpass; all that were recorded when not given.
        raw: Root of the raw data; the configuration's when not given.
        out: Root of the calibrations; the configuration's when not given.
        sky: Sources of the model. With Cyg A alone, delays would be off by 0.4 ns: Cas A is half as bright.
        solve: How to solve.
        block: Which integrations make a bandpass.
        delay_options: Which data show the delays.
    """
    if day is None and (scheduled := _scheduled_for()) is not None:
        transit = last_transit(scheduled)
        if late := why_too_late(transit, datetime.now(UTC)):
            return Cancelled(message=late)
        check_recorded(raw or config.load().paths.raw, scheduled)
        day = transit.date()
    asked = _asked(day, raw, out, sky, solve)
    block = asked.block(block)
    tables = _plan_bandpasses(asked, subbands, None, block)
    of_delay = plan_delay(asked.day, asked.raw, asked.site.calibration, delay_options)
    asked = asked.checked([of_delay, *tables])
    first = _make([of_delay], asked.how(delay=delay_options), asked.site, planned=1 + len(tables))
    rest = _make(tables, asked.how(block=block), asked.site, asked.delays(), planned=0)
    return _concluded([*first, *rest], "nightly-calibration", [of_delay, *tables])


def _scheduled_for() -> datetime | None:
    """When this flow run was to start, if a schedule made it."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    return run.expected_start_time if run is not None and run.auto_scheduled else None


@dataclass(frozen=True)
class _Asked:
    """What all flows are asked for, with what the configuration adds."""

    day: date
    raw: Path
    sky: SkyOptions
    solve: SolveOptions
    settings: Config
    site: Site

    def block(self, block: BlockOptions) -> BlockOptions:
        """With the configuration's numbers where none were asked for."""
        known = self.settings.calibration
        return complete_block(block, known.integrations, known.min_integrations)

    def checked(self, tables: Sequence[Table]) -> _Asked:
        """After a look whether the array has the antennas that were named; raises before any work."""
        sources = [source for table in tables for source in table.sources.values()]
        bad = check_antennas(self.solve, self.site.bad, sources)
        return replace(self, site=self.site.model_copy(update={"bad": bad}))

    def how(self, **particular: Any) -> Options:
        """With the configuration's reference antenna where none was asked for."""
        reference = self.solve.reference_antenna or str(self.settings.calibration.reference_antenna)
        return Options(sky=self.sky, solve=self.solve.model_copy(update={"reference_antenna": reference}), **particular)

    def delays(self) -> Path | None:
        """The delay table of the day, or the last good one before that is not too old."""
        found, warning = delays_for(self.site.calibration, self.day, self.settings.calibration.max_age_days)
        _warn(warning)
        return found


def _asked(day: date | None, raw: Path | None, out: Path | None, sky: SkyOptions, solve: SolveOptions) -> _Asked:
    check_absolute(raw=raw, out=out)
    settings = config.load()
    when, known = day or last_transit().date(), settings.calibration
    site = Site.of(
        settings,
        calibration=(out or settings.paths.calibration).absolute(),
        outriggers=settings.telescope.outriggers,
        bad=bad_antennas(known.bad_antennas, when),  # asked once, so that all tables of a night agree
        limits=QualityLimits(alarm_ns=known.alarm_ns),
        threads=slot(settings, "bandpass")[0],
    )
    return _Asked(when, raw or settings.paths.raw, checked_sky(sky), solve, settings, site)


def _plan_bandpasses(
    asked: _Asked, subbands: Sequence[str] | None, hours: Sequence[int] | None, block: BlockOptions
) -> list[Table]:
    tables = plan_bandpasses(asked.day, subbands, hours, asked.raw, asked.site.calibration, block)
    if not subbands:
        _warn(not_recorded(asked.raw, asked.day, [band.name for band in telescope.SUBBANDS]))
    return tables


def _warn(text: str) -> None:
    if text:
        get_run_logger().warning("%s", text)


def _make(
    tables: Sequence[Table], how: Options, site: Site, delays: Path | None = None, planned: int | None = None
) -> list[Outcome]:
    units = {table.name: {"table": table, "how": how, "site": site, "delays": delays} for table in tables}
    return gather(make_table, units, planned=planned)


def _concluded(outcomes: list[Outcome], title: str, tables: Sequence[Table]) -> Any:
    sources = {table.name: list(table.sources.values()) for table in tables}
    made = [outcome.result for outcome in to_announce(outcomes)]
    return concluded(outcomes, title, sources, lambda: map(ready, made), stage="calibration")
