"""Bad antennas: those that somebody knows of, and those that their own autocorrelations give away."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from orca.errors import InputError, OrcaError

if TYPE_CHECKING:  # the configuration imports this module: no numpy at its top
    import numpy as np

_NAME = re.compile(r"(?=.*\d)[A-Za-z][A-Za-z0-9._-]{0,31}", re.ASCII)


def antenna(value: Any) -> str | int:
    """An antenna by its correlator number, or by its name, such as LWA-114.

    A name holds a digit, so that a word such as "error" in a program's output is not taken for one.

    Raises
    ------
    ValueError
        It is neither; the message does not quote it.
    """
    if isinstance(value, str):
        text = value.strip()
        value = int(text) if re.fullmatch(r"\d{1,6}", text, re.ASCII) else text
    if (type(value) is int and value >= 0) or (isinstance(value, str) and _NAME.fullmatch(value)):
        return value
    raise ValueError("expected an antenna: its correlator number, or its name such as LWA-114")


def antennas(value: Any) -> tuple[str | int, ...]:
    """Antennas, none twice. Raises ValueError if it is no list, or holds something else."""
    if not isinstance(value, list | tuple):
        raise ValueError("expected a list of antennas: correlator numbers, or names such as LWA-114")
    return tuple(dict.fromkeys(antenna(item) for item in value))


def antenna_key(name: str) -> str:
    """The name of an antenna in the form in which names are compared: `LWA-266`, `LWA266` and `lwa266` are one."""
    return name.replace("-", "").strip().upper()


def _command(value: Any) -> Any:
    if value is not None and not (isinstance(value, str) and value.strip() and words(value)):
        raise ValueError("expected a command line: a program and its arguments")
    return value


def words(command: str) -> list[str]:
    """A command line, split as a shell does. Raises ValueError if a quotation mark is not closed."""
    try:
        return shlex.split(command)
    except ValueError as error:
        raise ValueError("expected a command line; a quotation mark in it is not closed") from error


AntennaId = Annotated[str | int, BeforeValidator(antenna)]


class BadAntennaSource(BaseModel):
    """Where the list of antennas comes from that are known to be bad."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    file: Path | None = Field(
        default=None, description="YAML file: a list of antennas under each date from which on it holds"
    )
    command: Annotated[str | None, BeforeValidator(_command)] = Field(
        default=None,
        description="Program that prints the list, {date} in it is replaced: a JSON list, or one antenna a line",
    )
    fallback: Annotated[tuple[str | int, ...], BeforeValidator(antennas)] = Field(
        default=(), description="Antennas to leave out when file or command do not answer, or when there is neither"
    )
    deadline_s: float = Field(default=30.0, gt=0, description="Seconds after which the command is given up")

    @model_validator(mode="after")
    def _never_nothing(self) -> BadAntennaSource:
        if self.file and self.command:
            raise ValueError("expected a file or a command, not both")
        if (self.file or self.command) and not self.fallback:
            what = "file" if self.file else "command"
            raise ValueError(
                f"expected a fallback beside the {what}: the antennas to leave out when it does not answer"
            )
        return self


@dataclass(frozen=True)
class BadAntennas:
    """Antennas to leave out.

    Attributes
    ----------
    antennas : tuple of int or str
        Correlator numbers and names, as the source has them, none twice.
    source : str
        What said so, for the report.
    warning : str or None
        Why the source was not used, and the fall-back list was.
    places : mapping of antenna to str
        File and line of those that stand in a file.
    """

    antennas: tuple[str | int, ...]
    source: str
    warning: str | None = None
    places: Mapping[str | int, str] = field(default_factory=dict, compare=False)

    def place(self, antenna: str | int) -> str:
        """Where an antenna of the list stands."""
        return self.places.get(antenna, self.source)


def bad_antennas(source: BadAntennaSource, day: date) -> BadAntennas:
    """The antennas that are known to be bad on a day.

    The file is a mapping of dates to lists; the newest entry that is not after the day counts. The command is run
    without a shell, ``{date}`` in its arguments replaced by the day, and prints nothing but a JSON list, or one antenna
    a line, or "none". A source that is missing, broken, slow, or prints nothing gives the fall-back list and a
    warning: that it does not answer does not mean that all antennas are well.

    Parameters
    ----------
    source : BadAntennaSource
    day : date
        UTC.
    """
    from orca.antenna_lists import from_command, from_file

    day = day.date() if isinstance(day, datetime) else day
    try:
        if source.file is not None:
            return from_file(source.file, day)
        if source.command is not None:
            return from_command(source.command, day, source.deadline_s)
    except OrcaError as error:
        where = f"{error.path}: {error.problem}" if error.path else error.problem
        used = f"used is the fall-back list of {len(source.fallback)} antenna{'s' if len(source.fallback) > 1 else ''}"
        return BadAntennas(source.fallback, "fall-back list of the configuration", f"bad antennas: {where}; {used}")
    return BadAntennas(source.fallback, "list of the configuration" if source.fallback else "no list is configured")


# ---- what the autocorrelations show ----

MIN_GROUP = 5
"""Antennas with power; fewer are no group to be judged by itself."""
MIN_ALIVE = 0.5
"""Share of the channels in which an antenna must have power."""
CROWD = 0.25
"""Share of a group that stands together where antennas work as they should."""
NEAR_DB = 6.0
"""Levels that stand together are not farther apart than this, and those farther off do not count as scatter."""
SPREAD_DB = (0.5, 2.0)
"""Bounds of the scatter of antennas that work: so little is none, and more must not excuse everybody."""


def bad_by_autocorrelation(
    power: np.ndarray, core: np.ndarray | Sequence[bool], n_sigma: float = 7.0
) -> dict[tuple[int, int], str]:
    """Polarizations of antennas whose autocorrelations are missing, or far from those of the others.

    The median over channels of an antenna's power in dB is compared with the median of its group, in units of 1.4826
    MAD (of both polarizations). Core and outriggers are groups of their own, since their signal chains differ; a
    group of fewer than 5 antennas is judged by all together. Where most antennas are bad, a median of all would excuse
    them and accuse the others. So median and MAD are those of the strongest quarter that stands together and of all
    within 6 dB of it: many antennas can fail to one low level, as when a board is gone, but not to one high level.

    Parameters
    ----------
    power : array, shape (n_antennas, n_channels, 2)
        Autocorrelations XX and YY, in any unit, averaged over time. Zero, negative or not finite: no data.
    core : bool array, shape (n_antennas,)
        See `orca.telescope.split_core`.
    n_sigma : float

    Returns
    -------
    dict
        Why, by antenna number and polarization (0 for X, 1 for Y).

    Raises
    ------
    InputError
        The shapes do not fit.
    """
    import numpy as np

    values, in_core = np.asarray(power, float), np.asarray(core, bool)
    if values.ndim != 3 or values.shape[2] != 2 or in_core.shape != values.shape[:1]:
        problem = f"autocorrelations have the shape {values.shape}, core has {in_core.shape}"
        raise InputError(problem, remedy="They need (antennas, channels, 2) and (antennas,)")
    with np.errstate(invalid="ignore"):
        there = np.isfinite(values) & (values > 0)
    recorded = there.any(axis=0)  # the others are missing for everybody, and nobody's fault
    alive = there.sum(axis=1) > MIN_ALIVE * np.maximum(recorded.sum(axis=0), 1)
    decibels = np.ma.masked_array(10 * np.log10(np.where(there, values, 1)), ~there)
    level = np.ma.median(decibels, axis=1).filled(np.nan)
    why = dict.fromkeys(((number, pol) for number, pol in np.argwhere(~alive).tolist()), "no power")
    for group, name in ((in_core, "core antennas"), (~in_core, "outriggers")):
        own = alive & group[:, None]
        alone = own.sum(axis=0) >= MIN_GROUP
        off = level - np.array([_middle(level[(own if alone[pol] else alive)[:, pol], pol]) for pol in (0, 1)])
        near = np.abs(off[np.where(alone, own, alive)])
        near = near[near <= NEAR_DB]
        limit = n_sigma * np.clip(1.4826 * np.median(near), *SPREAD_DB) if near.size else np.inf
        for number, pol in np.argwhere(own & (np.abs(off) > limit)).tolist():
            how = f"{abs(off[number, pol]):.1f} dB {'stronger' if off[number, pol] > 0 else 'weaker'}"
            why[number, pol] = f"{how} than the other {name if alone[pol] else 'antennas'}"
    return dict(sorted(why.items()))


def _middle(level_db: np.ndarray) -> float:
    """Median, in dB, of the antennas that work as they should; not a number if there are too few to tell."""
    import numpy as np

    if level_db.size < MIN_GROUP:
        return float("nan")
    ordered = np.sort(level_db)
    count = max(3, int(np.ceil(CROWD * ordered.size)))
    width = ordered[count - 1 :] - ordered[: ordered.size - count + 1]
    first = np.flatnonzero(width <= max(width.min(), NEAR_DB))[-1]
    middle = np.median(ordered[first : first + count])
    for _ in range(100):  # from there to the middle of all that stand around it
        middle, before = np.median(ordered[np.abs(ordered - middle) <= NEAR_DB]), middle
        if middle == before:
            break
    return float(middle)
