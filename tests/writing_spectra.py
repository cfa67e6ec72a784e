"""A process that puts spectra into a cache, one at a time: writing_spectra.py WHERE SUBBAND NUMBER."""

from __future__ import annotations

import sys

import numpy as np

from orca.cache import Entry, SpectrumCache

if __name__ == "__main__":
    where, band, number = sys.argv[1:]
    values = np.ones((4, 4), np.float32)
    with SpectrumCache.open(where, "anna", 60.0) as cache:
        for k in range(int(number)):
            cache.put_many([Entry("cross", band, 5274741600.0 + 10 * k, values, 73e6, 1e5)])
