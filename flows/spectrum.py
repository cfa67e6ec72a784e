"""Dynamic spectra: spectra of Measurement Sets, batch by batch, into the cache; then a product of each kind of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import date
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prefect import task

from flows.common import check_absolute, concluded
from flows.labels import run_name, run_tags
from flows.spectrum_units import How, Made, Reduced, Request, Site, span_of
from orca import __version__, config, naming, telescope
from orca.antennas import bad_antennas
from orca.cluster.artifacts import show_picture
from orca.cluster.gather import Outcome, gather
from orca.cluster.runner import pool_flow
from orca.cluster.security import secured
from orca.cluster.worker import report_step, stop_signal
from orca.errors import DataError
from orca.isolation import preload, run_isolated, tell
from orca.ms.acceptance import Acceptance
from orca.reduction_options import ReductionOptions
from orca.scratch import scratch_folder, sweep
from orca.spectrum import Batch, chosen, place_rad, plan_given
from orca.spectrum_options import SpectrumOptions, polarizations

if TYPE_CHECKING:
    from orca.cache import Entry
    from orca.dynspec import Expected
    from orca.ms.members import Rejected
    from orca.ms.spectrum import Spectra

_MODULE = "orca.ms.spectrum"


def dask_setup(_worker: Any) -> None:
    """Called by Dask in the workers of this flow."""
    preload((_MODULE,))


@pool_flow("default", "spectrum", partial(run_name, "spectrum"), ("flows.spectrum",), run_tags)
def spectrum(
    measurement_sets: list[Path] | None = None,
    day: date | None = None,
    hours: list[int] | None = None,
    subbands: list[str] | None = None,
    data: Literal["raw", "averaged"] = "raw",
    root: Path | None = None,
    out: Path | None = None,
    average: int | None = None,
    again: bool = False,
    options: SpectrumOptions = SpectrumOptions(),
) -> Any:
    """Make dynamic spectra: of each Measurement Set first, then a product of each spectrum and polarization.

    Args:
        measurement_sets: Measurement Sets, or tars of them; those of a date when not given.
        day: Date, UTC.
        hours: Hours of that day (UTC); all when not given.
        subbands: Such as 73MHz; all that are there when not given.
        data: Take raw or averaged data of that date.
        root: Root of these; the configuration's when not given.
        out: Root of the dynamic spectra; the configuration's when not given.
        average: Recorded channels in one channel of these; looked up when not given.
        again: Make again what is there already, as after a new calibration.
        options: Which spectra, and of which samples.
    """
    for path in measurement_sets or ():
        check_absolute(measurement_sets=path)
    check_absolute(root=root, out=out)
    settings = config.load()
    places = {"raw": settings.paths.raw, "averaged": settings.paths.averaged}
    request = Request(
        measurement_sets=tuple(path.absolute() for path in measurement_sets or ()),
        day=day,
        hours=tuple(hours or ()),
        subbands=tuple(subbands or ()),
        data=data,
        root=(root or places[data]).absolute(),
    )
    if options.towards is not None:
        place_rad(options)  # a source that nobody knows is told before any work
    batches = request.batches(options.batch)
    site = Site.of(
        settings,
        cache=secured(settings.cache.uri, settings.network.tls),
        prefix=settings.queue.prefix,
        expire_s=settings.cache.expire_hours * 3600,
        dynspec=(out or settings.paths.dynspec).absolute(),
    )
    how = _how(batches, settings, options, average or _average(batches, options))
    todo = batches if again else _lost(batches, how, site)
    products = {f"dynamic spectrum {name}": name for name in options.names}
    made = gather(
        make_spectra,
        {batch.name: {"batch": batch, "how": how, "site": site} for batch in todo},
        planned=len(todo) + len(products),
    )
    hopeless = _hopeless(todo, made)
    sources: dict[str, Sequence[Path]] = {batch.name: batch.sources for batch in batches}
    ends = (batches[0].sources[0], batches[-1].sources[-1])  # stand for all: a day has 138 000
    sources |= dict.fromkeys(products, ends)
    if len(hopeless) == sum(len(batch.sources) for batch in batches):
        return concluded(made, "spectrum", sources)
    shared = {"request": request, "how": how, "site": site, "hopeless": hopeless}
    units = {label: {"name": name, **shared} for label, name in products.items()}
    return concluded([*made, *gather(reduce_kind, units, planned=0)], "spectrum", sources)


def _hopeless(batches: Sequence[Batch], made: Sequence[Outcome]) -> tuple[Path, ...]:
    """Measurement Sets of which there are no spectra: trying it again for each kind would be in vain."""
    found: list[Path] = []
    for batch, outcome in zip(batches, made, strict=True):
        found += batch.sources if outcome.result is None else outcome.result.left_out
    return tuple(found)


def _how(batches: Sequence[Batch], settings: config.Config, options: SpectrumOptions, average: int) -> How:
    known = settings.calibration
    days = sorted({recording.start.date() for batch in batches for recording in batch.recordings})
    return How(
        options=options,
        average=average,
        calibrations=settings.paths.calibration,
        max_age_days=known.max_age_days,
        bad={day: bad_antennas(known.bad_antennas, day).antennas for day in days},
    )


def _average(batches: Sequence[Batch], options: SpectrumOptions) -> int:
    """Recorded channels in one channel. Refuses what every batch would refuse; tars are not opened for it."""
    from orca.ms.inspect import inspect

    sources = [source for batch in batches for source in batch.sources]
    for source in islice((source for source in sources if source.suffix != ".tar"), 3):
        try:
            recorded = inspect(source, settle_s=0)
        except DataError:
            continue  # told by its batch
        recorded.antenna_numbers(options.flag_antennas)
        return max(round(recorded.channel_width_hz / telescope.CHANNEL_WIDTH_HZ), 1)
    averaged = naming.parse(sources[0]).kind is naming.Kind.AVERAGED
    return ReductionOptions().average if averaged else 1


def _lost(batches: Sequence[Batch], how: How, site: Site) -> list[Batch]:
    """What has no spectra yet, neither in the cache nor in the products."""
    from orca.dynspec import lost

    with site.open_cache() as cache:
        missing = lost(how.options.names, span_of(batches, how), cache, site.dynspec, site.spill)
    return chosen(batches, {each.path for each in missing}, how.options.batch)


@task(name="spectra", task_run_name="spectra of {batch.name}", persist_result=False)
def make_spectra(batch: Batch, how: How, site: Site) -> Made:
    """Make the spectra of a batch in a child process, and put them into the cache, those of a set at once."""
    from orca.dynspec import keep
    from orca.ms.spectrum import Spectra

    tables, why = how.calibration(batch)
    made = _computed(batch, tables, how, site)
    found = [each for each in made if isinstance(each, Spectra)]
    left_out = {each.source: each.reason for each in made if not isinstance(each, Spectra)}
    if not found:
        source, reason = next(iter(left_out.items()))
        raise DataError(f"{reason}; none of {len(left_out)} can be used", source, "Copy them again")
    report_step(batch.name, "into the cache")
    with site.open_cache() as cache:
        taken = [keep(cache, site.spill, _entries(each, bool(tables), how)) for each in found]
    return Made(
        sets=len(found),
        dead=sum(not any(each.used.values()) for each in found),
        left_out=left_out,
        spilled=taken.count(False),
        cpu_seconds=sum(each.cpu_seconds for each in found),
        peak_memory_bytes=max((each.peak_memory_bytes for each in found), default=0),
        calibration=why,
        notes=tuple(dict.fromkeys(note for each in found for note in each.notes)),
    )


@task(name="reduce spectra", task_run_name="dynamic spectrum {name}", persist_result=False)
def reduce_kind(name: str, request: Request, how: How, site: Site, hopeless: tuple[Path, ...]) -> Reduced:
    """Make the dynamic spectra of one kind of what is in the cache, and make again what is not."""
    from orca.dynspec import reduce_spectrum
    from orca.ms.spectrum import Spectra
    from orca.plots import thumbnail

    sweep(site.scratch)
    span, left_out = span_of(request.batches(how.options.batch), how), set(hopeless)

    told: list[str] = []

    def recompute(missing: Sequence[Expected]) -> Iterator[Entry]:
        paths = [each.path for each in missing if each.path not in left_out and each.path.exists()]
        for batch in plan_given(paths, how.options.batch):
            try:
                tables, _ = how.calibration(batch)
                made = _computed(batch, tables, how, site)
            except DataError as error:
                told.append(f"{batch.name} is missing: {error}")
                continue
            for each in made:
                if isinstance(each, Spectra):
                    yield from _entries(each, bool(tables), how)

    report_step(f"dynamic spectrum {name}", "reducing")
    with site.open_cache() as cache:
        made = reduce_spectrum(
            name,
            span,
            cache,
            site.dynspec,
            scratch=site.scratch,
            spill=site.spill,
            recompute=recompute,
            given_up=left_out,
        )
    tally = {key: value for key, value in asdict(made.tally).items() if isinstance(value, int)}
    if not made.skipped:
        for picture in made.pictures:
            show_picture(f"{name} {picture.stem}", thumbnail(picture), str(picture), tally)
    return Reduced(
        kind=name,
        files=made.files,
        pictures=made.pictures,
        manifest=naming.manifest_path(made.files[0]),
        n_times=made.n_times,
        tally=tally,
        seconds=made.seconds,
        peak_memory_bytes=made.peak_memory_bytes,
        skipped=made.skipped,
        warnings=(*made.tally.notes, *told),
    )


def _computed(batch: Batch, tables: Sequence[Path], how: How, site: Site) -> list[Spectra | Rejected]:
    """The spectra of a batch, made in a child process."""
    from orca.ms.spectrum import spectra_of

    tars = [source.stat().st_size for source in batch.sources if source.suffix == ".tar" and source.exists()]
    with scratch_folder(site.scratch, need_bytes=max(tars, default=0), label=batch.name) as work:
        return run_isolated(
            spectra_of,
            batch.sources,
            how.options,
            tables=tables,
            bad_antennas=how.bad[batch.start.date()],
            # what is dead is marked as such: it is no reason to leave a gap, as a file that cannot be read is
            acceptance=Acceptance(settle_s=site.acceptance.settle_s, min_fill_level=0, max_zero_share=2),
            scratch=work.path,
            progress=tell,
            deadline_s=site.stage_s,
            stop=stop_signal(),
            listen=partial(report_step, batch.name),
            owner=work.owner,
            disk=work.path,
        )


def _entries(made: Spectra, calibrated: bool, how: How) -> list[Entry]:
    """As they are kept in the cache."""
    from orca.cache import Entry, digest

    return [
        Entry(
            kind=name,
            subband=made.subband or naming.parse(made.source).observation.subband,
            time_s=made.centre_s,
            values=values,
            first_hz=float(made.freq_hz[0]),
            width_hz=made.channel_width_hz,
            correlations=polarizations(name),
            unit="Jy" if calibrated else "",
            version=__version__,
            made_from=str(made.source),
            options=digest(how.identity),
        )
        for name, values in made.values.items()
    ]


__all__ = ["Made", "Outcome", "Reduced", "Request", "Site", "make_spectra", "reduce_kind", "spectrum"]
