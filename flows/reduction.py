"""Reduction: flag and average what was recorded, block by block, before the recorder deletes it."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.runtime import deployment

from flows.common import News, check_absolute, concluded
from flows.labels import run_name, run_tags
from flows.reduction_block import reduce_block_task
from flows.reduction_units import How, Site, Unit
from orca import config, telescope
from orca.antennas import bad_antennas
from orca.calibration.choose import ChoiceOptions, find_calibration
from orca.cluster.gather import Outcome, gather, summary
from orca.cluster.pools import pool_name
from orca.cluster.runner import pool_flow
from orca.errors import DataError, MissingDataError
from orca.isolation import preload
from orca.recordings import strangers
from orca.reduction import Block, finished_hours, plan_day, plan_given, plan_hours, why_kept
from orca.reduction_options import OriginalOptions, ReductionOptions, check_options


def dask_setup(_worker: Any) -> None:
    """Called by Dask in the workers of this flow."""
    preload(("orca.ms.reduce",))


@pool_flow("default", "reduction", partial(run_name, "reduction", "last 24 h"), ("flows.reduction",), run_tags)
def reduction(
    measurement_sets: list[Path] | None = None,
    day: date | None = None,
    hours: list[int] | None = None,
    last_hours: int | None = None,
    subbands: list[str] | None = None,
    raw: Path | None = None,
    out: Path | None = None,
    options: ReductionOptions = ReductionOptions(),
    originals: OriginalOptions = OriginalOptions(),
) -> Any:
    """Flag and average raw data, the oldest first, and keep their flags at full resolution.

    Args:
        measurement_sets: Raw Measurement Sets, or tars of them; those below the root of the raw data when not given.
        day: Date to reduce, UTC.
        hours: Hours of that day (UTC); all when not given.
        last_hours: Without a date, so many hours that are over; 24 when not given.
        subbands: Such as 73MHz; all that were recorded when not given.
        raw: Root of the raw data; the configuration's when not given.
        out: Root of the averaged data; the configuration's when not given.
        options: How to flag and average.
        originals: What becomes of the originals once their products were read back.
    """
    for path in measurement_sets or ():
        check_absolute(measurement_sets=path)
    check_absolute(raw=raw, out=out, strategy=options.strategy)
    settings = config.load()
    averaged = (out or settings.paths.averaged).absolute()
    blocks = _planned(measurement_sets, day, hours, last_hours, subbands, raw or settings.paths.raw, averaged, options)
    why_kept(blocks[0].start, originals)  # a source that nobody knows is told before any work
    _check_options(blocks, options)
    _tell_ignored(blocks)
    if options.strategy is not None:
        from orca.flagging import check_strategy

        check_strategy(options.strategy)
    site = Site.of(settings, lifetime_h=settings.limits.raw_lifetime_h)
    units = [_unit(block, settings, options) for block in blocks]
    how = How(options=options, originals=originals)
    outcomes = gather(reduce_block_task, {u.name: {"unit": u, "how": how, "site": site} for u in units})
    _tell_time_left(outcomes, blocks, site.lifetime_h)
    sources = {block.name: block.sources for block in blocks}
    return concluded(outcomes, "reduction", sources, lambda: _night(outcomes, blocks, settings.queue.prefix))


def _planned(
    given: list[Path] | None,
    day: date | None,
    hours: list[int] | None,
    last_hours: int | None,
    subbands: list[str] | None,
    raw: Path,
    averaged: Path,
    options: ReductionOptions,
) -> list[Block]:
    if given:
        return plan_given(given, averaged, options.block)
    if day is not None:
        return plan_day(raw.absolute(), averaged, options.block, day, subbands, hours)
    first, last = finished_hours(last_hours or 24, datetime.now(UTC))
    return plan_hours(raw.absolute(), averaged, options.block, first, last, subbands, hours)


def _check_options(blocks: list[Block], options: ReductionOptions) -> None:
    """Refuse before any work what every block would refuse; tars are not opened for it."""
    from orca.ms.inspect import inspect

    for source in islice((s for block in blocks for s in block.sources if s.suffix != ".tar"), 3):
        try:
            recorded = inspect(source, settle_s=0)
        except DataError:
            continue  # told by its block
        check_options(recorded, options)
        return


def _tell_ignored(blocks: list[Block]) -> None:
    found = strangers({source.parent for block in blocks for source in block.sources})
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        names = ", ".join(str(path) for path in found[:3])
        get_run_logger().warning("left alone, as their names are none of the recorder's: %s%s", names, more)


def _unit(block: Block, settings: config.Config, options: ReductionOptions) -> Unit:
    """A block with its calibration and its bad antennas."""
    known = settings.calibration
    bad = bad_antennas(known.bad_antennas, block.start.date())
    unit = Unit(name=block.name, start=block.start, sources=block.sources, prefix=block.prefix, bad=bad.antennas)
    if options.calibrate == "none":
        return unit
    middle_s = telescope.time_s_of(block.start) + options.block * telescope.INTEGRATION_S / 2
    try:
        choice = find_calibration(
            settings.paths.calibration, block.subband, middle_s, ChoiceOptions(max_age_days=known.max_age_days)
        )
    except MissingDataError as error:
        if options.calibrate == "require":
            raise
        return unit.model_copy(update={"calibration": f"none: {error.problem}"})
    tables = tuple(table for table in (choice.delay, choice.bandpass) if table is not None)
    return unit.model_copy(update={"tables": tables, "calibration": choice.why})


def _tell_time_left(outcomes: list[Outcome], blocks: list[Block], lifetime_h: float) -> None:
    """How long the raw data of what is not reduced will last."""
    failed = {outcome.unit for outcome in outcomes if outcome.status == "failed"}
    left = [block.left_h(lifetime_h, datetime.now(UTC)) for block in blocks if block.name in failed]
    if left:
        when = f"in {min(left):.1f} h" if min(left) > 0 else "any moment, if they are there still"
        what = "1 block is" if len(left) == 1 else f"{len(left)} blocks are"
        get_run_logger().warning("%s not reduced; the first of their raw data are deleted %s", what, when)


def _night(outcomes: list[Outcome], blocks: list[Block], prefix: str) -> list[News]:
    """What is announced at the end of the deployment that reduces what is left of a night."""
    if deployment.name != pool_name(prefix, "reduction-night"):
        return []
    first, last = blocks[0].start, blocks[-1].start
    counts = Counter[str](outcome.status for outcome in outcomes)
    return [
        {
            "kind": "night.done",
            "day": first.date(),
            "last_day": last.date(),
            "text": f"{first:%Y-%m-%d %Hh} to {last:%Y-%m-%d %Hh}: {summary(outcomes)}",
            "numbers": {status: counts[status] for status in ("done", "skipped", "failed")},
        }
    ]


__all__ = ["reduction"]
