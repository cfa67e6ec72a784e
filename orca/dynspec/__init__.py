"""Dynamic spectra: spectra of a night, from the cache, as frequency x time in FITS files and pictures."""

from orca.dynspec.gathering import keep
from orca.dynspec.reduce import Reduced, reduce_spectra, reduce_spectrum
from orca.dynspec.stock import Expected, Recompute, Span, Tally, lost

__all__ = ["Expected", "Recompute", "Reduced", "Span", "Tally", "keep", "lost", "reduce_spectra", "reduce_spectrum"]
