"""Options of the split for cosmology. Nothing heavy is imported here."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class SplitOptions(BaseModel):
    """How to split, and what becomes of the original."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    average: int = Field(
        default=1, ge=1, description="Channels that become one, a divisor of their number; 1 leaves them as they are"
    )
    original: Literal["keep", "trash"] = Field(
        default="keep",
        description="Keep the original, or move it to the trash once the product was read back and compared with it",
    )
