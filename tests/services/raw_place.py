"""A user with a raw tree of hours ago, and deployments that nobody works for, on a real Prefect server."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

import yaml
from prefect.client.orchestration import SyncPrefectClient

from orca import config, naming
from orca.cluster import deployments, work_pools
from orca.cluster.pools import default_path, load_pools
from orca.config import Config
from orca.telescope import INTEGRATION_S

HOUR = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=6)
"""In which it was recorded."""


@dataclass
class RawPlace:
    """A user with a raw tree, and deployments that nobody works for."""

    folder: Path
    url: str
    client: SyncPrefectClient
    prefix: str = field(default_factory=lambda: f"p{uuid.uuid4().hex[:8]}")

    @property
    def file(self) -> Path:
        """The user's configuration."""
        return self.folder / "orca-conf.yml"

    @cached_property
    def settings(self) -> Config:
        sections = {
            "queue": {"prefix": self.prefix},
            "prefect": {"api_url": self.url},
            "paths": {"data": str(self.folder / "data")},
        }
        self.file.write_text(yaml.safe_dump(sections))
        return config.load(self.file)

    def deploy(self) -> None:
        work_pools.apply(self.client, load_pools(default_path()), self.prefix)
        deployments.apply(self.client, deployments.wanted(deployments.read_deployments(), self.prefix))

    def record(self, block: int, hours_ago: int = 0, band: str = "73MHz", count: int = 3) -> list[Path]:
        """The first integrations of a block; they look as if they had come long ago."""
        made = []
        for number in range(24 * block, 24 * block + count):
            start = HOUR + timedelta(hours=-hours_ago, seconds=2 + number * INTEGRATION_S)
            made.append(naming.raw_path(self.settings.paths.raw, naming.Observation(band, start)))
            made[-1].mkdir(parents=True, exist_ok=True)
            os.utime(made[-1], (HOUR.timestamp(), HOUR.timestamp()))
        return made
