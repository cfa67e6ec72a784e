"""What became of flow runs, as Prefect's server tells it; asked without Prefect, which takes seconds to import."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.error import HTTPError

from orca.cluster.api import api_url
from orca.cluster.machine.questions import call_api
from orca.config import Config
from orca.config.secret import mask
from orca.errors import InfrastructureError, InputError, MissingDataError

STATES = {
    "waiting": ("SCHEDULED", "PENDING", "PAUSED"),
    "running": ("RUNNING", "CANCELLING"),
    "done": ("COMPLETED",),
    "failed": ("FAILED", "CRASHED"),
    "cancelled": ("CANCELLED",),
}
"""Our word for some of Prefect's states."""
_PATIENCE_S = 10.0
_PAGE = 200
"""Rows that the server gives at once."""


@dataclass(frozen=True)
class FlowRun:
    """A flow run.

    Attributes
    ----------
    id, name, flow : str
    pool : str
        Empty for one that a person started by `orca run`.
    state : str
        As Prefect names it: Completed, Crashed, Late.
    message : str
        What is said of that state, such as the reason of a failure.
    start, end : str or None
        ISO 8601, UTC; of one that waits, when it should begin.
    seconds : float
        For which it ran.
    parameters : dict
    tags : tuple of str
    """

    id: str
    name: str
    flow: str
    pool: str
    state: str
    message: str
    start: str | None
    end: str | None
    seconds: float
    parameters: dict[str, Any]
    tags: tuple[str, ...]


class FlowRunBook:
    """The flow runs that a server knows.

    Its methods raise an InfrastructureError where the server does not answer.

    Parameters
    ----------
    settings : Config
    """

    def __init__(self, settings: Config) -> None:
        self._url, self._tls = api_url(settings), settings.network.tls

    def latest(
        self, limit: int, *, states: Sequence[str] = (), flow: str | None = None, since_h: float | None = None
    ) -> list[FlowRun]:
        """The latest of them, the latest first.

        Parameters
        ----------
        limit : int
        states : words of `STATES`
            All when none is given.
        flow : str, optional
            Name of their flow.
        since_h : float, optional
            Hours ago, since when they were to begin.
        """
        wanted: dict[str, Any] = {}
        if states:
            wanted["state"] = {"type": {"any_": [name for word in states for name in STATES[word]]}}
        if since_h is not None:
            after = datetime.now(UTC) - timedelta(hours=since_h)
            wanted["expected_start_time"] = {"after_": after.isoformat()}
        if "waiting" not in states:  # else the next weeks of every schedule come first
            before = datetime.now(UTC) + timedelta(minutes=1)
            wanted["expected_start_time"] = {**wanted.get("expected_start_time", {}), "before_": before.isoformat()}
        question = {"flow_runs": wanted, "sort": "EXPECTED_START_TIME_DESC"}
        if flow is not None:
            question["flows"] = {"name": {"any_": [flow]}}
        found: list[dict[str, Any]] = []
        while len(found) < limit:
            rows = min(_PAGE, limit - len(found))
            page = self._ask("flow_runs/filter", {**question, "limit": rows, "offset": len(found)})
            found += page
            if len(page) < rows:
                break
        return self._runs(found)

    def find(self, name: str) -> FlowRun:
        """One by its id, by the beginning of that, or by its name (the latest of that name).

        Raises
        ------
        MissingDataError
            There is none among the latest.
        InputError
            Several ids begin so.
        """
        by_name = {"flow_runs": {"name": {"any_": [name]}}, "sort": "EXPECTED_START_TIME_DESC", "limit": 1}
        if found := self._runs(self._ask("flow_runs/filter", by_name)):
            return found[0]
        known = self.latest(5 * _PAGE, states=tuple(STATES))
        alike = [run for run in known if run.id.startswith(name.lower())] if len(name) >= 4 else []
        if len(alike) > 1:
            raise InputError(f"{len(alike)} flow runs begin with {name}", remedy="Give more of the id")
        if not alike:
            raise MissingDataError(f"Prefect knows no flow run {name}", remedy="See `orca runs ls`")
        return alike[0]

    def log(self, run: FlowRun, level: int = 20) -> Iterator[tuple[str, str, str]]:
        """Its log from the beginning: time (ISO 8601, UTC), level, and text of each entry.

        Parameters
        ----------
        run : FlowRun
        level : int
            The least, as `logging` has them.
        """
        which = {"flow_run_id": {"any_": [run.id]}, "level": {"ge_": level}}
        offset = 0
        while page := self._ask(
            "logs/filter", {"logs": which, "sort": "TIMESTAMP_ASC", "limit": _PAGE, "offset": offset}
        ):
            offset += len(page)
            for row in page:
                yield row["timestamp"], _LEVELS.get(row["level"], str(row["level"])), mask(row["message"])

    def _runs(self, rows: Sequence[dict[str, Any]]) -> list[FlowRun]:
        flows: dict[str, str] = {}
        ids = sorted({row["flow_id"] for row in rows})
        if ids:
            question = {"flows": {"id": {"any_": ids}}, "limit": _PAGE}
            flows = {row["id"]: row["name"] for row in self._ask("flows/filter", question)}
        return [
            FlowRun(
                id=row["id"],
                name=row["name"],
                flow=flows.get(row["flow_id"], ""),
                pool=row.get("work_pool_name") or "",
                state=row["state_name"] or "",
                message=mask((row.get("state") or {}).get("message") or ""),
                start=row["start_time"] or row["expected_start_time"],
                end=row["end_time"],
                seconds=float(row["estimated_run_time"] or 0.0),
                parameters=row["parameters"] or {},
                tags=tuple(row["tags"] or ()),
            )
            for row in rows
        ]

    def _ask(self, path: str, question: dict[str, Any]) -> Any:
        try:
            return call_api(self._url, path, question, tls=self._tls, patience_s=_PATIENCE_S)
        except HTTPError as error:
            said = mask(error.read().decode(errors="replace"))[:200]
            raise InfrastructureError(f"Prefect's server refuses ({error.code}: {said})", self._url) from error
        except (OSError, ValueError) as error:
            remedy = "See that it runs: `orca status`"
            raise InfrastructureError(f"Prefect's server does not answer ({error})", self._url, remedy) from error


_LEVELS = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}
