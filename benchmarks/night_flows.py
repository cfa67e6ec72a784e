"""Flows of a simulated night, whose tasks only sleep; deployed and run by night.py."""

from __future__ import annotations

import time
from typing import Any

from prefect import flow, task

from flows.common import Frozen
from orca.cluster.gather import conclude, gather
from orca.cluster.runner import PoolTaskRunner
from orca.cluster.worker import report_step


class Slept(Frozen):
    """What a task returns."""

    block: str
    seconds: float
    skipped: bool = False


@task(name="sleep", persist_result=False)
def sleep(block: str, seconds: float) -> Slept:
    """Sleep for the time that the block takes."""
    report_step(block, "sleeping")
    time.sleep(seconds)
    return Slept(block=block, seconds=seconds)


@flow(name="night-reduction", task_runner=PoolTaskRunner("default"), persist_result=False)
def reduction(hour: str, blocks: dict[str, float]) -> Any:
    """Stands for flagging and averaging the blocks of an hour, each with its seconds."""
    return _all_of(hour, blocks)


@flow(name="night-imaging", task_runner=PoolTaskRunner("imaging"), persist_result=False)
def imaging(hour: str, blocks: dict[str, float]) -> Any:
    """Stands for their images."""
    return _all_of(hour, blocks)


@flow(name="night-split", task_runner=PoolTaskRunner("cosmology"), persist_result=False)
def split(hour: str, blocks: dict[str, float]) -> Any:
    """Stands for keeping XX and YY of them."""
    return _all_of(hour, blocks)


@flow(name="night-calibration", task_runner=PoolTaskRunner("bandpass"), persist_result=False)
def calibration(hour: str, blocks: dict[str, float]) -> Any:
    """Stands for their bandpasses."""
    return _all_of(hour, blocks)


def _all_of(hour: str, blocks: dict[str, float]) -> Any:
    units = {block: {"block": block, "seconds": seconds} for block, seconds in blocks.items()}
    return conclude(gather(sleep, units), f"hour-{hour}")
