"""Imaging: each Measurement Set (or several together) calibrated, flagged, imaged by WSClean, drawn and published.

The science is imported where it runs: the process of the flow starts two seconds sooner without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any, Literal

from prefect import task
from pydantic import Field

from flows.common import (
    Frozen,
    Machines,
    News,
    check_absolute,
    concluded,
    distinct_sources,
    news,
    to_announce,
)
from flows.labels import run_name, run_tags
from orca import config, naming, telescope
from orca.calibration.choice_options import ChoiceOptions
from orca.calibration.choose import find_calibration
from orca.cluster.artifacts import show_picture
from orca.cluster.gather import Outcome, gather
from orca.cluster.local import slot
from orca.cluster.runner import pool_flow
from orca.cluster.worker import report_step, stop_signal
from orca.disk import make_folder
from orca.endings import with_tail
from orca.errors import InputError, MissingDataError, OrcaError, ProgramError
from orca.isolation import preload, run_isolated
from orca.manifest import Manifest, Quality, draft, fresh
from orca.process import Stop, find_program
from orca.products import publish, write_text
from orca.scratch import Scratch, scratch_folder, sweep
from orca.wsclean import ImagingOptions, fit_to_machine, scratch_bytes, what_matters

if TYPE_CHECKING:
    from orca.imaging import ImageResult
    from orca.ms.stage import Staged


Calibration = Literal["find", "require", "none"]


class Site(Machines):
    """What the machines are like, and WSClean on them."""

    threads: int
    memory_gb: float
    wsclean: str
    wsclean_s: float


class Unit(Frozen):
    """One image to make.

    Attributes
    ----------
    name : str
    sources : paths of Measurement Sets or tars of them; several are imaged together
    prefix : Path
        What the final names begin with.
    tables : paths
        Calibration tables to apply.
    calibration : str
        Why these, or why none.
    """

    name: str
    sources: tuple[Path, ...]
    prefix: Path
    tables: tuple[Path, ...] = ()
    calibration: str = ""


class Made(Frozen):
    """An image as published."""

    manifest: Path
    files: tuple[Path, ...]
    seconds: float
    skipped: bool
    quality: Quality

    @property
    def picture(self) -> Path:
        """The one to look at."""
        return next(file for file in self.files if file.suffix == ".png")


def dask_setup(_worker: Any) -> None:
    """Called by Dask in the workers of this flow."""
    preload(("orca.ms.stage",))


@pool_flow("imaging", "imaging", partial(run_name, "imaging"), ("flows.imaging",), run_tags)
def imaging(
    measurement_sets: Annotated[list[Path], Field(min_length=1)],
    delay: Path | None = None,
    bandpass: Path | None = None,
    calibration: Calibration = "find",
    out: Path | None = None,
    options: ImagingOptions = ImagingOptions(),
) -> Any:
    """Make calibrated images of Measurement Sets.

    Args:
        measurement_sets: Measurement Sets, or tars of them.
        delay: Delay table (K Jones) to apply, CASA's or ours.
        bandpass: Bandpass table (B Jones) to apply, CASA's or ours.
        calibration: Without tables: "find" the best of the site's calibrations, and go on without if there is none,
            "require" one, or apply "none".
        out: Folder for the images; the configuration's tree when not given.
        options: How to image.
    """
    for path in measurement_sets:
        check_absolute(measurement_sets=path)
    check_absolute(delay=delay, bandpass=bandpass, out=out)
    settings = config.load()
    threads, memory_gb = slot(settings, "imaging")
    site = Site.of(
        settings,
        threads=threads,
        memory_gb=memory_gb,
        wsclean=str(find_program(settings.execs.wsclean, "execs.wsclean")),
        wsclean_s=settings.limits.wsclean_s,
    )
    tables = chosen_tables(delay, bandpass)
    units = plan(measurement_sets, tables, out, settings.paths.images, options.together)
    if not tables and calibration != "none":
        chosen = ChoiceOptions(max_age_days=settings.calibration.max_age_days)
        units = [_calibrated(unit, settings.paths.calibration, chosen, calibration == "require") for unit in units]
    outcomes = gather(image_unit, {unit.name: {"unit": unit, "options": options, "site": site} for unit in units})
    sources = {unit.name: unit.sources for unit in units}
    made = to_announce(outcomes)
    return concluded(outcomes, "imaging", sources, lambda: [_ready(o.result, sources[o.unit]) for o in made])


def chosen_tables(delay: Path | None, bandpass: Path | None) -> tuple[Path, ...]:
    """The calibration tables that were given, each of its kind.

    Raises
    ------
    DataError
        There is no such table, or it is none.
    InputError
        It is of another kind.
    """
    if delay is None and bandpass is None:
        return ()
    from orca.calibration.tables import read_kind

    for name, table, kinds in (("delay", delay, ("K Jones",)), ("bandpass", bandpass, ("B Jones", "G Jones"))):
        if table is not None and (kind := read_kind(Path(table))) not in kinds:
            raise InputError(f"is of kind {kind}; a {name} table is {' or '.join(kinds)}", table, "Give the right one")
    return tuple(Path(table).absolute() for table in (delay, bandpass) if table is not None)


def _calibrated(unit: Unit, root: Path, options: ChoiceOptions, required: bool) -> Unit:
    """The unit with the best calibration that the site has for it."""
    try:
        observation = naming.parse(unit.sources[len(unit.sources) // 2]).observation
        middle_s = telescope.time_s_of(observation.start) + telescope.INTEGRATION_S / 2
        choice = find_calibration(root, observation.subband, middle_s, options)
    except (InputError, MissingDataError) as error:
        if required:
            raise
        return unit.model_copy(update={"calibration": f"none: {error.problem}"})
    tables = tuple(table for table in (choice.delay, choice.bandpass) if table is not None)
    return unit.model_copy(update={"tables": tables, "calibration": choice.why})


def plan(
    measurement_sets: Sequence[Path], tables: Sequence[Path], out: Path | None, images: Path, together: bool
) -> list[Unit]:
    """Which images to make, and where they go.

    With `out` the files go there; without, into the tree of the configuration, `<images>/<SB>/<date>/<HH>/`. Of a
    Measurement Set and its tar the former is taken.

    Raises
    ------
    InputError
        No Measurement Set, two that would make the same image, or an output folder inside an input.
    StorageError
        The output folder cannot be written.
    """
    sources = distinct_sources(measurement_sets, out, tables)
    groups = [tuple(sources)] if together and len(sources) > 1 else [(source,) for source in sources]
    units = [_unit(group, out, images).model_copy(update={"tables": tuple(tables)}) for group in groups]
    first: dict[Path, Unit] = {}
    for unit in units:
        if unit is not first.setdefault(unit.prefix, unit):
            same = first[unit.prefix].sources[0]
            raise InputError(f"would make the same image as {same}", unit.sources[0], "Give each only once")
    for folder in {unit.prefix.parent for unit in units}:
        make_folder(folder)
    return units


def _unit(sources: tuple[Path, ...], out: Path | None, images: Path) -> Unit:
    name = naming.strip_suffix(sources[0])
    folder = out.absolute() if out is not None else images
    if out is None:
        try:
            parsed = naming.parse(sources[0])
            if parsed.subband and parsed.start:
                folder = naming.observation_folder(images, naming.Observation(parsed.subband, parsed.start))
        except InputError:  # a name of the user's own: into the root of the tree
            folder = images
    if len(sources) > 1:
        name = f"{name}_{len(sources)}together"
    return Unit(name=name, sources=sources, prefix=folder / name)


@task(name="image", task_run_name="image {unit.name}", persist_result=False)
def image_unit(unit: Unit, options: ImagingOptions, site: Site) -> Made:
    """Make one image: stage and calibrate in one pass, WSClean, picture, publish. Fresh products are left alone."""
    stop = stop_signal()
    making = draft(unit.prefix.name, "image", [*unit.sources, *unit.tables], what_matters(options))
    manifest_path = naming.manifest_path(unit.prefix)
    if manifest := fresh(manifest_path, making.inputs, making.options):
        return _made(manifest, manifest_path, skipped=True)

    sweep(site.scratch)
    input_bytes = sum(entry.size for entry in making.inputs)
    need = scratch_bytes(options, input_bytes, any(source.suffix == ".tar" for source in unit.sources))
    with scratch_folder(site.scratch, need_bytes=need + site.reserve_bytes, label=unit.name) as work:
        report_step(unit.name, "calibrating")
        staged = _stage(unit, options, site, work, stop)
        report_step(unit.name, "imaging")
        Thread(target=_import_drawing, daemon=True).start()
        made = _image(staged, unit, options, site, work, stop)
        report_step(unit.name, "drawing")
        pictures = _draw(made, work.path / unit.name, "" if unit.tables else "not calibrated")
        report_step(unit.name, "publishing")
        files = [*made.files, *pictures, Path(made.record.log)]
        manifest = publish(
            {path: unit.prefix.parent / path.name for path in files},
            making.manifest(
                programs=[made.record],
                software={"wsclean": made.version},
                cpu_seconds=staged.cpu_seconds,
                peak_memory_bytes=staged.peak_memory_bytes,
                quality={
                    "calibration": unit.calibration or ("as given" if unit.tables else "none"),
                    "flagged_share": staged.flagged_share,
                    "zero_share": staged.zero_share,
                    "stage_seconds": staged.seconds,
                    **made.numbers(),
                },
            ),
            manifest_path,
        )
    unit.prefix.with_name(f"{unit.prefix.name}.failed.log").unlink(missing_ok=True)
    from orca.plots import thumbnail

    made_now = _made(manifest, manifest_path, skipped=False)
    show_picture(unit.name, thumbnail(made_now.picture), str(made_now.picture), manifest.quality)
    return made_now


def _stage(unit: Unit, options: ImagingOptions, site: Site, work: Scratch, stop: Stop) -> Staged:
    """Write the calibrated Measurement Set into scratch, in a process of its own, which casacore may abort."""
    from orca.ms.stage import stage

    return run_isolated(
        stage,
        unit.sources,
        work.path / f"{unit.name}.ms",
        tables=unit.tables,
        flag_antennas=options.flag_antennas,
        acceptance=site.acceptance,
        deadline_s=site.stage_s,
        stop=stop,
        owner=work.owner,
        disk=work.path,
    )


def _image(staged: Staged, unit: Unit, options: ImagingOptions, site: Site, work: Scratch, stop: Stop) -> ImageResult:
    """Run WSClean; when it fails, its log is kept."""
    from orca.imaging import image

    try:
        return image(
            staged.path,
            fit_to_machine(options, site.threads, site.memory_gb),
            site.wsclean,
            work.path,
            unit.name,
            stop=stop,
            owner=work.owner,
            deadline_s=site.wsclean_s,
        )
    except OrcaError as error:
        raise _told(error, unit, work) from error


def _import_drawing() -> None:
    """What is needed after the imager, imported while it runs: two seconds in a worker's first task."""
    import_module("orca.plots")
    import_module("orca.warm")


def _draw(made: ImageResult, prefix: Path, note: str) -> list[Path]:
    """Draw the image of each polarization; the first one's picture has the bare name."""
    from orca.plots import sky_picture

    pictures: list[Path] = []
    for pol, fits in made.pictures.items():
        pictures.append(prefix.with_name(f"{prefix.name}{f'-{pol}' if pictures else ''}.png"))
        sky_picture(fits, pictures[-1], note=note, examined=made.quality[pol])
    return pictures


def _told(error: OrcaError, unit: Unit, work: Scratch) -> OrcaError:
    """An error of the imager in terms of what the user knows; the log of a failed program is kept."""
    path, remedy = error.path, error.remedy
    if path is not None and Path(path).is_relative_to(work.path):
        path = str(unit.sources[0])
    log = work.path / f"{unit.name}.log"
    if isinstance(error, ProgramError) and log.exists():
        kept = unit.prefix.with_name(f"{unit.prefix.name}.failed.log")
        write_text(kept, log.read_text(errors="replace"))
        remedy = f"See {kept}"
    return with_tail(type(error)(error.problem, path, remedy), error.tail)


def _ready(made: Made, sources: Sequence[Path]) -> News:
    """What is announced of an image."""
    own = {key: value for key, value in made.quality.items() if key.endswith((" rms_jy", " peak_jy"))}
    told = [f"{key} {value:.4g}" for key, value in own.items() if key.count(" ") == 1 and isinstance(value, float)]
    text = "; ".join([*told, f"calibration: {made.quality.get('calibration')}"])
    return news("image.ready", made.files, text, sources)


def _made(manifest: Manifest, path: Path, *, skipped: bool) -> Made:
    files = tuple(Path(output.path) for output in manifest.outputs)
    return Made(manifest=path, files=files, seconds=manifest.seconds, skipped=skipped, quality=manifest.quality)


__all__ = ["Made", "Outcome", "Site", "Unit", "image_unit", "imaging", "plan"]
