"""Flows whose tasks run real programs on the nodes and publish products, for tests that end parts meanwhile.

Flow processes and Dask workers import them from here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from prefect import flow, task

from flows.common import Frozen
from orca import config
from orca.cluster.gather import conclude, gather
from orca.cluster.runner import PoolTaskRunner
from orca.cluster.worker import stop_signal
from orca.manifest import draft, fresh
from orca.process import run
from orca.products import publish
from orca.scratch import scratch_folder, sweep

PROGRAM, INPUT, OUT, TRIES = "program", "input", "out", "tries"


class Made(Frozen):
    """A product as published."""

    manifest: Path
    skipped: bool


def prepare(folder: Path) -> Path:
    """Make what the tasks need: an input, and a program with a name of its own."""
    for name in (OUT, TRIES):
        (folder / name).mkdir(parents=True)
    (folder / INPUT).touch()
    (folder / PROGRAM).symlink_to("/bin/sleep")
    return folder


def manifest_path(folder: Path, unit: str) -> Path:
    return folder / OUT / f"{unit}.json"


@task(name="make", persist_result=False)
def make(folder: Path, unit: str, seconds: float, deadline_s: float) -> Made:
    """Run a program that takes so long, and publish a product; a fresh one is left alone."""
    making = draft(unit, "test", [folder / INPUT], {"seconds": seconds})
    final = manifest_path(folder, unit)
    if fresh(final, making.inputs, making.options):
        return Made(manifest=final, skipped=True)
    scratch = config.load().paths.scratch
    scratch.mkdir(parents=True, exist_ok=True)
    sweep(scratch)
    with scratch_folder(scratch, need_bytes=0, label=unit) as work:
        with (folder / TRIES / unit).open("a") as tries:
            tries.write(f"{os.environ['ORCA_NODE']}\n")
        words = [folder / PROGRAM, str(seconds)]
        log = work.path / "log"
        record = run(words, log=log, deadline_s=deadline_s, threads=1, stop=stop_signal(), owner=work.owner)
        product = work.path / unit
        product.write_text(f"{unit}\n")
        publish({product: folder / OUT / unit}, making.manifest(programs=[record]), final)
    return Made(manifest=final, skipped=False)


@flow(name="making", task_runner=PoolTaskRunner("default"), persist_result=False)
def making(
    folder: Path, units: int = 2, seconds: float = 2.0, deadline_s: float = 100.0, memory_gb: float | None = None
) -> Any:
    """Make some products."""
    (folder / "users").open("a").write(f"{config.load().queue.prefix}\n")
    names = [f"unit{number}" for number in range(units)]
    arguments = {"folder": folder, "seconds": seconds, "deadline_s": deadline_s}
    outcomes = gather(make, {name: {**arguments, "unit": name} for name in names}, memory_gb=memory_gb)
    return conclude(outcomes, "making")
