"""Asking again for what a night lacks: which runs, and that nothing is asked for twice.

The Prefect server is asked directly, as the catch-up does it, so that it works with and without RabbitMQ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from orca import naming
from orca.catch_up import OnItsWay
from orca.cluster.flow_runs import FlowRun, FlowRunBook
from orca.cluster.pools import pool_name
from orca.config import Config
from orca.errors import MessageError, MissingDataError
from orca.events.journal import Request
from orca.events.rules import left_to_trigger
from orca.events.runs import FlowRuns, run_key
from orca.failures import day_of, read_failures
from orca.night import Places, take_account
from orca.night.account import Reasons
from orca.night.hour import Hour
from orca.night.reading import DEAD
from orca.reduction import Block, plan_day
from orca.reduction_options import ReductionOptions

TAG = "night"
"""Of the flow runs that were asked for here."""
TOGETHER = 64
"""Units of one flow run at most."""
_AHEAD = timedelta(minutes=10)
"""Flow runs that are scheduled within this time are on their way."""
_LOOKED_AT = 5000
"""Flow runs of a stage that have not ended, at most."""
DEPLOYMENTS = {
    "reduction": "reduction/reduction",
    "imaging": "imaging/imaging",
    "cosmology": "cosmology/cosmology",
    "spectrum": "spectrum/spectrum",
    "calibration": "nightly-calibration/nightly-calibration",
}
_POOLS = {"imaging": "imaging", "cosmology": "cosmology", "calibration": "bandpass"}
"""Those of the other stages are in the pool default."""


@dataclass(frozen=True)
class Asked:
    """What is, or would be, asked for.

    Attributes
    ----------
    stage : str
    name : str
        The first unit, and how many more.
    sources : tuple of str
    parameters : dict
        Of the flow.
    flow_run : str
        Its id; empty where it is not asked for.
    why_not : str
        Such as that it is on its way.
    refused : bool
        It should have been asked for, and could not.
    block : Block, optional
        Of one that is to be reduced.
    """

    stage: str
    name: str
    sources: tuple[str, ...]
    parameters: dict[str, Any]
    flow_run: str = ""
    why_not: str = ""
    refused: bool = False
    block: Block | None = None

    @property
    def deployment(self) -> str:
        """Such as reduction/reduction."""
        return DEPLOYMENTS[self.stage]

    def row(self) -> list[str]:
        """Cells of a table, on the terminal."""
        return [self.name, str(len(self.sources)), self.deployment, self.flow_run or f"not asked for: {self.why_not}"]

    def plain(self) -> dict[str, Any]:
        """For machines."""
        said = {"name": self.name, "stage": self.stage, "deployment": self.deployment, "sources": self.sources}
        return {**said, "flow_run": self.flow_run or None, "why_not": self.why_not or None}


def ask_again(settings: Config, places: Places, day: date, now: datetime, *, failed: bool) -> list[Asked]:
    """Ask for flow runs of what was recorded on a day and has no product, or of what failed.

    What a flow run that has not ended is about is not asked for, and within one minute nothing is asked for twice.

    Raises
    ------
    InfrastructureError
        There is no Prefect server, or it does not answer.
    """
    wanted = [*_reductions(places, day, now, failed=failed), *(_others(places, day, now) if failed else ())]
    if not wanted:
        return []
    coming = _Coming(settings, places, now)
    free = [each for each in wanted if not coming.has(each)]
    asked = [replace(each, why_not="on its way") for each in wanted if coming.has(each)]
    runs = FlowRuns(settings)
    for each in _together(free):
        content = [each.parameters, f"{now:%Y-%m-%d %H:%M}"]
        request = Request(run_key(each.deployment, content), each.deployment, each.parameters, (TAG, f"{day}"))
        try:
            asked.append(replace(each, flow_run=runs.ask(request)))
        except MessageError as error:
            asked.append(replace(each, why_not=str(error), refused=True))
    return asked


def _reductions(places: Places, day: date, now: datetime, *, failed: bool) -> Iterator[Asked]:
    """Blocks with integrations that wait, or have failed, the oldest first."""
    try:
        blocks = plan_day(places.raw.absolute(), places.averaged.absolute(), ReductionOptions().block, day)
    except MissingDataError:
        return
    reasons = Reasons.of(read_failures(places.failures, day))
    if not failed:  # what is younger the trigger may ask for
        wait_s = left_to_trigger(DEPLOYMENTS["reduction"]).total_seconds()
        places = replace(places, settle_s=max(places.settle_s, wait_s))
    known: dict[tuple[str, datetime], set[str]] = {}
    for block in blocks:
        begin = block.start.replace(minute=0, second=0, microsecond=0)
        if (names := known.get((block.subband, begin))) is None:
            hour = Hour.read(places, block.subband, begin, reasons.of_hour(block.subband, begin), now)
            names = known[block.subband, begin] = set(hour.failed) if failed else hour.waiting | hour.overdue
        if not names.isdisjoint(map(naming.strip_suffix, block.sources)):
            sources = tuple(map(str, block.sources))
            yield Asked("reduction", block.name, sources, {"measurement_sets": list(sources)}, block=block)


def _others(places: Places, day: date, now: datetime) -> Iterator[Asked]:
    """Units of the other stages that failed and whose data are there, but for what is dead."""
    calibrated = False
    for each in take_account(places, day, now).failures:
        there = tuple(source for source in each.sources if Path(source).exists())
        if each.stage not in DEPLOYMENTS or each.stage == "reduction" or not there or DEAD.search(each.reason):
            continue
        if each.stage == "calibration":
            if not calibrated:
                yield Asked(each.stage, f"calibration of {day}", there, {"day": f"{day}"})
            calibrated = True
        elif each.unit.startswith("dynamic spectrum"):
            yield Asked(each.stage, f"spectra of {day}", there, {"day": f"{day}"})
        else:
            yield Asked(each.stage, each.unit, there, {"measurement_sets": list(there)})


def _together(wanted: Sequence[Asked]) -> Iterator[Asked]:
    """Several units of a stage in one flow run: it costs seconds to start."""
    seen: list[dict[str, Any]] = []
    for stage in dict.fromkeys(each.stage for each in wanted):
        files: list[Asked] = []
        for each in (each for each in wanted if each.stage == stage):
            if "measurement_sets" in each.parameters:
                files.append(each)
            elif each.parameters not in seen:
                seen.append(each.parameters)
                yield each
        for begin in range(0, len(files), TOGETHER):
            those = files[begin : begin + TOGETHER]
            sources = tuple(dict.fromkeys(source for each in those for source in each.sources))
            more = f" and {len(those) - 1} more" if len(those) > 1 else ""
            yield Asked(stage, f"{those[0].name}{more}", sources, {"measurement_sets": list(sources)})


class _Coming:
    """What flow runs that have not ended are about."""

    def __init__(self, settings: Config, places: Places, now: datetime) -> None:
        self._settings, self._now = settings, now
        self._book = FlowRunBook(settings)
        self._runs: dict[str, list[FlowRun]] = {}
        self._reductions = OnItsWay(places.raw.absolute(), places.averaged.absolute())
        for run in self._of("reduction"):
            self._reductions.add(run.parameters, now if run.start is None else datetime.fromisoformat(run.start))

    def has(self, asked: Asked) -> bool:
        """Whether one of them is about it, or a part of it."""
        if asked.block is not None:
            return self._reductions.has(asked.block)
        names = set(map(naming.strip_suffix, asked.sources))
        day = str(asked.parameters.get("day") or day_of(asked.sources))
        return any(
            not names.isdisjoint(map(naming.strip_suffix, run.parameters.get("measurement_sets") or ()))
            or run.parameters.get("day") == day
            for run in self._of(asked.stage)
        )

    def _of(self, stage: str) -> list[FlowRun]:
        """Flow runs of a stage, those of this user's deployments and those that people started."""
        if stage not in self._runs:
            flow = DEPLOYMENTS[stage].partition("/")[0]
            ours = ("", pool_name(self._settings.queue.prefix, _POOLS.get(stage, "default")))
            found = self._book.latest(_LOOKED_AT, states=("waiting", "running"), flow=flow)
            soon = self._now + _AHEAD
            self._runs[stage] = [
                run
                for run in found
                if run.pool in ours and (run.start is None or datetime.fromisoformat(run.start) <= soon)
            ]
        return self._runs[stage]
