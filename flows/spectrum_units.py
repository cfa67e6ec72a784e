"""What goes from the flow of dynamic spectra to its tasks, and what comes back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict

from flows.common import Frozen, Machines
from orca import naming, telescope
from orca.calibration.choose import ChoiceOptions, find_calibration
from orca.config.secret import SecretUri
from orca.errors import InputError, MissingDataError
from orca.spectrum import KINDS, Batch, plan_day, plan_given
from orca.spectrum_options import SpectrumOptions

if TYPE_CHECKING:
    from orca.cache import SpectrumCache, Spill
    from orca.dynspec import Span


class Site(Machines):
    """What the machines are like, and where spectra and their products are kept."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    cache: SecretUri | Path
    prefix: str
    expire_s: float
    patience_s: float = 10.0
    """How long a cache that is away is asked again."""
    dynspec: Path

    def open_cache(self) -> SpectrumCache:
        """The spectrum cache, for this process."""
        from orca.cache import SpectrumCache

        where = self.cache.reveal() if isinstance(self.cache, SecretUri) else self.cache
        return SpectrumCache.open(where, self.prefix, self.expire_s, self.patience_s)

    @property
    def spill(self) -> Spill:
        """Where spectra go that the cache does not take."""
        from orca.cache import Spill

        return Spill(naming.spill_folder(self.dynspec, self.prefix), self.prefix)


class Request(Frozen):
    """Which Measurement Sets."""

    measurement_sets: tuple[Path, ...] = ()
    day: date | None = None
    hours: tuple[int, ...] = ()
    subbands: tuple[str, ...] = ()
    data: Literal["raw", "averaged"] = "raw"
    root: Path

    def batches(self, size: int) -> list[Batch]:
        """As they are on disk now."""
        if self.measurement_sets:
            return plan_given(self.measurement_sets, size)
        if self.day is None:
            raise InputError("neither Measurement Sets nor a date were given", remedy="Give either")
        return plan_day(self.root, KINDS[self.data], size, self.day, self.subbands, self.hours)


class How(Frozen):
    """How spectra are made.

    Attributes
    ----------
    options : SpectrumOptions
    average : int
        Recorded channels in one channel.
    calibrations : Path
        Root of them.
    max_age_days : float
    bad : dict of antennas by date
    """

    options: SpectrumOptions
    average: int
    calibrations: Path
    max_age_days: float
    bad: dict[date, tuple[int | str, ...]]

    @property
    def identity(self) -> dict[str, Any]:
        """What tells spectra that must not be mixed; tables may differ from hour to hour."""
        return {"calibrate": self.options.calibrate, "flag_antennas": list(self.options.flag_antennas)}

    def calibration(self, batch: Batch) -> tuple[tuple[Path, ...], str]:
        """The tables to apply to a batch, and why these, or why none.

        Raises
        ------
        MissingDataError
            There are none, and there have to be.
        """
        if self.options.calibrate == "none":
            return (), "none"
        middle_s = telescope.time_s_of(batch.recordings[len(batch.recordings) // 2].centre)
        try:
            choice = find_calibration(
                self.calibrations, batch.subband, middle_s, ChoiceOptions(max_age_days=self.max_age_days)
            )
        except MissingDataError as error:
            if self.options.calibrate == "require":
                raise
            return (), f"none: {error.problem}"
        return tuple(table for table in (choice.delay, choice.bandpass) if table is not None), choice.why


class Made(Frozen):
    """The spectra of a batch, in the cache.

    Attributes
    ----------
    sets, dead : int
        Measurement Sets of which there are spectra now, and those of them that have nothing in them.
    left_out : dict of Path
        Why there are none, by Measurement Set.
    spilled : int
        Those whose spectra the cache did not take: they wait beside the products.
    """

    sets: int
    dead: int
    left_out: dict[Path, str]
    spilled: int
    cpu_seconds: float
    peak_memory_bytes: int
    calibration: str
    notes: tuple[str, ...]
    skipped: bool = False

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is to be told of it."""
        reasons: dict[str, list[str]] = {}
        for path, why in self.left_out.items():
            reasons.setdefault(why, []).append(path.name)
        told = [
            f"left out: {names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {why}"
            for why, names in reasons.items()
        ]
        spilled = (f"the spectra of {self.spilled} sets wait beside the products",) if self.spilled else ()
        without = (f"not calibrated: {self.calibration[6:]}",) if self.calibration.startswith("none: ") else ()
        return (*told, *without, *self.notes, *spilled)


class Reduced(Frozen):
    """The dynamic spectra of one kind, as published.

    Attributes
    ----------
    files, pictures : tuple of Path
        One for each correlation.
    tally : dict of int
        Of `orca.dynspec.Tally`: where the spectra came from, in integrations of subbands.
    """

    kind: str
    files: tuple[Path, ...]
    pictures: tuple[Path, ...]
    manifest: Path
    n_times: int
    tally: dict[str, int]
    seconds: float
    peak_memory_bytes: int
    skipped: bool
    warnings: tuple[str, ...]


def span_of(batches: Sequence[Batch], how: How) -> Span:
    """What the products are made of."""
    from orca.dynspec import Expected, Span

    expected = [
        Expected(batch.subband, telescope.time_s_of(recording.centre), recording.path)
        for batch in batches
        for recording in batch.recordings
    ]
    first_s, last_s = min(each.time_s for each in expected), max(each.time_s for each in expected)
    return Span(
        day=min(batch.start for batch in batches).date(),
        first_s=first_s - telescope.INTEGRATION_S / 2,
        last_s=last_s + telescope.INTEGRATION_S / 2,
        expected=tuple(expected),
        average=how.average,
        options=how.identity,
    )
