"""How to calibrate: what is read, solved and kept. Imports nothing heavy, as flows and the command line need it."""

from __future__ import annotations

import math
import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

_NUMBER = r"\d+(?:\.\d+)?"


class BlockOptions(BaseModel):
    """Which integrations make a block."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    integrations: int | None = Field(
        default=None, ge=1, description="Integrations of a block; the configuration's (24) if not given"
    )
    min_integrations: int | None = Field(
        default=None,
        ge=1,
        description="Fewest that can be used; the configuration's (12) if not given. With some missing: a warning",
    )


class DelayOptions(BaseModel):
    """Which data show the delays."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    subbands: tuple[str, ...] = Field(
        default=(),
        description="Subbands that take part, such as 73MHz, may be repeated; all that were recorded without",
        json_schema_extra={"cli": "--subband"},
    )
    min_subband_mhz: float = Field(
        default=41.0, ge=0, description="Lowest subband that takes part if none are named, MHz"
    )
    tolerance_s: float = Field(
        default=6.0, gt=0, description="Furthest that an integration may be from the transit of Cyg A, seconds"
    )
    min_subbands: int = Field(default=2, ge=1, description="With fewer that can be used, there are no delays")
    min_coherence: float = Field(
        default=0.5, ge=0, le=1, description="Least share of an antenna's gains that must lie on one line of phase"
    )


class SolveOptions(BaseModel):
    """How to solve for gains."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uv: str = Field(
        default="10-350",
        description="Range of baselines in wavelengths at the middle of the subband, 10-350, 10- or -350; "
        "'all' for all of them, which is also what CASA makes of uvrange='>10lambda,<125lambda'",
    )
    reference_antenna: str | None = Field(
        default=None,
        description="Antenna of phase 0, by name or number; the configuration's if not given, another if it is flagged",
        json_schema_extra={"cli": "--refant"},
    )
    min_baselines: int = Field(default=4, ge=2, description="Fewest baselines of an antenna that has a solution")
    min_snr: float = Field(default=3.0, ge=0, description="Solutions below this ratio of gain to error are flagged")
    flag_antennas: tuple[str, ...] = Field(
        default=(),
        description="Antennas to leave out, by name or number: 12,LWA-266",
        json_schema_extra={"cli": "--flag-antenna"},
    )
    flag_channels: tuple[str, ...] = Field(
        default=(),
        description="Channels to leave out: 17,20-25",
        json_schema_extra={"cli": "--flag-channel"},
    )
    max_iterations: int = Field(
        default=300, ge=2, description="A channel that has not converged after so many is flagged"
    )
    tolerance: float = Field(
        default=1e-6,
        gt=0,
        lt=1,
        description="Change of the solution that counts as converged, as a share of it; 1e-7 is the least",
    )
    template_sigma: float = Field(
        default=7.0, gt=0, description="Solutions that are further from the median of all antennas are flagged"
    )
    max_missing_share: float = Field(
        default=0.5, ge=0, le=1, description="A channel that more antennas than this lack is flagged, and vice versa"
    )

    @field_validator("uv")
    @classmethod
    def _is_a_range(cls, text: str) -> str:
        low, high = _uv_range(text)
        if not low < high:
            raise ValueError(f"{text!r} is an empty range")
        return text.strip()

    @field_validator("flag_antennas", "flag_channels", mode="before")
    @classmethod
    def _split_at_commas(cls, items: Any) -> Any:
        given = items if isinstance(items, list | tuple) else (items,)
        return tuple(part.strip() for item in given for part in str(item).split(","))

    @field_validator("flag_channels")
    @classmethod
    def _are_channels(cls, items: tuple[str, ...]) -> tuple[str, ...]:
        for item in items:
            _channels(item)
        return items

    @property
    def uv_range_lambda(self) -> tuple[float, float]:
        """Shortest and longest baseline, in wavelengths; 0 and infinity for no limit."""
        return _uv_range(self.uv)

    def beyond(self, n_channels: int) -> list[str]:
        """What of `flag_channels` is beyond the last of `n_channels`."""
        return [item for item in self.flag_channels if _channels(item)[-1] >= n_channels]

    def channels(self, n_channels: int) -> list[int]:
        """Channels to leave out, of `n_channels`; those beyond are ignored."""
        return sorted({c for item in self.flag_channels for c in _channels(item)[:n_channels] if c < n_channels})


def _uv_range(text: str) -> tuple[float, float]:
    if text.strip().lower() == "all":
        return 0.0, math.inf
    match = re.fullmatch(rf"\s*({_NUMBER})?\s*-\s*({_NUMBER})?\s*", text)
    if not match or not any(match.groups()):
        raise ValueError(f"{text!r} is not a range of wavelengths like 10-350, 10-, -350 or all")
    return float(match[1] or 0), float(match[2] or math.inf)


def _channels(text: str) -> range:
    match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", text)
    if not match or int(match[2] or match[1]) < int(match[1]):
        raise ValueError(f"{text!r} is not a channel or a range of channels like 0-5")
    return range(int(match[1]), int(match[2] or match[1]) + 1)
