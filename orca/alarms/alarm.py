"""An alarm, and what a look at one condition has found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

State = Literal["raised", "cleared"]


class Condition(StrEnum):
    """What is looked at. The name of an alarm begins with its condition."""

    RECORDING = "recording"
    RAW = "raw"
    DISK = "disk"
    DEAD_LETTERS = "dead-letters"
    GONE = "gone"
    CALIBRATION = "calibration"


CONDITIONS = tuple(Condition)


@dataclass(frozen=True)
class Alarm:
    """Something that people should know.

    Attributes
    ----------
    name : str
        The same for as long as it lasts: ``disk:/fast``.
    text : str
        What is wrong, and what to do.
    paths : tuple of str
        Files and folders that it is about.
    """

    name: str
    text: str
    paths: tuple[str, ...] = ()


@dataclass(frozen=True)
class Findings:
    """What a look at a condition has found.

    Attributes
    ----------
    condition : str
        One of `CONDITIONS`.
    alarms : tuple of Alarm
        All that are up.
    decided : bool
        False: nothing can be said, so that what was up stays up.
    problem : str
        Why that is so, where somebody should know.
    about : tuple of str
        How the names begin of the alarms that it is about; empty: it is about all of the condition.
    """

    condition: str
    alarms: tuple[Alarm, ...] = ()
    decided: bool = True
    problem: str = ""
    about: tuple[str, ...] = ()

    def decides(self, name: str) -> bool:
        """Whether an alarm of this name is over where it is not among those found."""
        ours = condition_of(name) == self.condition
        return self.decided and ours and (not self.about or name.startswith(self.about))


def condition_of(name: str) -> str:
    """The condition of an alarm of this name."""
    return name.partition(":")[0]
