"""What the flows of all stages share."""

from __future__ import annotations

from pathlib import Path

from prefect.runtime import deployment
from pydantic import BaseModel, ConfigDict

from orca.config import Config
from orca.errors import InputError
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


def check_absolute(**paths: Path | None) -> None:
    """Refuse relative paths to a deployment's run, which does not know the folder of whoever asked for it.

    Raises
    ------
    InputError
        One is relative.
    """
    if deployment.id is None:
        return
    for name, path in paths.items():
        if path is not None and not path.is_absolute():
            problem = f"{name.replace('_', ' ')}: a deployment's run does not know what this path is relative to"
            raise InputError(problem, path, "Give the whole path, from the root on")
