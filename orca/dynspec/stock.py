"""What there is of a kind of spectrum, and what should be: in the cache, in the spill, in the files of before."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from orca.cache import Entry, Label, SpectrumCache, Spill, digest
from orca.dynspec.axes import Axes, make_axes
from orca.dynspec.product import MISSING, Product
from orca.errors import CacheAwayError, InvalidDataError, MissingDataError
from orca.naming import dynspec_path
from orca.spectrum_options import polarizations
from orca.telescope import SUBBANDS


@dataclass(frozen=True, slots=True)
class Expected:
    """A Measurement Set of which there have to be spectra.

    Attributes
    ----------
    subband : str
    time_s : float
        Centre of the integration, MJD seconds, to a second or two: file names tell no more.
    path : Path
    """

    subband: str
    time_s: float
    path: Path


@dataclass(frozen=True)
class Span:
    """What is reduced together.

    Attributes
    ----------
    day : date
        UTC; files are named after it, and hours counted from its midnight.
    first_s, last_s : float
        Between these are the centres of the integrations, MJD seconds.
    expected : tuple of Expected
        Measurement Sets of which there have to be spectra; without them nothing is missed.
    average : int
        Recorded channels in one channel.
    options : mapping
        How the spectra were made; those of other options are left alone.
    """

    day: date
    first_s: float
    last_s: float
    expected: tuple[Expected, ...] = field(default=(), repr=False)
    average: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)


Recompute = Callable[[Sequence[Expected]], Iterable[Entry]]
"""Makes the spectra of Measurement Sets again, of all kinds, with the same options, in any order."""


@dataclass
class Tally:
    """Where the spectra of one kind came from, in integrations of subbands.

    Attributes
    ----------
    cache, spill, product, recomputed : int
    missing : int
        Expected ones that could not be had.
    broken : int
        Keys under which the cache, or the spill, had nothing that could be used.
    others : int
        Spectra of other options or channels, left alone.
    doubles : int
        Spectra of an integration that had one already; the one nearer to its middle counts.
    dead : int
        Spectra with nothing in them.
    deleted : int
        Entries that were dropped afterwards.
    notes : list of str
        What else has to be said.
    """

    cache: int = 0
    spill: int = 0
    product: int = 0
    recomputed: int = 0
    missing: int = 0
    broken: int = 0
    others: int = 0
    doubles: int = 0
    dead: int = 0
    deleted: int = 0
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Say something, once."""
        if text not in self.notes:
            self.notes.append(text)


@dataclass(frozen=True)
class Stock:
    """What there is of one kind.

    Attributes
    ----------
    cache : SpectrumCache
    spill : Spill or None
    cached, spilled : dict
        Subband -> keys.
    products : dict
        Correlation -> the product of before.
    expected : dict
        Subband -> what has to be there.
    """

    cache: SpectrumCache
    spill: Spill | None
    cached: Mapping[str, Sequence[str]]
    spilled: Mapping[str, Sequence[str]]
    products: Mapping[str, Product]
    expected: Mapping[str, Sequence[Expected]]

    def axes(self, span: Span) -> Axes:
        """Axes for all that there is or should be.

        Where there are files of before, the integrations stay where they were; else what is expected says where they
        are, and not what the cache happens to hold: what was lost must not move the rest.
        """
        expected = [each.time_s for some in self.expected.values() for each in some]
        before = list(self.products.values())
        anchor = before[0].axes.first_s if before else None
        if anchor is None and expected:
            anchor = make_axes(span.day, expected, span.average).first_s
        times = [*expected, *self._times()]
        for product in before:
            times += product.axes.times_s[(product.status != MISSING).any(axis=0)].tolist()
        return make_axes(span.day, times, span.average, anchor)

    def nothing_new(self) -> bool:
        """Whether neither cache nor spill has anything."""
        return not any(self.cached.values()) and not any(self.spilled.values())

    def not_there(self, axes: Axes, correlations: Sequence[str]) -> list[Expected]:
        """Expected ones that are neither in cache or spill, by their keys, nor in the files of before."""
        found = []
        for band in SUBBANDS:
            expected = self.expected.get(band.name, ())
            times = [self.label(key).time_s for key in self._keys(band.name)]
            there = set(axes.cells(times).tolist()) if times else set()
            if all(name in self.products for name in correlations):
                kept = [self.products[name].cells_there(axes, band.index) for name in correlations]
                there |= set.intersection(*kept)
            cells = axes.cells([each.time_s for each in expected]).tolist()
            found += [each for each, cell in zip(expected, cells, strict=True) if cell not in there]
        return found

    def label(self, key: str) -> Label:
        """What a key says."""
        return self.cache.label(key)

    def _keys(self, band: str) -> list[str]:
        return [*self.cached.get(band, ()), *self.spilled.get(band, ())]

    def _times(self) -> list[float]:
        return [self.label(key).time_s for band in SUBBANDS for key in self._keys(band.name)]


def take_stock(
    kind: str,
    span: Span,
    cache: SpectrumCache,
    spill: Spill | None,
    root: Path,
    stack: ExitStack,
    tally: Tally,
    *,
    need_cache: bool,
) -> Stock:
    """See what there is of a kind.

    Parameters
    ----------
    kind, span, cache, spill, root
        See `orca.dynspec.reduce_spectrum`.
    stack : ExitStack
        Closes the files of before.
    tally : Tally
        Gets notes.
    need_cache : bool
        A cache that does not answer is an error, instead of having nothing.
    """
    cached: dict[str, list[str]] = {}
    try:
        cached = _by_subband(cache, kind, span)
    except CacheAwayError as error:
        if need_cache:
            raise
        tally.note(f"the cache went away: {error.problem}")
    spilled = {} if spill is None else _by_subband(spill, kind, span)
    expected = defaultdict(list)
    for each in span.expected:
        expected[each.subband].append(each)
    return Stock(cache, spill, cached, spilled, _products(kind, span, root, stack, tally), expected)


def lost(
    kinds: Sequence[str], span: Span, cache: SpectrumCache, root: Path, spill: Spill | None = None
) -> list[Expected]:
    """Expected Measurement Sets of which not all spectra are somewhere: to be worked on before the reduction.

    Parameters are those of `orca.dynspec.reduce_spectra`. Looks at keys only; a cache that does not answer has nothing.
    """
    found: dict[Path, Expected] = {}
    for kind in kinds if span.expected else ():
        with ExitStack() as stack:
            stock = take_stock(kind, span, cache, spill, root, stack, Tally(), need_cache=False)
            found |= {each.path: each for each in stock.not_there(stock.axes(span), polarizations(kind))}
    return sorted(found.values(), key=lambda each: (each.time_s, each.subband))


def _by_subband(shelf: SpectrumCache | Spill, kind: str, span: Span) -> dict[str, list[str]]:
    found = defaultdict(list)
    for key in shelf.keys(kind, span.first_s, span.last_s):
        found[shelf.label(key).subband].append(key)
    return found


def _products(kind: str, span: Span, root: Path, stack: ExitStack, tally: Tally) -> dict[str, Product]:
    """The files of before that the new ones go on from; others are replaced."""
    found = {}
    for name in polarizations(kind):
        path = dynspec_path(root, kind, span.day, name)
        try:
            product = stack.enter_context(Product(path))
        except MissingDataError:
            continue
        except InvalidDataError as error:
            tally.note(f"replaced: {error}")
            continue
        own = (product.spectrum, product.correlation, product.axes.day) == (kind, name, span.day)
        if own and product.digest == digest(span.options) and product.axes.average == span.average:
            found[name] = product
        else:
            tally.note(f"replaced: {path.name} was made with other options")
    return found
