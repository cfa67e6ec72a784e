"""The numbers of an account, and what they are of."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path


@dataclass(frozen=True)
class Places:
    """Where everything is, and what the site does with it.

    Attributes
    ----------
    raw, averaged, cosmology, images, calibration, dynspec, failures : Path
        Roots.
    lifetime_h : float
        Age at which the recorder deletes raw data, hours.
    settle_s : float
        What was changed within this time is still being written.
    """

    raw: Path
    averaged: Path
    cosmology: Path
    images: Path
    calibration: Path
    dynspec: Path
    failures: Path
    lifetime_h: float = 24.0
    settle_s: float = 60.0


@dataclass(frozen=True)
class Counts:
    """Integrations of a subband and hour, or of several.

    What is expected is reduced, dead, failed, waiting, settling, overdue or missing.

    Attributes
    ----------
    expected : that the recorder should have written up to now
    recorded : that are, or were, on disk
    reduced : flagged and averaged
    dead : recorded without a signal
    failed : still there, and their reduction failed, or left them out
    waiting : still there, settled, young enough, and not reduced
    settling : still being written
    overdue : not reduced, still there, and so old that the recorder may delete them any moment
    missing : expected, and neither there nor in a product
    lost : those of the missing that are known to have been recorded
    imaged, spectrum, split : in an image, in a dynamic spectrum, split for cosmology
    failed_imaging, failed_spectrum, failed_cosmology : named by a failure of that stage
    """

    expected: int = 0
    recorded: int = 0
    reduced: int = 0
    dead: int = 0
    failed: int = 0
    waiting: int = 0
    settling: int = 0
    overdue: int = 0
    missing: int = 0
    lost: int = 0
    imaged: int = 0
    spectrum: int = 0
    split: int = 0
    failed_imaging: int = 0
    failed_spectrum: int = 0
    failed_cosmology: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(**{name: getattr(self, name) + getattr(other, name) for name in COUNTED})

    @property
    def done(self) -> float | None:
        """Share of the expected that is reduced, or dead so that nothing can be; None where nothing is expected."""
        return min(1.0, (self.reduced + self.dead) / self.expected) if self.expected else None


COUNTED = tuple(each.name for each in fields(Counts))


@dataclass(frozen=True)
class Cell:
    """A subband and hour.

    Attributes
    ----------
    subband : str
    hour : int
        UTC.
    counts : Counts
    raw_until : datetime or None
        When the recorder deletes the first of the raw data that are still there.
    at_risk_until : datetime or None
        The same of those that have no product.
    at_risk : int
        How many these are.
    why : tuple of (str, int)
        Why integrations failed or are dead, and how many, the most frequent first.
    """

    subband: str
    hour: int
    counts: Counts
    raw_until: datetime | None = None
    at_risk_until: datetime | None = None
    at_risk: int = 0
    why: tuple[tuple[str, int], ...] = ()
