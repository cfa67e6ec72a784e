"""FITS images of a sky that is known, as WSClean would write them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from orca.sky import Source
from orca.telescope import time_s_of, zenith_rad

TIME = datetime(2026, 1, 10, 18, tzinfo=UTC)
"""Cyg A stands at 60 deg in the north-east, Cas A at 32 deg, Vir A at 20 deg in the west; Tau A is down."""


def header(size: int, scale_deg: float, beam_deg: tuple[float, float, float] | None = None) -> fits.Header:
    ra, dec = (math.degrees(float(angle)) for angle in zenith_rad(time_s_of(TIME)))
    made = fits.Header()
    made["BUNIT"] = "JY/BEAM"
    made["BMAJ"], made["BMIN"], made["BPA"] = beam_deg or (0.0, 0.0, 0.0)
    axes = (("RA---SIN", ra, -scale_deg, "deg"), ("DEC--SIN", dec, scale_deg, "deg"))
    for k, (name, value, step, unit) in enumerate((*axes, ("FREQ", 75.4e6, 4.6e6, "Hz"), ("STOKES", 1.0, 1.0, "")), 1):
        made[f"CTYPE{k}"], made[f"CRVAL{k}"], made[f"CDELT{k}"], made[f"CUNIT{k}"] = name, value, step, unit
        made[f"CRPIX{k}"] = size // 2 + 1.0 if k < 3 else 1.0
    made["DATE-OBS"] = f"{TIME:%Y-%m-%dT%H:%M:%S}.0"
    made["WSCVERSI"] = "3.1.0"
    return made


def pixel_of(source: Source, size: int, scale_deg: float) -> tuple[float, float]:
    """0-based x and y by astropy."""
    made = header(size, scale_deg)
    del made["DATE-OBS"]  # astropy warns that it understood it
    wcs = WCS(made).celestial
    x, y = wcs.all_world2pix([[math.degrees(source.ra_rad), math.degrees(source.dec_rad)]], 0)[0]
    return float(x), float(y)


def gaussian(
    size: int, x_px: float, y_px: float, major_px: float, minor_px: float, angle_deg: float = 0.0
) -> np.ndarray:
    """Of height 1; widths are full at half maximum, the angle is from north (up) to east (left)."""
    y, x = np.mgrid[:size, :size]
    east, north = -(x - x_px), y - y_px
    angle = math.radians(angle_deg)
    along = north * math.cos(angle) + east * math.sin(angle)
    across = -north * math.sin(angle) + east * math.cos(angle)
    return np.exp(-4 * math.log(2) * ((along / major_px) ** 2 + (across / minor_px) ** 2))


def write(
    path: Path,
    data: np.ndarray,
    scale_deg: float,
    beam_deg: tuple[float, float, float] | None = None,
    changes: Iterable[tuple[str, object]] = (),
) -> Path:
    """Write an image; `changes` are made to its header."""
    made = header(data.shape[0], scale_deg, beam_deg)
    for key, value in changes:
        made[key] = value
    fits.writeto(path, data.astype(np.float32)[None, None], made, overwrite=True)
    return path
