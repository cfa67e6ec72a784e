"""`orca night` of a full night: seconds and peak memory of the account, and of the page.

A tree of 16 subbands x 10 hours is made below a temporary folder, 57 000 recordings by their names, and the manifests
of what was made of them: blocks, images and splits, with as many inputs, outputs and quality numbers as real ones have.
Some blocks failed, are dead or wait.

.venv/bin/python benchmarks/night_account.py [--hours 10] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from orca import failures, naming
from orca.manifest import Fingerprint, Manifest
from orca.night import Places
from orca.telescope import INTEGRATION_S, SUBBANDS

DAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
SIZE = 24
_COST: dict[str, Any] = dict.fromkeys(("seconds", "cpu_seconds", "peak_memory_bytes", "read_bytes", "written_bytes"), 1)
_MEASURE = """
import json, resource, sys, time
from datetime import UTC, date, datetime
from pathlib import Path
from orca.night import Places, take_account
begin = time.perf_counter()
root = Path(sys.argv[1])
places = Places(**{name: root / name for name in sys.argv[3:]}, lifetime_h=1e4)
account = take_account(places, date.fromisoformat(sys.argv[2]), datetime.now(UTC))
took = time.perf_counter() - begin
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
from orca.night.page import page
begin = time.perf_counter()
size = len(page(account, places))
print(json.dumps({"seconds": took, "peak_mb": memory, "recorded": account.total.recorded,
                  "reduced": account.total.reduced, "page_seconds": time.perf_counter() - begin, "page_bytes": size}))
"""
PLACES = ("raw", "averaged", "cosmology", "images", "calibration", "dynspec", "failures")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=int, default=10)
    parser.add_argument("--keep", type=Path, help="make the tree there, and leave it")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="orca-benchmark-") as name:
        root = asked.keep or Path(name)
        begin = time.perf_counter()
        make_night(root, asked.hours)
        print(f"made the tree in {time.perf_counter() - begin:.0f} s")
        for hours in sorted({1, asked.hours}):
            part = root if hours == asked.hours else Path(name) / "part"
            if part is not root:
                make_night(part, hours)
            print(f"{hours} h: {measured(part)}")


def measured(root: Path) -> str:
    """The account in a process of its own."""
    words = [sys.executable, "-c", _MEASURE, str(root), f"{DAY:%Y-%m-%d}", *PLACES]
    told = json.loads(subprocess.run(words, check=True, capture_output=True, text=True, env=dict(os.environ)).stdout)
    return (
        f"{told['recorded']} recordings, {told['reduced']} reduced, {told['seconds']:.2f} s, {told['peak_mb']:.0f} MB; "
        f"page {told['page_seconds']:.2f} s, {told['page_bytes'] / 1e6:.2f} MB"
    )


def make_night(root: Path, hours: int, first: int = 2) -> Places:
    """The tree of a night; returns its places."""
    places = Places(**{name: root / name for name in PLACES})
    for band in SUBBANDS:
        for hour in range(first, first + hours):
            sources = list(recorded(places.raw, band.name, DAY + timedelta(hours=hour)))
            for number in range(0, len(sources), SIZE):
                reduce(places, sources[number : number + SIZE], number // SIZE, band.index + hour)
    return places


def recorded(root: Path, band: str, begin: datetime) -> Iterator[Path]:
    """Empty files with the names of an hour."""
    start = begin + timedelta(seconds=2)
    while start < begin + timedelta(hours=1):
        path = naming.raw_path(root, naming.Observation(band, start), tar=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (start.timestamp() + 10, start.timestamp() + 10))
        yield path
        start += timedelta(seconds=INTEGRATION_S)


def reduce(places: Places, sources: list[Path], number: int, chance: int) -> None:
    """What a block leaves: a manifest and those of its images and splits; or a failure, or nothing."""
    seen = [naming.parse(source).observation for source in sources]
    prefix = naming.block_prefix(places.averaged, seen[0].subband, seen[0].start.date(), seen[0].start.hour, number)
    kind = (chance * 7 + number * 3) % 29
    if kind == 0:
        return
    if kind == 1:
        unit = f"{seen[0].subband} {seen[0].start:%Y-%m-%d %Hh} block {number:02d}"
        reason = "all visibilities are zero" if chance % 2 else "AOFlagger took longer than 600 s"
        failures.tell(
            places.failures,
            failures.Failed("reduction", unit, reason, "payload", tuple(map(str, sources)), failures.now()),
        )
        return
    outputs = [
        path
        for one in seen
        for path in (naming.averaged_path(places.averaged, one), naming.flagmeta_path(places.averaged, one))
    ]
    quality: dict[str, Any] = {f"checksums {path.name}": "DATA 0123abcd FLAG 0123abcd" for path in outputs[::2]}
    quality |= {f"source {path.name}": str(source) for path, source in zip(outputs[::2], sources, strict=True)}
    write(prefix, "reduction", sources, outputs, {**quality, "integrations": len(sources), "rfi_share": 0.01})
    if number % 2:
        return
    for source, one in zip(sources, seen, strict=True):
        image = naming.image_prefix(places.images, one)
        write(image, "image", [source], [image.with_name(f"{image.name}-dirty.fits")], {"I rms_jy": 1.0})
        split = naming.cosmology_path(places.cosmology, one, split=True)
        write(split, "cosmology", [source], [split], {"zero_share": 0.0})


def write(product: Path, kind: str, inputs: list[Path], outputs: list[Path], quality: dict[str, Any]) -> None:
    """A manifest."""
    made = Manifest(
        product=product.name, kind=kind, inputs=tuple(map(printed, inputs)), outputs=tuple(map(printed, outputs)),
        options={"block": 24, "average": 4}, software={"orca": "0.1.0"}, started="", finished="", host="lwacalim00",
        quality=quality, **_COST,
    )  # fmt: skip
    path = naming.manifest_path(product)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(made.text(), encoding="utf-8")


def printed(path: Path) -> Fingerprint:
    """A fingerprint of what need not be there."""
    return Fingerprint(path=str(path), kind="file", size=1, mtime_ns=1, files=1, inode=1)


if __name__ == "__main__":
    main()
