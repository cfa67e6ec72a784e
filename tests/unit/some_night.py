"""A night on disk by names and manifests alone, for the tests of its account and its page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from orca import failures, naming
from orca.manifest import Fingerprint, Manifest
from orca.night import Account, Cell, Places, take_account
from orca.products import write_text
from orca.telescope import INTEGRATION_S

HOUR = datetime(2026, 1, 10, 3, tzinfo=UTC)
NOW = HOUR + timedelta(hours=4)
_COST: dict[str, Any] = dict.fromkeys(("seconds", "cpu_seconds", "peak_memory_bytes", "read_bytes", "written_bytes"), 0)


class Night:
    """The folders of a site."""

    def __init__(self, root: Path) -> None:
        names = ("raw", "averaged", "cosmology", "images", "calibration", "dynspec", "failures")
        self.places = Places(**{name: root / name for name in names})

    def record(self, numbers: range, band: str = "73MHz", hour: datetime = HOUR, *, tar: bool = True) -> list[Path]:
        """Empty files or folders with the names of integrations of an hour, as old as their names say."""
        made = []
        for number in numbers:
            start = hour + timedelta(seconds=2 + number * INTEGRATION_S)
            made.append(naming.raw_path(self.places.raw, naming.Observation(band, start), tar=tar))
            made[-1].parent.mkdir(parents=True, exist_ok=True)
            made[-1].touch() if tar else made[-1].mkdir()
            os.utime(made[-1], (start.timestamp() + 10, start.timestamp() + 10))
        return made

    def reduce(self, sources: Sequence[Path], number: int = 0, **left_out: str) -> None:
        """The manifest of a block; `left_out` are reasons by name."""
        seen = naming.parse(sources[0]).observation
        prefix = naming.block_prefix(self.places.averaged, seen.subband, seen.start.date(), seen.start.hour, number)
        self._manifest(prefix, "reduction", sources, {f"left out {name}": why for name, why in left_out.items()})

    def image(self, *sources: Path) -> Path:
        """The manifest of an image; returns what its files begin with."""
        prefix = naming.image_prefix(self.places.images, naming.parse(sources[0]).observation)
        if len(sources) > 1:
            prefix = prefix.with_name(f"{prefix.name}_{len(sources)}together")
        self._manifest(prefix, "image", sources, {})
        return prefix

    def split(self, source: Path) -> None:
        """The manifest of a split."""
        product = naming.cosmology_path(self.places.cosmology, naming.parse(source).observation, split=True)
        self._manifest(product, "cosmology", [source], {})

    def fail(self, stage: str, unit: str, sources: Sequence[Path], reason: str, **more: str) -> None:
        """What the end of a flow leaves of a unit that failed."""
        told = failures.Failed(stage, unit, reason, "payload", tuple(map(str, sources)), failures.now())
        failures.tell(self.places.failures, replace(told, **more))

    def account(self, now: datetime = NOW, **changes: Any) -> Account:
        """Of the day and 73MHz."""
        return take_account(replace(self.places, **changes), HOUR.date(), now, ["73MHz"])

    def cell(self, now: datetime = NOW, hour: int = HOUR.hour, **changes: Any) -> Cell:
        """The hour of 73MHz."""
        [found] = [each for each in self.account(now, **changes).cells if each.hour == hour]
        return found

    def _manifest(self, product: Path, kind: str, sources: Sequence[Path], quality: dict[str, Any]) -> None:
        inputs = tuple(
            Fingerprint(path=str(source), kind="file", size=1, mtime_ns=1, files=1, inode=1) for source in sources
        )
        made = Manifest(
            product=product.name, kind=kind, inputs=inputs, options={}, software={}, started="", finished="",
            quality=quality, host="", **_COST,
        )  # fmt: skip
        path = naming.manifest_path(product)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, made.text())  # whole, as it is published


def numbers(cell: Cell, *names: str) -> tuple[int, ...]:
    return tuple(getattr(cell.counts, name) for name in names)
