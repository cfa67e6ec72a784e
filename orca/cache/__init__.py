"""The spectrum cache: spectra of a night between the Measurement Sets that they come from and the FITS they end in.

In Redis, or in a folder of one machine; docs/cache.md tells how keys and values are laid out.
"""

from orca.cache.entry import Entry, Label, digest
from orca.cache.spectra import SpectrumCache
from orca.cache.spill import Spill

__all__ = ["Entry", "Label", "SpectrumCache", "Spill", "digest"]
