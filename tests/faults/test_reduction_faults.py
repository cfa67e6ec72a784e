"""Reduction under fire: kill -9 at any moment, and a disk that fills up."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from file_times import age

from flows.reduction_block import reduce_block_task
from flows.reduction_units import How, Site, Unit
from orca.errors import StorageError
from orca.isolation import preload, run_isolated
from orca.manifest import read_manifest
from orca.ms.acceptance import Acceptance
from orca.ms.reduce import reduce_block
from orca.ms.simulate import SimulationOptions, simulate
from orca.reduction_options import OriginalOptions, ReductionOptions
from orca.trash import list_trash

KILLS = 3
START = datetime(2026, 1, 10, 18, tzinfo=UTC)
BLOCK = "20260110_18_73MHz_block00"


def start(place: Path, sources: list[Path]) -> psutil.Process:
    """Begin to reduce the block in a child process, which tells in a file what was made."""
    child = os.fork()
    if child == 0:
        try:
            preload(("orca.ms.reduce",))
            how = How(options=ReductionOptions(), originals=OriginalOptions(originals="trash", keep_near=()))
            unit = Unit(name="block", start=START, sources=tuple(sources), prefix=place / "averaged" / BLOCK)
            made = reduce_block_task.fn(unit, how, machines(place))
            (place / "told").write_text(json.dumps([made.skipped, made.trashed]))
            os._exit(0)
        finally:
            os._exit(1)
    return psutil.Process(child)


def machines(place: Path) -> Site:
    """What the flow would give its tasks, all in one folder."""
    return Site(
        scratch=place / "scratch",
        trash=place / "trash",
        stage_s=300.0,
        reserve_bytes=0,
        lifetime_h=24.0,
        acceptance=Acceptance(settle_s=0.0),
    )


def told(place: Path, process: psutil.Process) -> list[Any]:
    """Whether a reduction that ends was skipped, and how many originals it trashed."""
    assert process.wait(120) == 0
    return list(json.loads((place / "told").read_text()))


def checksums(place: Path) -> dict[str, object]:
    """What was written, by the manifest; every file that it names is there, and no other."""
    manifest = read_manifest(place / "averaged" / f"{BLOCK}.manifest.json")
    named = {Path(output.path).name for output in manifest.outputs}
    there = {path.name for path in (place / "averaged").iterdir() if not path.name.endswith(".manifest.json")}
    assert there == named
    return {name: value for name, value in manifest.quality.items() if name.startswith("checksums")}


def originals(place: Path, sources: list[Path]) -> list[Path]:
    """Every original exactly once, where it was or in the trash."""
    trashed = [entry.original for entry in list_trash(place / "trash")]
    left = [path for path in sources if path.exists()]
    assert sorted([*left, *trashed]) == sources
    return left


def recorded(place: Path) -> list[Path]:
    made = simulate(place / "raw", SimulationOptions(antennas=24, channels=64, start=START, integrations=6, rfi=1))
    age(place / "raw")
    return sorted(made)


def test_whatever_moment_it_is_killed_at_the_next_run_completes_it_and_no_original_is_lost(tmp_path: Path) -> None:
    calm, place = tmp_path / "calm", tmp_path / "place"
    assert told(calm, start(calm, recorded(calm))) == [False, 6]

    sources = recorded(place)
    choice = random.Random(5)
    for _ in range(KILLS):
        process = start(place, sources)
        time.sleep(choice.uniform(0.0, 2.0))
        children = process.children(recursive=True)
        process.kill()
        process.wait()
        psutil.wait_procs(children, timeout=30)
        originals(place, sources)
    assert told(place, start(place, sources))[1] >= 0
    assert originals(place, sources) == []
    assert checksums(place) == checksums(calm)
    assert [path for path in place.rglob("*") if ".orca-part-" in path.name or path.name.startswith("orca-block")] == []


def test_a_disk_that_fills_up_is_told_and_leaves_nothing(small_disk: Callable[[str], Path], tmp_path: Path) -> None:
    sources = recorded(tmp_path)
    disk = small_disk("40m")
    (disk / "ballast").write_bytes(b"\0" * (40 * 1024**2 - 1_500_000))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "raw").rglob("*") if path.name != "table.lock"}
    work = disk / "work"
    work.mkdir()
    quiet = Acceptance(settle_s=0.0)
    with pytest.raises(StorageError, match="full"):
        run_isolated(reduce_block, sources, work, acceptance=quiet, deadline_s=100.0, disk=disk)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    shutil.rmtree(work)
    (disk / "ballast").unlink()
    work.mkdir()
    block = run_isolated(reduce_block, sources, work, acceptance=quiet, deadline_s=100.0, disk=disk)
    assert len(block.members) == 6
    assert [path.name for path in disk.iterdir()] == ["work"]
