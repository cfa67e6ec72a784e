"""What is in the model of the sky: options only, so that commands and flows import them fast."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class SkyOptions(BaseModel):
    """Which sources the model of the sky has, and through which pattern they are seen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_elevation_deg: float = Field(
        default=20.0, ge=0, lt=90, description="Sources must stand higher than this, in degrees"
    )
    min_apparent_jy: float = Field(
        default=500.0,
        ge=0,
        description="Sources must look brighter than this to the dipoles, in Jy, in the middle of the band",
    )
    sources: tuple[str, ...] = Field(
        default=(), description="Names of the sources to use, such as 'Cyg A' or cyga; all that are known if not given"
    )
    sky_file: Path | None = Field(default=None, description="YAML file with more sources, or better spectra")
    beam_file: Path | None = Field(
        default=None, description="HDF5 file with the dipoles' pattern; sin(elevation) ** 1.6 if not given"
    )
