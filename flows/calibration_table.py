"""One calibration table: the task of which the flows of calibration consist.

The science is imported where it runs: the process of the flow starts two seconds sooner without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prefect import task

from flows.common import Frozen, Machines, News, news
from orca import naming, telescope
from orca.antennas import BadAntennas
from orca.calibration.choose import latest_good
from orca.calibration.options import BlockOptions, DelayOptions, SolveOptions
from orca.calibration.planning import Table
from orca.calibration.replacing import replacing
from orca.cluster.artifacts import show_picture
from orca.cluster.worker import report_step, stop_signal
from orca.errors import FailedCalibrationError
from orca.isolation import run_isolated
from orca.manifest import Draft, Manifest, Quality, draft, fresh
from orca.products import publish, withdraw
from orca.quality_limits import QualityLimits
from orca.scratch import Scratch, scratch_folder, sweep
from orca.skyoptions import SkyOptions

if TYPE_CHECKING:
    from orca.calibration.made import Calibrated

_REPORT_BYTES = 100_000_000


class Site(Machines):
    """What the machines are like, and what is known there."""

    calibration: Path
    outriggers: tuple[int, ...] | None
    bad: BadAntennas
    limits: QualityLimits
    threads: int | None = None


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


@task(name="calibrate", task_run_name="{table.name}", persist_result=False)
def make_table(table: Table, how: Options, site: Site, delays: Path | None) -> Made:
    """Make one calibration table: read and solve in a child process, judge, draw, publish. Fresh ones are left alone.

    A table that is not good enough is published beside, as failed, and is an error; an earlier good one stays.
    """
    table = table.still_there()
    making = _begun(table, how, site, delays)
    for failed in (False, True):
        if manifest := fresh(naming.manifest_path(table.path(failed)), making.inputs, making.options):
            return _judged(manifest, table, failed=failed, skipped=True)
    sweep(site.scratch)
    largest = max((entry.size for entry in making.inputs), default=0)
    need = 2 * largest + _REPORT_BYTES + site.reserve_bytes
    with scratch_folder(site.scratch, need_bytes=need, label=table.name) as work:
        sets = "1 Measurement Set" if len(table.sources) == 1 else f"{len(table.sources)} Measurement Sets"
        report_step(table.name, f"solving {sets}")
        made = _calibrated(table, how, site, delays, work)
        report_step(table.name, "publishing")
        manifest, replaced = _published(made, making, table, site, work)
    if made.passed:
        withdraw(naming.manifest_path(table.path(failed=True)))
    return _judged(manifest, table, failed=not made.passed, skipped=False, replaced=replaced)


def ready(made: Made) -> News:
    """What is announced of a table that passed."""
    flagged = made.quality.get("flagged_share")
    told = ["passed", *([f"{flagged:.1%} flagged"] if isinstance(flagged, float) else []), *made.warnings]
    return news("calibration.ready", [made.table], "; ".join(told))


def _kind(table: Table) -> Literal["delay", "bandpass"]:
    return "delay" if table.subband is None else "bandpass"


def _begun(table: Table, how: Options, site: Site, delays: Path | None) -> Draft:
    files = (how.sky.sky_file, how.sky.beam_file, delays)
    inputs = [*table.sources.values(), *(file for file in files if file is not None)]
    particular = {"delay": how.delay} if table.subband is None else {"block": how.block}
    chosen = {"sky": how.sky, "solve": how.solve, **particular, "bad": site.bad.antennas, "limits": site.limits}
    return draft(table.path().name, _kind(table), inputs, chosen)


def _calibrated(table: Table, how: Options, site: Site, delays: Path | None, work: Scratch) -> Calibrated:
    from orca.calibration.making import Knowledge, make_bandpass, make_delays

    isolated: dict[str, Any] = {
        "deadline_s": site.stage_s,
        "stop": stop_signal(),
        "owner": work.owner,
        "disk": work.path,
        "title": table.name,
        "sky": how.sky,
        "solve": how.solve,
        "knowledge": Knowledge(
            bad=site.bad,
            outriggers=site.outriggers,
            previous=latest_good(
                site.calibration, _kind(table), telescope.time_s_of(table.time) - 3600.0, table.subband
            ),
            limits=site.limits,
            acceptance=site.acceptance,
            threads=site.threads,
        ),
    }
    if table.subband is None:
        return run_isolated(make_delays, table.sources, work.path, options=how.delay, missing=table.missing, **isolated)
    sources = [table.sources[stamp] for stamp in sorted(table.sources)]
    return run_isolated(make_bandpass, sources, work.path, block=how.block, delay=delays, **isolated)


def _published(made: Calibrated, making: Draft, table: Table, site: Site, work: Scratch) -> tuple[Manifest, str]:
    """The manifest, and what is to be said of an earlier good table that was made otherwise."""
    failed = not made.passed
    told: Quality = {"n_sets_left_out": len(made.left_out), "warnings": "\n".join(made.warnings)}
    new = making.manifest(
        cpu_seconds=made.cpu_seconds, peak_memory_bytes=made.peak_memory_bytes, quality={**made.numbers, **told}
    )
    manifest_path = naming.manifest_path(table.path(failed))
    files = table.files(work.path, failed)
    if failed:
        return publish(files, new, manifest_path), ""
    with replacing(manifest_path, new, site.trash, site.calibration / "trash") as replaced:
        return publish(files, new, manifest_path), replaced


def _judged(manifest: Manifest, table: Table, *, failed: bool, skipped: bool, replaced: str = "") -> Made:
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
        warnings=(*str(manifest.quality.get("warnings") or "").splitlines(), *([replaced] if replaced else ())),
    )
