"""How far a flow run is, on Prefect's page while it runs, with a link to Dask's own page."""

from __future__ import annotations

from contextvars import copy_context
from threading import Event, Thread
from typing import Any

from prefect.artifacts import create_link_artifact, create_progress_artifact, update_progress_artifact
from prefect.logging import get_logger

EVERY_S = 5.0
"""So often it is told, and not at all of what ends sooner."""
END_S = 3.0
"""How long the end of a flow waits for the last of it to be told."""


class Progress:
    """Tells how many units have ended, in a thread of its own: a server that is away hinders nobody.

    Parameters
    ----------
    name : str
        Of the task.
    dashboard : str or None
        Address of Dask's page.
    """

    def __init__(self, name: str, dashboard: str | None = None) -> None:
        self._name, self._dashboard = name, dashboard
        self._ended, self._planned = 0, 0
        self._over = Event()
        context = copy_context()  # in which the flow run is known
        self._thread = Thread(target=context.run, args=(self._run,), daemon=True, name="progress")

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(END_S)

    def tell(self, ended: int, planned: int) -> None:
        """So many of all units have ended."""
        self._ended, self._planned = ended, planned

    def _run(self) -> None:
        artifact: Any = None
        told: tuple[int, int] | None = None
        while not (over := self._over.wait(EVERY_S)) or artifact is not None:
            now = (self._ended, self._planned)
            if now != told and self._planned:
                share, text = 100.0 * self._ended / self._planned, f"{self._ended} of {self._planned} {self._name}"
                try:
                    if artifact is None:
                        artifact = create_progress_artifact(share, key="progress", description=text)
                        self._link()
                    else:
                        update_progress_artifact(artifact, share, description=text)
                    told = now
                except Exception as error:  # noqa: BLE001 - whatever hinders the telling, the work goes on
                    get_logger(__name__).debug("progress is not told: %s", error)
            if over:
                return

    def _link(self) -> None:
        if self._dashboard is not None:
            create_link_artifact(self._dashboard, "Dask: tasks and workers", key="dask", description="while it runs")
