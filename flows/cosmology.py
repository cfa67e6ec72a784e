"""The split for cosmology: XX and YY of each Measurement Set, published, and the original kept or moved to the trash.

The science is imported where it runs: the process of the flow starts two seconds sooner without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from prefect import task
from pydantic import Field

from flows.common import Frozen, Machines, check_absolute, concluded, distinct_sources
from flows.labels import run_name, run_tags
from orca import config, naming
from orca.cluster.gather import Outcome, gather
from orca.cluster.runner import pool_flow
from orca.cluster.worker import report_step, stop_signal
from orca.disk import make_folder
from orca.errors import DataError, InputError, InvalidDataError, MismatchError, MissingDataError
from orca.isolation import preload, run_isolated
from orca.manifest import Manifest, Quality, draft, fresh, read_manifest
from orca.products import publish
from orca.scratch import scratch_folder, sweep
from orca.split_options import SplitOptions
from orca.trash import list_trash, trash


class Unit(Frozen):
    """One Measurement Set to split.

    Attributes
    ----------
    name : str
    source : Path
        A Measurement Set, or a tar of one.
    product : Path
        Final path of the Measurement Set of XX and YY.
    """

    name: str
    source: Path
    product: Path

    @property
    def manifest(self) -> Path:
        """Where the product's manifest is."""
        return naming.manifest_path(self.product)


class Made(Frozen):
    """A split as published.

    Attributes
    ----------
    note : str
        What else there is to say: why it was made again, what became of the original.
    """

    product: Path
    manifest: Path
    seconds: float
    skipped: bool
    quality: Quality
    note: str = ""


def dask_setup(_worker: Any) -> None:
    """Called by Dask in the workers of this flow."""
    preload(("orca.ms.split",))


@pool_flow("cosmology", "cosmology", partial(run_name, "cosmology"), ("flows.cosmology",), run_tags)
def cosmology(
    measurement_sets: Annotated[list[Path], Field(min_length=1)],
    out: Path | None = None,
    options: SplitOptions = SplitOptions(),
) -> Any:
    """Keep XX and YY of Measurement Sets, and nothing of XY and YX.

    Args:
        measurement_sets: Measurement Sets, or tars of them.
        out: Folder for the products; the configuration's tree for cosmology when not given.
        options: How to split, and what becomes of the originals.
    """
    for path in measurement_sets:
        check_absolute(measurement_sets=path)
    check_absolute(out=out)
    settings = config.load()
    site = Machines.of(settings)
    units = plan(measurement_sets, out, settings.paths.cosmology)
    outcomes = gather(split_unit, {unit.name: {"unit": unit, "options": options, "site": site} for unit in units})
    return concluded(outcomes, "cosmology", {unit.name: [unit.source] for unit in units})


def plan(measurement_sets: Sequence[Path], out: Path | None, root: Path) -> list[Unit]:
    """Which splits to make, and where they go.

    With `out` they go there; without, into the tree of the configuration, `<cosmology>/<SB>/<date>/<HH>/`, or into its
    root where the name does not tell an integration. Of a Measurement Set and its tar the former is taken.

    Raises
    ------
    InputError
        No Measurement Set, two that would make the same product, or an output folder inside an input.
    StorageError
        The output folder cannot be written.
    """
    sources = distinct_sources(measurement_sets, out)
    units = [Unit(name=naming.strip_suffix(s), source=s, product=_product(s, out, root)) for s in sources]
    first: dict[Path, Unit] = {}
    for unit in units:
        if unit is not first.setdefault(unit.product, unit):
            same = first[unit.product].source
            raise InputError(f"would make the same product as {same}", unit.source, "Give each only once")
    for folder in {unit.product.parent for unit in units}:
        make_folder(folder)
    return units


def _product(source: Path, out: Path | None, root: Path) -> Path:
    plain = f"{naming.strip_suffix(source)}_2pol.ms"
    if out is not None:
        return out.absolute() / plain
    try:
        return naming.cosmology_path(root, naming.parse(source).observation, split=True)
    except InputError:  # a name of the user's own
        return root / plain


@task(name="split", task_run_name="split {unit.name}", persist_result=False)
def split_unit(unit: Unit, options: SplitOptions, site: Machines) -> Made:
    """Split one Measurement Set in a child process, publish; only then, if so wished, trash the original.

    Fresh products are left alone, and so are those whose original is in the trash, or gone, since it was split.
    """
    if unit.source.resolve() == unit.product.resolve():
        problem = "has the name of a split: it is split already, or needs another name"
        raise InputError(problem, unit.source, "Give its original, leave it out, or give another output folder")
    if options.original == "trash" and unit.source.is_symlink():
        raise InputError("is a symbolic link, and only it would go to the trash", unit.source, "Give what it points to")
    how = {"average": options.average}  # what becomes of the original changes nothing in the product
    if not unit.source.exists():
        return _made_before(unit, how, site, "there is no such file or folder")
    try:
        made = _fresh_or_made(unit, how, site)
        return made if options.original == "keep" else _without_original(made, unit, site)
    except (DataError, OSError, RuntimeError) as error:  # the last is casacore's
        if unit.source.exists() or isinstance(error, MismatchError):
            if isinstance(error, DataError) and Path(error.path or "").is_relative_to(site.scratch):  # unpacked there
                raise type(error)(error.problem, unit.source, error.remedy) from error
            raise
        return _made_before(unit, how, site, "vanished while it was split")


def _fresh_or_made(unit: Unit, how: dict[str, Any], site: Machines) -> Made:
    making = draft(unit.product.name, "cosmology", [unit.source], how)
    if manifest := fresh(unit.manifest, making.inputs, making.options):
        return _made(manifest, unit, skipped=True)
    again = _why_again(unit)
    sweep(site.scratch)
    [original] = making.inputs
    need = original.size * (2 if original.path.endswith(".tar") else 1)
    with scratch_folder(site.scratch, need_bytes=need + site.reserve_bytes, label=unit.name) as work:
        from orca.ms.split import split

        report_step(unit.name, "splitting")
        made = run_isolated(
            split,
            unit.source,
            work.path / unit.product.name,
            average=how["average"],
            acceptance=site.acceptance,
            deadline_s=site.stage_s,
            stop=stop_signal(),
            owner=work.owner,
            disk=work.path,
        )
        report_step(unit.name, "publishing")
        manifest = publish(
            {made.path: unit.product},
            making.manifest(
                cpu_seconds=made.cpu_seconds, peak_memory_bytes=made.peak_memory_bytes, quality=made.numbers()
            ),
            unit.manifest,
        )
    return _made(manifest, unit, skipped=False, note=again)


def _why_again(unit: Unit) -> str:
    """Why a product that was begun or finished before is made again; nothing if there is none.

    Raises
    ------
    InputError
        It is the only thing that is left of another Measurement Set.
    """
    whole = _whole(unit)
    if whole is None:
        half = unit.product.exists() or unit.manifest.exists()
        return "made again: what was there was not whole, or had no manifest that matches it" if half else ""
    for entry in whole.inputs:
        if not Path(entry.path).exists() and Path(entry.path) != unit.source.resolve():
            problem = f"would replace the split of {entry.path}, which is not there any more"
            raise InputError(problem, unit.source, f"Give another output folder, or move {unit.product} away")
    return "made again: the original or the options are others than before"


def _whole(unit: Unit) -> Manifest | None:
    """The manifest if it describes the product that is there, whatever that was made of."""
    try:
        manifest = read_manifest(unit.manifest)
    except (MissingDataError, InvalidDataError):
        return None
    return fresh(unit.manifest, manifest.inputs, manifest.options)


def _made_before(unit: Unit, how: dict[str, Any], site: Machines, problem: str) -> Made:
    """The product of an original that is not there any more; raises if there is none, and says where to find it."""
    resolved = unit.source.resolve()
    trashed = [entry.path for entry in list_trash(site.trash) if entry.original.resolve() == resolved]
    where = f"in the trash, {trashed[-1]}" if trashed else "gone"
    whole = _whole(unit)
    if whole is not None and [entry.path for entry in whole.inputs] == [str(resolved)]:
        if whole.options == how:
            return _made(whole, unit, skipped=True, note=f"split before; its original is {where}")
        problem = f"is {where}, and was split with --average {whole.options.get('average')}"
    elif unit.product.exists():
        problem = f"is {where}, and {unit.product} is no whole split of it"
    elif trashed:
        problem = f"is {where}, and its split is not there"
    raise MissingDataError(problem, unit.source, "Restore it and run again" if trashed else "Check the name")


def _without_original(made: Made, unit: Unit, site: Machines) -> Made:
    """Move the original to the trash, once what was published has been read back and compared with it."""
    from orca.ms.split import Split, check_split

    need = 0
    if unit.source.suffix == ".tar":  # it is unpacked again, so that nothing hangs on what the split unpacked
        need = site.reserve_bytes + unit.source.stat().st_size
    report_step(unit.name, "reading back")
    with scratch_folder(site.scratch, need_bytes=need, label=unit.name) as work:
        run_isolated(
            check_split,
            unit.product,
            unit.source,
            Split.from_numbers(unit.product, made.quality),
            scratch=work.path,
            deadline_s=site.stage_s,
            stop=stop_signal(),
            owner=work.owner,
            disk=work.path,
        )
    if fresh(unit.manifest, [unit.source], read_manifest(unit.manifest).options) is None:
        raise MismatchError("changed while it was compared with its split, or that did", unit.source, "Run again")
    place = trash(unit.source, site.trash)
    told = [*([made.note] if made.note else []), f"original in the trash, {place}"]
    return made.model_copy(update={"note": "; ".join(told)})


def _made(manifest: Manifest, unit: Unit, *, skipped: bool, note: str = "") -> Made:
    return Made(
        product=unit.product,
        manifest=unit.manifest,
        seconds=manifest.seconds,
        skipped=skipped,
        quality=manifest.quality,
        note=note,
    )


__all__ = ["Made", "Outcome", "Unit", "cosmology", "plan", "split_unit"]
