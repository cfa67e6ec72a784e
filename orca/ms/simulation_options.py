"""What to simulate."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from orca import telescope


class SimulationOptions(BaseModel):
    """What to simulate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    subbands: tuple[str, ...] = Field(default=("73MHz",), min_length=1, description="Names of subbands, such as 73MHz")
    start: datetime = Field(default=datetime(2026, 1, 10, 18, tzinfo=UTC), description="Start of the first one, UTC")
    integrations: int = Field(default=1, ge=1, description="Number of consecutive integrations of 10.031 s")
    antennas: int = Field(default=telescope.N_ANTENNAS, ge=4, le=telescope.N_ANTENNAS, description="Number of antennas")
    channels: int = Field(
        default=telescope.N_CHANNELS,
        ge=1,
        le=telescope.N_CHANNELS,
        description="Channels, from the first of the subband",
    )
    gains: bool = Field(default=True, description="Give each antenna a bandpass and a delay; without, all gains are 1")
    noise: float = Field(default=1.0, ge=0, description="Noise relative to the telescope's; 0 for none")
    beam: bool = Field(default=True, description="Weaken sources by the pattern of the dipoles")
    rfi: int = Field(default=0, ge=0, description="Number of narrow lines of interference in each subband")
    dead_antennas: tuple[int, ...] = Field(default=(), description="Correlator numbers that hear nothing")
    dead_polarizations: tuple[str, ...] = Field(
        default=(), description="Polarizations of antennas that hear nothing, such as 12X"
    )
    dead_subbands: tuple[str, ...] = Field(default=(), description="Subbands that are recorded as zeros")
    min_elevation_deg: float = Field(default=2.0, ge=0, lt=90, description="Sources below this elevation are left out")
    seed: int = Field(default=0, ge=0, description="Seed of gains, noise and interference")
    tar: bool = Field(default=False, description="Write .ms.tar, as the recorder does since 2026")

    @field_validator("start")
    @classmethod
    def _in_utc(cls, value: datetime) -> datetime:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    @field_validator("subbands", "dead_subbands")
    @classmethod
    def _known_subbands(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(telescope.subband(name).name for name in names))

    @model_validator(mode="after")
    def _dead_antennas_exist(self) -> SimulationOptions:
        numbers = [*self.dead_antennas, *(number for number, _ in self.dead_feeds)]
        wrong = [number for number in numbers if not 0 <= number < self.antennas]
        if wrong:
            raise ValueError(f"there is no antenna {wrong[0]}: the array has 0 to {self.antennas - 1}")
        return self

    @field_validator("dead_polarizations")
    @classmethod
    def _polarizations(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not re.fullmatch(r"\d+[XYxy]", name):
                raise ValueError(f"{name!r} is no polarization of an antenna: say its number and X or Y, such as 12X")
        return tuple(name.upper() for name in names)

    @property
    def dead_feeds(self) -> tuple[tuple[int, int], ...]:
        """Antenna and polarization (0 is X, 1 is Y) of each of `dead_polarizations`."""
        return tuple((int(name[:-1]), "XY".index(name[-1])) for name in self.dead_polarizations)
