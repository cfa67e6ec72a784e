"""What the reduction's flow tells its tasks, and what they tell it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from flows.common import Frozen, Machines
from orca.manifest import Quality
from orca.reduction_options import OriginalOptions, ReductionOptions


class Site(Machines):
    """What the machines are like, and how many hours the recorder keeps raw data."""

    lifetime_h: float


class Unit(Frozen):
    """One block to reduce.

    Attributes
    ----------
    name : str
    start : datetime
        Of its first integration.
    sources : paths
    prefix : Path
        What its manifest is called after.
    tables : paths
        Calibration tables to apply first.
    calibration : str
        Why these, or why none.
    bad : antennas that are known to be bad on that day
    """

    name: str
    start: datetime
    sources: tuple[Path, ...]
    prefix: Path
    tables: tuple[Path, ...] = ()
    calibration: str = "none"
    bad: tuple[int | str, ...] = ()


class How(Frozen):
    """How to reduce it, and what becomes of the originals."""

    options: ReductionOptions
    originals: OriginalOptions


class Made(Frozen):
    """A block as published."""

    manifest: Path
    seconds: float
    skipped: bool
    quality: Quality
    left_h: float
    trashed: int = 0
    kept: int = 0
    """Originals that are still there although others may go to the trash."""
    warnings: tuple[str, ...] = ()
