"""How a night is reduced. Imports nothing heavy, as flows and the command line need it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from orca.errors import InputError

if TYPE_CHECKING:
    from orca.ms.info import MsInfo

_CHANNELS = re.compile(r"(\d+)(?:-(\d+))?", re.ASCII)
_HOURS = re.compile(r"(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)", re.ASCII)


class ReductionOptions(BaseModel):
    """How integrations are flagged and averaged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: Path | None = Field(
        default=None, description="AOFlagger strategy (Lua); ORCA's own for this telescope if not given"
    )
    block: int = Field(default=24, ge=1, le=360, description="Integrations that are flagged together")
    average: int = Field(default=4, ge=1, description="Channels that become one; 1 for none")
    calibrate: Literal["none", "find", "require"] = Field(
        default="none", description="Before flagging: apply no calibration, the best that there is, or fail without one"
    )
    flag_autocorrelations: bool = Field(
        default=False, description="Look for RFI in autocorrelations as well, which AOFlagger's program leaves alone"
    )
    flag_antennas: tuple[str, ...] = Field(
        default=(),
        description="Antennas to flag besides the known bad ones, by name or number: 12,LWA-266",
        json_schema_extra={"cli": "--flag-antenna"},
    )
    flag_channels: tuple[str, ...] = Field(
        default=(),
        description="Channels to flag in all integrations: 17,20-25",
        json_schema_extra={"cli": "--flag-channel"},
    )
    max_level: float = Field(
        default=3.0,
        gt=1,
        description="Integrations whose level is further than this factor from the median of their block are left out",
    )
    tar: bool = Field(default=False, description="Write each averaged Measurement Set as a tar")

    @field_validator("flag_antennas", "flag_channels", mode="before")
    @classmethod
    def _split_at_commas(cls, items: Any) -> Any:
        given = items if isinstance(items, list | tuple) else (items,)
        return tuple(part.strip() for item in given for part in str(item).split(",") if part.strip())

    @field_validator("flag_channels")
    @classmethod
    def _are_channels(cls, items: tuple[str, ...]) -> tuple[str, ...]:
        for item in items:
            match = _CHANNELS.fullmatch(item)
            if match is None or int(match[2] or match[1]) < int(match[1]):
                raise ValueError(f"{item!r} is neither a channel nor a range such as 20-25")
        return items

    def channels(self) -> list[int]:
        """Channels to flag, each once."""
        found: set[int] = set()
        for item in self.flag_channels:
            first, _, last = item.partition("-")
            found |= set(range(int(first), int(last or first) + 1))
        return sorted(found)


class OriginalOptions(BaseModel):
    """What becomes of the originals once their products were read back."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    originals: Literal["keep", "trash"] = Field(
        default="keep",
        description="Leave the originals, or move those to the trash of which nothing below says that they are kept",
    )
    keep_near: tuple[str, ...] = Field(
        default=("Cyg A", "Cas A", "Tau A", "Vir A"),
        description="Sources near whose transit originals are kept",
    )
    keep_minutes: float = Field(default=4.0, ge=0, description="How near, in minutes before and after the transit")
    keep_lst: str | None = Field(
        default=None, description="Range of sidereal hours in which originals are kept, such as 11-14 or 23-1"
    )

    @field_validator("keep_near", mode="before")
    @classmethod
    def _names(cls, items: Any) -> Any:
        given = items if isinstance(items, list | tuple) else (items,)
        return tuple(part.strip() for item in given for part in str(item).split(",") if part.strip())

    @field_validator("keep_lst")
    @classmethod
    def _is_a_range(cls, text: str | None) -> str | None:
        if text is not None:
            match = _HOURS.fullmatch(text.strip())
            if match is None or not all(float(hour) <= 24 for hour in match.groups()):
                raise ValueError(f"{text!r} is no range of sidereal hours such as 11-14")
        return text

    @property
    def lst_range_h(self) -> tuple[float, float] | None:
        """First and last sidereal hour; the first may be larger, across midnight."""
        if self.keep_lst is None:
            return None
        first, last = self.keep_lst.split("-")
        return float(first), float(last)


def check_options(info: MsInfo, options: ReductionOptions) -> None:
    """Refuse options that do not fit to what was recorded.

    Raises
    ------
    InputError
        Channels that cannot be averaged so, a channel or an antenna that is not there.
    """
    if info.n_channels % options.average:
        problem = f"{info.n_channels} channels cannot be averaged by {options.average}"
        raise InputError(problem, info.path, "Give --average a divisor")
    if (channels := options.channels()) and channels[-1] >= info.n_channels:
        problem = f"has {info.n_channels} channels, none with the number {channels[-1]}"
        raise InputError(problem, info.path, f"Channels are 0 to {info.n_channels - 1}")
    info.antenna_numbers(options.flag_antennas)
