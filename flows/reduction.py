"""Reduction: flag and average what was recorded, block by block, before the recorder deletes it."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import get_run_logger, task
from prefect.runtime import deployment, flow_run

from flows.common import Frozen, Machines, News, Quality, check_absolute, concluded, named_after_sets
from orca import config, naming, telescope
from orca.antennas import bad_antennas
from orca.calibration.choose import ChoiceOptions, find_calibration
from orca.cluster.gather import Outcome, gather, summary
from orca.cluster.pools import pool_name
from orca.cluster.runner import pool_flow
from orca.cluster.worker import report_step, stop_signal
from orca.errors import DataError, InputError, MissingDataError
from orca.isolation import preload, run_isolated, tell
from orca.manifest import Manifest, draft, fingerprint, fresh, read_manifest
from orca.products import publish
from orca.recordings import strangers
from orca.reduction import Block, finished_hours, plan_day, plan_given, plan_hours, why_kept
from orca.reduction_options import OriginalOptions, ReductionOptions, check_options
from orca.scratch import Scratch, scratch_folder, sweep
from orca.trash import trash

if TYPE_CHECKING:
    from orca.ms.reduce import ReducedBlock

_MODULE = "orca.ms.reduce"
_REJECTED, _CHECKSUMS, _SOURCE = "left out ", "checksums ", "source "


class Site(Machines):
    """What the machines are like, and how many hours the recorder keeps raw data."""

    lifetime_h: float


class Unit(Frozen):
    """One block to reduce.

    Attributes
    ----------
    name : str
    start : datetime
        Of its first integration.
    sources : paths
    prefix : Path
        What its manifest is called after.
    tables : paths
        Calibration tables to apply first.
    calibration : str
        Why these, or why none.
    bad : antennas that are known to be bad on that day
    """

    name: str
    start: datetime
    sources: tuple[Path, ...]
    prefix: Path
    tables: tuple[Path, ...] = ()
    calibration: str = "none"
    bad: tuple[int | str, ...] = ()


class How(Frozen):
    """How to reduce it, and what becomes of the originals."""

    options: ReductionOptions
    originals: OriginalOptions


class Made(Frozen):
    """A block as published."""

    manifest: Path
    seconds: float
    skipped: bool
    quality: Quality
    left_h: float
    trashed: int = 0
    kept: int = 0
    """Originals that are still there although others may go to the trash."""
    warnings: tuple[str, ...] = ()


class _GrewError(Exception):
    """There is more of a block than there was when its reduction began."""


def dask_setup(_worker: Any) -> None:
    """Called by Dask in the workers of this flow."""
    preload((_MODULE,))


def _run_name() -> str:
    """What a flow run is called on Prefect's page: reduction 2026-01-10."""
    asked = flow_run.parameters
    if asked.get("measurement_sets"):
        return named_after_sets("reduction")
    span = f"last {asked.get('last_hours') or 24} h"
    return f"reduction {asked.get('day') or span}"


@pool_flow("default", "reduction", _run_name, ("flows.reduction",))
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


@task(name="reduce", task_run_name="reduce {unit.name}", persist_result=False)
def reduce_block_task(unit: Unit, how: How, site: Site) -> Made:
    """Reduce one block: read, flag and average in a child process, publish. Fresh ones are left alone."""
    try:
        return _fresh_or_reduced(unit, how, site)
    except _GrewError:
        return _fresh_or_reduced(unit, how, site)
    except DataError:
        if all(source.exists() for source in unit.sources):
            raise
        return _fresh_or_reduced(unit, how, site)  # somebody else has reduced it meanwhile, and trashed the originals


def _fresh_or_reduced(unit: Unit, how: How, site: Site) -> Made:
    manifest_path = naming.manifest_path(unit.prefix)
    sources, gone = _sources(unit, manifest_path)
    chosen = {**how.options.model_dump(mode="json"), "bad": unit.bad}
    files = [*unit.tables, *([how.options.strategy] if how.options.strategy else [])]
    making = draft(unit.prefix.name, "reduction", [*sources, *files], chosen)
    manifest = fresh(manifest_path, [*making.inputs, *gone], making.options)
    skipped = manifest is not None
    if manifest is None:
        if gone:
            raise _refused(manifest_path, sources, gone, making.options)
        sweep(site.scratch)
        need = _scratch_bytes(sources, how.options) + site.reserve_bytes
        with scratch_folder(site.scratch, need_bytes=need, label=unit.name) as work:
            made = _reduced(unit, sources, how, site, work)
            if set(_sources(unit, manifest_path)[0]) - set(sources):
                raise _GrewError  # another run has published others of this block meanwhile
            report_step(unit.name, "publishing")
            final = unit.prefix.parent
            written = [path for each in made.members for path in (each.averaged, each.flagmeta)]
            absent = [source for source in unit.sources if not source.exists()]
            manifest = publish(
                {path: final / path.name for path in written},
                making.manifest(
                    cpu_seconds=made.cpu_seconds,
                    peak_memory_bytes=made.peak_memory_bytes,
                    quality=_quality(made, unit.calibration, absent),
                ),
                manifest_path,
            )
    trashed = _clear_originals(unit, manifest, how.originals, site)
    rejected = {k.removeprefix(_REJECTED): v for k, v in manifest.quality.items() if k.startswith(_REJECTED)}
    return Made(
        manifest=manifest_path,
        seconds=manifest.seconds,
        skipped=skipped,
        quality={k: v for k, v in manifest.quality.items() if not k.startswith((_CHECKSUMS, _SOURCE))},
        left_h=site.lifetime_h - (datetime.now(UTC) - unit.start) / timedelta(hours=1),
        trashed=trashed,
        kept=sum(source.exists() for _, source in _written(manifest)) if how.originals.originals == "trash" else 0,
        warnings=tuple(f"{name} was left out: {why}" for name, why in rejected.items()),
    )


def _sources(unit: Unit, manifest_path: Path) -> tuple[list[Path], list[Any]]:
    """What there is to reduce, with what the block was made of before, and the fingerprints of what is gone of that."""
    there = [source for source in unit.sources if source.exists()]
    try:
        before = read_manifest(manifest_path)
    except DataError:
        before = None
    known = [entry for entry in before.inputs if _is_raw(Path(entry.path))] if before else []
    gone = [entry for entry in known if not Path(entry.path).exists()]
    resolved = {source.resolve() for source in there}
    there += [Path(e.path) for e in known if e not in gone and Path(e.path).resolve() not in resolved]
    if before is not None and not all(Path(output.path).exists() for output in before.outputs):
        gone = []  # the product is gone as well: what is there is all that can be reduced
    if not there and not gone:
        raise MissingDataError("its raw data are gone", unit.sources[0], "Nothing can be done; see the trash")
    return sorted(there, key=lambda path: path.name), gone


def _refused(manifest_path: Path, sources: list[Path], gone: list[Any], options: dict[str, Any]) -> InputError:
    """Why a block is not made again: it would be smaller."""
    before = read_manifest(manifest_path)
    known = {Path(entry.path).name for entry in before.inputs}
    new = [source.name for source in sources if source.name not in known]
    why = f"{', '.join(new)} came" if new else "the files or the options changed"
    return InputError(
        f"is left as it is: {why} after {len(gone)} of its originals were removed, and it would lose these",
        manifest_path,
        "Restore the originals from the trash, or give another --out",
    )


def _scratch_bytes(sources: list[Path], options: ReductionOptions) -> int:
    """What the averaged files and the flags take, and tars when they are unpacked."""
    sizes = {source: fingerprint(source).size for source in sources}
    written = sum(size * (1.1 / options.average + 0.03) for size in sizes.values())
    unpacked = sum(size for source, size in sizes.items() if source.suffix == ".tar")
    packed = max(sizes.values(), default=0) if options.tar else 0
    return int(written + unpacked + packed)


def _is_raw(path: Path) -> bool:
    """Whether a name is one of the recorder's."""
    try:
        return naming.parse(path).kind is naming.Kind.RAW
    except InputError:
        return False


def _reduced(unit: Unit, sources: list[Path], how: How, site: Site, work: Scratch) -> ReducedBlock:
    from orca.ms.reduce import reduce_block

    return run_isolated(
        reduce_block,
        sources,
        work.path,
        how.options,
        tables=unit.tables,
        bad_antennas=unit.bad,
        acceptance=site.acceptance,
        progress=tell,
        deadline_s=site.stage_s,
        stop=stop_signal(),
        listen=partial(report_step, unit.name),
        owner=work.owner,
        disk=work.path,
    )


def _quality(made: ReducedBlock, calibration: str, absent: list[Path]) -> Quality:
    members = made.members
    numbers: Quality = {
        "integrations": len(members),
        "left_out": len({*(each.source for each in made.rejected), *absent}),
        "rfi_share": made.rfi_share,
        "flagged_share": sum(member.flagged_share for member in members) / len(members),
        "zero_share": sum(member.zero_share for member in members) / len(members),
        "channels": made.n_channels,
        "flagging_cpu_seconds": made.flagging_cpu_seconds,
        "calibration": calibration,
    }
    numbers |= {f"{_REJECTED}{source.name}": "there is no such file" for source in absent}
    numbers |= {f"{_REJECTED}{each.source.name}": each.reason for each in made.rejected}
    numbers |= {f"{_SOURCE}{each.averaged.name}": str(each.source) for each in members}
    return numbers | {f"{_CHECKSUMS}{each.averaged.name}": _as_text(each.checksums) for each in members}


def _as_text(checksums: dict[str, int]) -> str:
    return " ".join(f"{name} {value:08x}" for name, value in checksums.items())


def _as_numbers(text: str) -> dict[str, int]:
    words = text.split()
    return {name: int(value, 16) for name, value in zip(words[::2], words[1::2], strict=True)}


def _clear_originals(unit: Unit, manifest: Manifest, originals: OriginalOptions, site: Site) -> int:
    """Move to the trash what need not be kept, each after its product was read back; how many were moved."""
    if originals.originals == "keep":
        return 0
    moved = 0
    recorded = {entry.path: entry for entry in manifest.inputs}
    for name, source in _written(manifest):
        if not source.exists() or why_kept(naming.parse(source).observation.start, originals):
            continue
        try:
            if not fingerprint(source).same_content(recorded[str(source.resolve())]):
                raise InputError("has changed since it was reduced, and is kept", source, "Reduce it again")
            _read_back(unit, name, source, str(manifest.quality[f"{_CHECKSUMS}{name}"]), site)
            trash(source, site.trash)
            moved += 1
        except DataError:
            if source.exists():
                raise  # else another run, or the recorder, was faster
    return moved


def _read_back(unit: Unit, name: str, source: Path, checksums: str, site: Site) -> None:
    """Compare an averaged Measurement Set and its flags with what was written; raises DataError if they differ."""
    from orca.ms.averaged import check_reduced

    report_step(unit.name, f"reading back {name}")
    averaged = unit.prefix.parent / name
    with scratch_folder(site.scratch, need_bytes=site.reserve_bytes, label=f"check {name}") as work:
        run_isolated(
            check_reduced,
            _as_numbers(checksums),
            averaged,
            averaged.with_name(f"{naming.strip_suffix(source)}_flagmeta.bin"),
            work.path,
            deadline_s=site.stage_s,
            stop=stop_signal(),
            owner=work.owner,
            disk=work.path,
        )


def _written(manifest: Manifest) -> list[tuple[str, Path]]:
    """Names of the averaged files, each with its original."""
    return [
        (key.removeprefix(_SOURCE), Path(str(value)))
        for key, value in manifest.quality.items()
        if key.startswith(_SOURCE)
    ]


__all__ = ["Made", "Site", "Unit", "reduce_block_task", "reduction"]
