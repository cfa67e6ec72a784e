"""What the flows of all stages share."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from orca.config import Config
from orca.ms.acceptance import Acceptance

Quality = dict[str, float | int | str | None]


class Frozen(BaseModel):
    """Base of what travels from a flow to its tasks, and back."""

    model_config = ConfigDict(frozen=True)


def acceptance_of(settings: Config) -> Acceptance:
    """What a Measurement Set must have to be worked on, by the configuration."""
    return Acceptance(
        settle_s=settings.limits.settle_s,
        min_fill_level=settings.limits.min_fill_level,
        max_zero_share=settings.limits.max_zero_share,
    )
