"""Retention: what is kept too long is removed, step by step; a step that fails does not keep the others from it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.states import Completed, Failed

from orca import config
from orca.cluster.artifacts import show_table
from orca.cluster.machine.standing import run_folder
from orca.cluster.retention import sweep_dask, sweep_prefect
from orca.cluster.runner import pool_flow
from orca.config import Config
from orca.disk import readable
from orca.retention import Swept, log_files, sweep_failures, sweep_logs, sweep_scratch, sweep_trash
from orca.trash import trash_folders


def _run_name() -> str:
    """What a flow run is called on Prefect's page: retention 2026-01-10 18:35."""
    return f"retention {datetime.now(UTC):%Y-%m-%d %H:%M}"


@pool_flow("default", "retention", _run_name)
def retention(only_tell: bool = False) -> Any:
    """Remove what is kept too long; what is kept how long stands in the section retention of the configuration.

    The trash, scratch of processes and Dask workers that died on this machine, flow runs of Prefect that have ended,
    log files, and what is kept of failures.

    Args:
        only_tell: Tell what would be removed, and remove nothing.
    """
    swept = _sweep(_steps(config.load()), only_tell)
    _tell(swept, only_tell)
    failed = sum(bool(each.problem) for each in swept)
    state = Failed if failed else Completed
    return state(message=_summary(swept, failed, only_tell))


Step = Callable[..., Swept]


def _steps(settings: Config) -> dict[str, Step]:
    """What is not kept for ever."""
    keep, paths = settings.retention, settings.paths
    steps: dict[str, tuple[float | None, Step]] = {
        "trash": (keep.trash_days, partial(sweep_trash, trash_folders(paths.trash, paths.calibration))),
        "scratch": (keep.scratch_hours, partial(sweep_scratch, paths.scratch)),
        "scratch of Dask": (keep.scratch_hours, partial(sweep_dask, paths.scratch)),
        "Prefect's flow runs": (keep.prefect_days, partial(sweep_prefect, settings)),
        "logs": (keep.logs_days, partial(_logs, settings)),
        "failures": (keep.failures_days, partial(sweep_failures, paths.data / "failures")),
    }
    return {what: partial(step, limit) for what, (limit, step) in steps.items() if limit is not None}


def _logs(settings: Config, days: float, *, only_tell: bool) -> Swept:
    files = log_files(run_folder(settings), settings.prefect.home, Path(tempfile.gettempdir()))
    return sweep_logs(files, days, only_tell=only_tell)


def _sweep(steps: Mapping[str, Step], only_tell: bool) -> list[Swept]:
    swept = []
    for what, step in steps.items():
        try:
            swept.append(step(only_tell=only_tell))
        except Exception as error:  # noqa: BLE001 - told below; the rest goes on
            swept.append(Swept(what, problem=str(error).strip() or type(error).__name__))
    return swept


def _tell(swept: Sequence[Swept], only_tell: bool) -> None:
    """In a table what was removed and kept, and in the log what could not be."""
    removed = "would be removed" if only_tell else "removed"
    rows = [
        {
            "what": each.what,
            removed: each.removed,
            "bytes": each.freed_bytes,
            "size": readable(each.freed_bytes),
            "kept": each.kept,
            "problem": each.problem,
        }
        for each in swept
    ]
    if rows:
        show_table("retention-summary", rows, f"what {removed}" if only_tell else "what was removed")
    for each in swept:
        get_run_logger().info("%s: %d %s, %d kept", each.what, each.removed, removed, each.kept)
        if each.problem:
            get_run_logger().warning("%s: %s", each.what, each.problem)


def _summary(swept: Sequence[Swept], failed: int, only_tell: bool) -> str:
    """One line: how much went, and of what."""
    told = ", ".join(f"{each.removed} of {each.what}" for each in swept if each.removed)
    freed = readable(sum(each.freed_bytes for each in swept))
    begun = "would free" if only_tell else "freed"
    problems = f"; {failed} steps failed: see the log" if failed else ""
    return f"{begun} {freed}{f': {told}' if told else ''}{problems}"
