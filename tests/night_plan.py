"""What a miniature night consists of: recordings, rules of the trigger, requests, and the products that come of them.

Files that `orca watch` sees are reduced and split, an announced calibration starts images (all by triggers.yaml);
calibration and spectra are asked for, as a person does.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from file_times import age
from site_of_tests import Site

sys.path.insert(0, str(Path(__file__).parent / "services"))
from standing_stack import POOLS, Stack

from orca import config, naming, telescope
from orca.calibration.planning import last_transit
from orca.config import Config
from orca.ms.simulate import SimulationOptions, simulate

NODES = ("nodea", "nodeb")
STAGES = ("averaged", "cosmology", "calibration", "images", "dynspec")


@dataclass(frozen=True)
class Size:
    """How large the night is."""

    subbands: tuple[str, ...] = ("46MHz", "55MHz", "64MHz", "73MHz")
    split: tuple[str, ...] = ("73MHz",)
    """Those that are split for cosmology."""
    integrations: int = 4
    antennas: int = 24
    channels: int = 48
    every: int = 2
    """Of so many integrations of a subband one is imaged."""
    pixels: int = 256
    scale_deg: float = 0.4
    workers: int = 2
    aged: bool = True
    """Files look as if they had been recorded long ago, so that the catch-up need not wait until they are ten minutes
    old; then it may ask for a block that the trigger still gathers."""
    wait_s: float = 3.0
    """How long the trigger waits for the rest of a block."""


@dataclass
class Plan:
    """A night in a folder: what is recorded, what is asked for, and how many products there are in the end.

    Parameters
    ----------
    folder : Path
    size : Size
    """

    folder: Path
    size: Size = field(default_factory=Size)

    @cached_property
    def start(self) -> datetime:
        """Start of the first integration: the block lies about a transit of Cyg A of late, and within an hour."""
        span = timedelta(seconds=self.size.integrations * telescope.INTEGRATION_S)
        transit = last_transit(datetime.now(UTC) - timedelta(hours=1))  # the catch-up leaves alone what is younger
        while True:
            start = (transit - span / 2).replace(microsecond=0)
            if start.hour == (start + span).hour:
                return start
            transit = last_transit(transit - timedelta(hours=1))

    @property
    def day(self) -> str:
        return f"{self.start:%Y-%m-%d}"

    @cached_property
    def stack(self) -> Stack:
        settings: dict[str, Any] = {
            "paths": {"data": str(self.folder / "orca")},  # whatever the home of the test is
            "calibration": {"integrations": self.size.integrations, "min_integrations": 2},
            "limits": {"settle_s": 0.0, "raw_lifetime_h": 240.0},
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "triggers.yaml").write_text(yaml.safe_dump(self._rules()))
        pools = {name: {**pool, "slots": self.size.workers // 2 or 1} for name, pool in POOLS["pools"].items()}
        return Stack(Site(self.folder, settings), pools={"hosts": list(NODES), "pools": pools})

    def _rules(self) -> dict[str, Any]:
        block = {"block": 24, "wait_s": self.size.wait_s, "together_s": 1.0}
        image = {"name": "image", "after": "calibration.ready", "deployment": "imaging/imaging"}
        image |= {"every": self.size.every, "subbands": list(self.size.subbands)}
        return {
            "recorded": [
                {"name": "reduce", "deployment": "reduction/reduction", **block},
                {"name": "split", "deployment": "cosmology/cosmology", "subbands": list(self.size.split), **block},
            ],
            "announced": [{**image, "parameters": {"calibration": "require", "options": self.imaging}}],
        }

    @property
    def imaging(self) -> dict[str, Any]:
        return {"size": self.size.pixels, "scale_deg": self.size.scale_deg}

    @cached_property
    def settings(self) -> Config:
        return config.load(Path(self.stack.site.environment()["ORCA_CONF"]))

    @cached_property
    def waiting(self) -> list[Path]:
        """What will be recorded, integration by integration, in a folder beside the raw data."""
        size = self.size
        options = SimulationOptions(
            subbands=size.subbands,
            start=self.start,
            integrations=size.integrations,
            antennas=size.antennas,
            channels=size.channels,
        )
        made = simulate(self.folder / "waiting", options)
        if size.aged:
            age(self.folder / "waiting")
        return sorted(made, key=lambda path: path.name)

    @property
    def recorded(self) -> list[Path]:
        return sorted(self.settings.paths.raw.glob("*/*/*/*.ms"), key=lambda path: path.name)

    @property
    def split(self) -> list[Path]:
        """What is split, by the rule."""
        return [path for path in self.recorded if path.parts[-4] in self.size.split]

    @property
    def imaged(self) -> list[Path]:
        """What images are made of, by the rule."""
        bands = {band: [p for p in self.recorded if p.parts[-4] == band] for band in self.size.subbands}
        return [path for found in bands.values() for path in found[:: self.size.every]]

    def root(self, stage: str) -> Path:
        found: Path = getattr(self.settings.paths, stage)
        return found

    def requests(self) -> dict[str, dict[str, Any]]:
        """Parameters of the deployment that makes each stage's products; as a person would ask for all of them."""
        return {
            "averaged": {"measurement_sets": [str(path) for path in self.recorded]},
            "cosmology": {"measurement_sets": [str(path) for path in self.split]},
            "calibration": {"day": self.day},
            "images": {
                "measurement_sets": [str(path) for path in self.imaged],
                "calibration": "require",
                "options": self.imaging,
            },
            "dynspec": {"day": self.day, "options": {"baselines": ["none"]}},
        }

    def expected(self, stage: str) -> int:
        """How many products a stage has in the end."""
        return {
            "averaged": len({(p.parts[-4], self._block(p)) for p in self.recorded}),
            "cosmology": len(self.split),
            "calibration": 1 + len(self.size.subbands),
            "images": len(self.imaged),
            "dynspec": 4,
        }[stage]

    @staticmethod
    def _block(path: Path) -> int:
        start = naming.parse(path).observation.start
        return int((start.minute * 60 + start.second) / telescope.INTEGRATION_S) // 24
