"""Alarms: what goes wrong is told to people, once when it comes up and once when it is over."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from prefect import get_run_logger
from prefect.states import Completed, Failed

from orca import config
from orca.alarms.alarm import CONDITIONS, Condition, condition_of
from orca.cluster.alarms.look import Look, look
from orca.cluster.artifacts import show_table
from orca.cluster.runner import pool_flow


def _run_name() -> str:
    """What a flow run is called on Prefect's page: alarms 2026-01-10 18:15."""
    return f"alarms {datetime.now(UTC):%Y-%m-%d %H:%M}"


@pool_flow("default", "alarms", _run_name)
def alarms(only: list[Condition] | None = None) -> Any:
    """Look at everything that may go wrong, and tell what has come up or is over since the last look.

    Recordings before a calibration, raw data that are about to be deleted, disks, dead letters, services, nodes and
    workers, calibrations: the section alarms of the configuration says from when on, and who is told.

    Args:
        only: Conditions to look at; all when not given.
    """
    found = look(config.load(), only or CONDITIONS)
    _tell(found)
    untold = sum(news.again for news in found.news)
    message = f"alarms up: {len(found.up)}; new or over: {len(found.news)}"
    if untold:
        return Failed(message=f"{untold} could not be told on any way, and are tried again; {message}")
    return Completed(message=message)


def _tell(found: Look) -> None:
    """In the log what is new, and in a table what is up."""
    logger = get_run_logger()
    for problem in found.problems:
        logger.warning("nothing can be said of %s", problem)
    for news in found.news:
        logger.warning("%s: %s: %s", news.alarm.state, news.alarm.name, news.alarm.text)
        for failed in news.failed:
            logger.warning("not told by %s", failed)
    rows = [
        {
            "alarm": known.name,
            "condition": condition_of(known.name),
            "since (UT)": f"{datetime.fromtimestamp(known.since, UTC):%Y-%m-%d %H:%M}",
            "told by": known.told or "nothing yet",
            "text": known.text,
        }
        for known in found.up
    ]
    if rows:
        show_table("alarms-summary", rows, f"alarms up: {len(rows)}")
