"""All spectra of one kind and subband, from wherever they are: cache, spill, the product of before, or made again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orca.cache import Entry, SpectrumCache, Spill
from orca.cache.spectra import AT_ONCE, in_batches
from orca.dynspec.axes import Axes
from orca.dynspec.product import DEAD, GOOD, MISSING, Product
from orca.dynspec.stock import Expected, Recompute, Stock, Tally
from orca.errors import CacheAwayError, StorageError
from orca.telescope import INTEGRATION_S, SUBBANDS


class Gathered:
    """One subband of one kind: samples (times, channels, correlations), and per correlation what is known of them.

    Parameters
    ----------
    axes : Axes
    band : int
        Number of the subband.
    kind : str
    correlations : tuple of str
    options : str
        Digest that entries must have.
    """

    def __init__(self, axes: Axes, band: int, kind: str, correlations: tuple[str, ...], options: str) -> None:
        self._axes, self._band, self._kind = axes, band, kind
        self._correlations, self._options = correlations, options
        self.samples = np.full((axes.n_times, axes.band_channels, len(correlations)), np.nan, np.float32)
        self.status = np.full((len(correlations), axes.n_times), MISSING, np.uint8)
        self.offset_s = np.full((len(correlations), axes.n_times), np.nan, np.float32)
        self.units: set[str] = set()
        self.versions: set[str] = set()

    def fill(self, stock: Stock, tally: Tally, recompute: Recompute | None) -> set[str]:
        """Take what there is, in the order of what it costs; says which keys are not needed any more.

        Raises
        ------
        CacheAwayError
            The cache went away, and nobody can make the spectra again.
        """
        name = SUBBANDS[self._band].name
        used = self._from_cache(stock, name, tally, recompute is not None)
        if stock.spill is not None:
            used |= self._take_keys(stock.spill, stock.spilled.get(name, ()), tally, "spill")
        for number, correlation in enumerate(self._correlations):
            if correlation in stock.products:
                self._take_product(stock.products[correlation], number, tally)
        missing = self.missing(stock.expected.get(name, ()))
        if missing and recompute is not None:
            self._take_again(missing, recompute, stock, tally)
            missing = self.missing(missing)
        tally.missing += len(missing)
        tally.dead += int((self.status == DEAD).all(axis=0).sum())
        return used

    def missing(self, expected: Sequence[Expected]) -> list[Expected]:
        """Those that are not there yet."""
        cells = self._axes.cells([each.time_s for each in expected])
        pairs = zip(expected, cells.tolist(), strict=True)
        return [each for each, cell in pairs if not self._inside(cell) or not self._there(cell)]

    def take(self, entry: Entry, tally: Tally) -> bool | None:
        """Put a spectrum where it belongs: True if nothing was there, None if it does not belong here."""
        start = self._axes.channel(self._band, entry.first_hz, entry.width_hz)
        fits = (entry.kind, entry.subband, entry.options) == (self._kind, SUBBANDS[self._band].name, self._options)
        cell = round((entry.time_s - self._axes.first_s) / INTEGRATION_S)
        fits &= entry.correlations == self._correlations and self._inside(cell)
        if start is None or not fits or start + len(entry.values) > self._axes.band_channels:
            tally.others += 1
            return None
        offset_s = np.float32(entry.time_s - (self._axes.first_s + cell * INTEGRATION_S))
        is_first = not self._there(cell)
        if not is_first:
            tally.doubles += int(self.offset_s[0, cell] != offset_s)
            if abs(self.offset_s[0, cell]) <= abs(offset_s):
                return False
            self.samples[cell] = np.nan
        usable = np.isfinite(entry.values)
        dead = ~(usable & (entry.values != 0)).any(axis=0)
        self.samples[cell, start : start + len(usable)] = np.where(usable & ~dead, entry.values, np.nan)
        self.status[:, cell] = np.where(dead, DEAD, GOOD)
        self.offset_s[:, cell] = offset_s
        self.units.add(entry.unit)
        self.versions.add(entry.version)
        return is_first

    def _inside(self, cell: int) -> bool:
        return 0 <= cell < self._axes.n_times

    def _there(self, cell: int) -> bool:
        return bool((self.status[:, cell] != MISSING).all())

    def _from_cache(self, stock: Stock, name: str, tally: Tally, can_recompute: bool) -> set[str]:
        try:
            return self._take_keys(stock.cache, stock.cached.get(name, ()), tally, "cache")
        except CacheAwayError as error:
            if not can_recompute:
                raise
            tally.note(f"the cache went away: {error.problem}")
            return set()

    def _take_keys(self, shelf: SpectrumCache | Spill, keys: Sequence[str], tally: Tally, whence: str) -> set[str]:
        used = set()
        for some in in_batches(keys, AT_ONCE):
            for key, entry in shelf.get_many(some).items():
                if entry is None:
                    tally.broken += 1
                    continue
                is_first = self.take(entry, tally)
                if is_first is not None:
                    used.add(key)
                    setattr(tally, whence, getattr(tally, whence) + is_first)
        return used

    def _take_product(self, product: Product, number: int, tally: Tally) -> None:
        """What a correlation had before, where nothing newer is."""
        cells = self._axes.cells(product.axes.times_s)
        old = product.status[self._band]
        wanted = (old != MISSING) & (cells >= 0) & (cells < self._axes.n_times)
        wanted[wanted] = self.status[number, cells[wanted]] == MISSING
        if not wanted.any():
            return
        to = cells[wanted]
        self.samples[to, :, number] = product.band(self._band)[:, wanted].T
        self.status[number, to] = old[wanted]
        times_s = product.axes.times_s[wanted] + product.offset_s[self._band, wanted]
        self.offset_s[number, to] = times_s - self._axes.times_s[to]
        self.units.add(product.unit)
        self.versions.update(product.versions)
        if number == 0:
            tally.product += len(to)

    def _take_again(self, missing: Sequence[Expected], recompute: Recompute, stock: Stock, tally: Tally) -> None:
        """Have spectra made again; those of other kinds are kept for their turn."""
        others: list[Entry] = []
        for entry in recompute(missing):
            if entry.kind == self._kind:
                tally.recomputed += bool(self.take(entry, tally))
            else:
                others.append(entry)
            if len(others) >= AT_ONCE:
                _keep_for_later(stock, others, tally)
                others = []
        _keep_for_later(stock, others, tally)


def _keep_for_later(stock: Stock, others: Sequence[Entry], tally: Tally) -> None:
    """What cannot be kept is made again when its turn comes."""
    try:
        keep(stock.cache, stock.spill, others)
    except (CacheAwayError, StorageError) as error:
        tally.note(f"spectra of other kinds were not kept: {error.problem}")


def keep(cache: SpectrumCache, spill: Spill | None, entries: Sequence[Entry]) -> bool:
    """Put spectra into the cache, or else beside the products; True if the cache took them.

    Raises
    ------
    CacheAwayError
        The cache did not, and there is no other place.
    StorageError
        Nor did the disk.
    """
    try:
        cache.put_many(entries)
    except CacheAwayError:
        if spill is None:
            raise
        spill.put_many(entries)
        return False
    return True
