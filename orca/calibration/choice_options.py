"""Options of the choice of calibration tables. Nothing heavy is imported here."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ChoiceOptions(BaseModel):
    """Which calibration an observation takes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    max_age_days: float = Field(
        default=7.0,
        gt=0,
        description="Take no calibration that is more days than this before or after the observation",
    )
    nearest: Literal["sidereal", "time"] = Field(
        default="sidereal",
        description="Take the calibration made under the most similar sky (sidereal), or the nearest in time (time)",
    )
    use_delay: bool = Field(
        default=True,
        description="Apply the delays that a bandpass was solved with; without, one that needs none is taken",
    )
