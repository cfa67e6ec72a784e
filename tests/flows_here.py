"""Flows in the process of the tests, with a Prefect server that ends before that process does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings


@contextmanager
def flows_here(url: str) -> Iterator[None]:
    """Have flows that are called inside this context talk to a server.

    Prefect sends events through one connection a process, to the server that came first. Of one that has ended it waits
    for the return, and pytest would never end.
    """
    _hang_up()
    with temporary_settings({PREFECT_API_URL: url, PREFECT_LOGGING_TO_API_ENABLED: False}):
        yield
        _hang_up()


def _hang_up() -> None:
    EventsWorker.drain_all(timeout=20, at_exit=False)
