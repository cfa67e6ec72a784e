"""The reduction of one block: flagged and averaged in a child process, published, and its originals cleared."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task

from flows.reduction_units import How, Made, Site, Unit
from orca import naming
from orca.block_record import checksums_of, numbers_of, quality_of, rejected_of, written
from orca.cluster.worker import report_step, stop_signal
from orca.errors import DataError, InputError, MissingDataError
from orca.isolation import run_isolated, tell
from orca.manifest import Fingerprint, Manifest, draft, fingerprint, fresh, read_manifest
from orca.products import publish
from orca.reduction import why_kept
from orca.reduction_options import OriginalOptions, ReductionOptions
from orca.scratch import Scratch, scratch_folder, sweep
from orca.trash import trash

if TYPE_CHECKING:
    from orca.ms.reduce import ReducedBlock


class _GrewError(Exception):
    """There is more of a block than there was when its reduction began."""


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
    others = [*unit.tables, *([how.options.strategy] if how.options.strategy else [])]
    making = draft(unit.prefix.name, "reduction", [*sources, *others], chosen)
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
            files = [path for each in made.members for path in (each.averaged, each.flagmeta)]
            absent = [source for source in unit.sources if not source.exists()]
            manifest = publish(
                {path: final / path.name for path in files},
                making.manifest(
                    cpu_seconds=made.cpu_seconds,
                    peak_memory_bytes=made.peak_memory_bytes,
                    quality=quality_of(made, unit.calibration, absent),
                ),
                manifest_path,
            )
    trashed = _clear_originals(unit, manifest, how.originals, site)
    return Made(
        manifest=manifest_path,
        seconds=manifest.seconds,
        skipped=skipped,
        quality=numbers_of(manifest),
        left_h=site.lifetime_h - (datetime.now(UTC) - unit.start) / timedelta(hours=1),
        trashed=trashed,
        kept=sum(source.exists() for _, source in written(manifest)) if how.originals.originals == "trash" else 0,
        warnings=tuple(f"{name} was left out: {why}" for name, why in rejected_of(manifest).items()),
    )


def _sources(unit: Unit, manifest_path: Path) -> tuple[list[Path], list[Fingerprint]]:
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


def _refused(manifest_path: Path, sources: list[Path], gone: list[Fingerprint], options: dict[str, Any]) -> InputError:
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


def _clear_originals(unit: Unit, manifest: Manifest, originals: OriginalOptions, site: Site) -> int:
    """Move to the trash what need not be kept, each after its product was read back; how many were moved."""
    if originals.originals == "keep":
        return 0
    moved = 0
    recorded = {entry.path: entry for entry in manifest.inputs}
    for name, source in written(manifest):
        if not source.exists() or why_kept(naming.parse(source).observation.start, originals):
            continue
        try:
            if not fingerprint(source).same_content(recorded[str(source.resolve())]):
                raise InputError("has changed since it was reduced, and is kept", source, "Reduce it again")
            _read_back(unit, name, source, checksums_of(manifest, name), site)
            trash(source, site.trash)
            moved += 1
        except DataError:
            if source.exists():
                raise  # else another run, or the recorder, was faster
    return moved


def _read_back(unit: Unit, name: str, source: Path, checksums: dict[str, int], site: Site) -> None:
    """Compare an averaged Measurement Set and its flags with what was written; raises DataError if they differ."""
    from orca.ms.averaged import check_reduced

    report_step(unit.name, f"reading back {name}")
    averaged = unit.prefix.parent / name
    with scratch_folder(site.scratch, need_bytes=site.reserve_bytes, label=f"check {name}") as work:
        run_isolated(
            check_reduced,
            checksums,
            averaged,
            averaged.with_name(f"{naming.strip_suffix(source)}_flagmeta.bin"),
            work.path,
            deadline_s=site.stage_s,
            stop=stop_signal(),
            owner=work.owner,
            disk=work.path,
        )
