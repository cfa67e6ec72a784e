"""Reduction of cached spectra: a FITS file and a picture of each spectrum and correlation of a day.

One kind at a time, and of that one subband at a time. What the files hold is read back before an entry is dropped, so
whatever is killed, every spectrum is in the cache, in the spill, or in a file.
"""

from __future__ import annotations

import fcntl
import resource
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

from orca.cache import SpectrumCache, Spill, digest
from orca.disk import make_folder, storage_errors
from orca.dynspec.axes import Axes
from orca.dynspec.gathering import Gathered
from orca.dynspec.product import DEAD, MISSING, Facts, Product, Writer
from orca.dynspec.stock import Recompute, Span, Stock, Tally, take_stock
from orca.dynspec.waterfall import draw_waterfall
from orca.errors import CacheAwayError, InvalidDataError, MissingDataError, StorageError
from orca.manifest import Draft, draft
from orca.naming import dynspec_path, manifest_path
from orca.products import publish
from orca.scratch import scratch_folder
from orca.spectrum_options import polarizations
from orca.telescope import SUBBANDS


@dataclass(frozen=True)
class Reduced:
    """What became of one kind.

    Attributes
    ----------
    kind : str
    files : tuple of Path
        FITS of each correlation.
    pictures : tuple of Path
    skipped : bool
        There was nothing new; the files are those of before.
    tally : Tally
    n_times : int
    seconds : float
    peak_memory_bytes : int
        Of the process.
    """

    kind: str
    files: tuple[Path, ...]
    pictures: tuple[Path, ...]
    skipped: bool
    tally: Tally
    n_times: int
    seconds: float
    peak_memory_bytes: int


def reduce_spectra(
    kinds: Sequence[str],
    span: Span,
    cache: SpectrumCache,
    root: Path,
    *,
    scratch: Path,
    spill: Spill | None = None,
    recompute: Recompute | None = None,
) -> list[Reduced]:
    """Make the dynamic spectra of a day, or bring them up to date, one kind after the other; see `reduce_spectrum`."""
    return [
        reduce_spectrum(kind, span, cache, root, scratch=scratch, spill=spill, recompute=recompute) for kind in kinds
    ]


def reduce_spectrum(
    kind: str,
    span: Span,
    cache: SpectrumCache,
    root: Path,
    *,
    scratch: Path,
    spill: Spill | None = None,
    recompute: Recompute | None = None,
    given_up: Collection[Path] = (),
) -> Reduced:
    """Make the dynamic spectra of one kind: a FITS file and a picture of each correlation.

    Takes what is in the cache and in the spill, what the files of before have of the same day and options, and has
    `recompute` make again what is still missing. Entries are dropped once the files were read back. Two at once take
    turns, and the second finds everything done.

    Parameters
    ----------
    kind : str
        Name of the spectrum.
    span : Span
    cache : SpectrumCache
    root : Path
        Of the dynamic spectra.
    scratch : Path
        Takes the files on their way: as much as the result, 0.42 GB for a full day of 3072 channels.
    spill : Spill, optional
    recompute : callable, optional
    given_up : collection of Path
        Measurement Sets that cannot be used: where there is nothing but these to add, the files stay as they are.

    Raises
    ------
    InputError
        The spectra are too far apart for one file.
    MissingDataError
        There are none.
    CacheAwayError
        The cache does not answer, and nobody can make the spectra again.
    DataError
        What was written cannot be read back.
    StorageError
        It cannot be written.
    """
    begin, tally = time.monotonic(), Tally()
    correlations = polarizations(kind)
    files = {name: dynspec_path(root, kind, span.day, name) for name in correlations}
    pictures = tuple(dynspec_path(root, kind, span.day, name, "png") for name in correlations)
    with _turn(root / kind, span.day), ExitStack() as stack:
        needed = recompute is None
        stock = take_stock(kind, span, cache, spill, root, stack, tally, need_cache=needed)
        axes = stock.axes(span)
        missing = stock.not_there(axes, correlations)
        skipped = stock.nothing_new() and (needed or all(each.path in given_up for each in missing))
        if skipped and len(stock.products) < len(files):
            raise _nothing(kind, span.day)
        if skipped:
            tally.missing = len(missing)
            status = [product.status for product in stock.products.values()]
            tally.product = max(int((each != MISSING).sum()) for each in status)
            tally.dead = min(int((each == DEAD).sum()) for each in status)
        else:
            used = _Job(kind, span, axes, files, scratch).run(stock, tally, recompute)
            _forget(used, stock, tally)
    paths = tuple(files.values())
    return Reduced(kind, paths, pictures, skipped, tally, axes.n_times, time.monotonic() - begin, _peak_bytes())


@dataclass(frozen=True)
class _Job:
    """Writing, publishing and reading back the files of one kind."""

    kind: str
    span: Span
    axes: Axes
    files: Mapping[str, Path]
    scratch: Path

    def run(self, stock: Stock, tally: Tally, recompute: Recompute | None) -> set[str]:
        """Make the files; returns the keys that are not needed any more."""
        begin_cpu = time.thread_time()
        said = {"span": [self.span.first_s, self.span.last_s], "average": self.span.average, **self.span.options}
        drafts = {name: draft(final.name, "dynspec", (), said) for name, final in self.files.items()}
        options = digest(self.span.options)
        need = 5 * len(self.files) * self.axes.n_times * self.axes.n_channels
        with scratch_folder(self.scratch, need_bytes=need, label=f"dynspec-{self.kind}") as room, ExitStack() as stack:
            writers = {}
            for name in self.files:
                facts = Facts(self.kind, name, self.span.options, options)
                writers[name] = stack.enter_context(Writer(room.path / f"{name}.fits", self.axes, facts))
            used: set[str] = set()
            units: set[str] = set()
            versions: set[str] = set()
            for band in SUBBANDS:
                part = Gathered(self.axes, band.index, self.kind, tuple(self.files), options)
                used |= part.fill(stock, tally, recompute)
                units |= part.units
                versions |= part.versions
                for number, writer in enumerate(writers.values()):
                    writer.add(part.samples[:, :, number].T, part.status[number], part.offset_s[number])
                del part
            if not any((writer.status != MISSING).any() for writer in writers.values()):
                raise _nothing(self.kind, self.span.day)
            if len(units) > 1:
                tally.note(f"units differ: {', '.join(sorted(units))}")
            for writer in writers.values():
                writer.finish(min(units, default=""), tuple(sorted(versions)))
                draw_waterfall(writer.path, writer.path.with_suffix(".png"))
            cpu_seconds = time.thread_time() - begin_cpu
            for name, writer in writers.items():
                self._publish(name, writer.path, drafts[name], tally, cpu_seconds)
            for name, writer in writers.items():
                _check(self.files[name], writer)
        return used

    def _publish(self, name: str, made: Path, begun: Draft, tally: Tally, cpu_seconds: float) -> None:
        """Publish the file of one polarization with its picture; what it took is that of all of them together."""
        final = self.files[name]
        numbers = {key: value for key, value in asdict(tally).items() if isinstance(value, int) and key != "deleted"}
        manifest = begun.manifest(cpu_seconds=cpu_seconds, peak_memory_bytes=_peak_bytes(), quality=numbers)
        files = {made: final, made.with_suffix(".png"): final.with_suffix(".png")}
        publish(files, manifest, manifest_path(final))


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _nothing(kind: str, day: date) -> MissingDataError:
    return MissingDataError(f"there are no spectra {kind} of {day}", None, "See `orca cache ls`")


def _check(path: Path, writer: Writer) -> None:
    """Read a published file back.

    Raises
    ------
    InvalidDataError
        It does not hold what was written.
    """
    with Product(path) as found:
        same = (found.status == writer.status).all() and found.checksum() == writer.checksum
    if not same:
        raise InvalidDataError("holds something else than what was written", path, "The spectra are kept; run it again")


def _forget(used: set[str], stock: Stock, tally: Tally) -> None:
    """Drop what is in the files now. Where that fails it is only found again, or expires."""
    try:
        tally.deleted += stock.cache.delete(sorted(used))
        tally.deleted += 0 if stock.spill is None else stock.spill.delete(sorted(used))
    except (CacheAwayError, StorageError) as error:
        tally.note(f"entries were not dropped: {error.problem}")


@contextmanager
def _turn(folder: Path, day: date) -> Iterator[None]:
    """One reduction of a kind and day at a time: a second one must not replace what the first is about to write."""
    make_folder(folder)
    with storage_errors(folder):
        lock = (folder / f".{day.isoformat()}.lock").open("a")
    with lock:
        with storage_errors(folder):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
