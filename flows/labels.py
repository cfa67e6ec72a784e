"""What flow runs are called on Prefect's page, and their tags: subbands and days, by what was asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from typing import Any

from prefect.runtime import flow_run

from orca import naming, telescope
from orca.errors import InputError
from orca.reduction import finished_hours

_MANY = 3
"""So many subbands are named; of more it is told how many."""


def run_name(stage: str, default: str = "") -> str:
    """Name of this flow run: imaging 73MHz 2026-01-10 03h, reduction 4 subbands 2026-01-10 03h-05h.

    Parameters
    ----------
    stage : str
    default : str
        What is added where the parameters tell no time.
    """
    return name_of(stage, flow_run.parameters, default)


def run_tags() -> set[str]:
    """Tags of this flow run: 73MHz, 2026-01-10."""
    return tags_of(flow_run.parameters, datetime.now(UTC))


def name_of(stage: str, asked: dict[str, Any], default: str = "") -> str:
    """What a flow run is called, by its parameters."""
    sets: Sequence[Any] = asked.get("measurement_sets") or ()
    if len(sets) == 1:
        return f"{stage} {naming.strip_suffix(sets[0])}"
    if sets:
        seen = _observations(sets)
        if len(seen) == len(sets):
            bands = _in_words(sorted({each.subband for each in seen}))
            return f"{stage} {bands} {_span(min(e.start for e in seen), max(e.start for e in seen))}"
        return f"{stage} {naming.strip_suffix(sets[0])} and {len(sets) - 1} more"
    words = [stage, _in_words(_subbands(asked))]
    if day := asked.get("day"):
        words += [str(day), " ".join(f"{hour:02d}h" for hour in asked.get("hours") or ())]
    else:
        words.append(f"last {last} h" if (last := asked.get("last_hours")) else default)
    return " ".join(word for word in words if word)


def tags_of(asked: dict[str, Any], now: datetime) -> set[str]:
    """Subbands and days that a flow run is about, by its parameters."""
    seen = _observations(asked.get("measurement_sets") or ())
    tags = {each.subband for each in seen} | {f"{each.start:%Y-%m-%d}" for each in seen} | set(_subbands(asked))
    if day := asked.get("day"):
        tags.add(str(day))
    elif hours := asked.get("last_hours"):
        first, last = finished_hours(hours, now)
        tags |= {_day(first.date() + timedelta(days=n)) for n in range((last.date() - first.date()).days + 1)}
    return tags


def _observations(paths: Iterable[Any]) -> list[naming.Observation]:
    found = []
    for path in paths:
        with suppress(InputError):  # a name of the user's own
            found.append(naming.parse(path).observation)
    return found


def _subbands(asked: dict[str, Any]) -> list[str]:
    names = []
    for name in asked.get("subbands") or ():
        with suppress(InputError):  # the flow will say so
            names.append(telescope.subband(name).name)
    return names


def _in_words(bands: Sequence[str]) -> str:
    return " ".join(bands) if len(bands) <= _MANY else f"{len(bands)} subbands"


def _span(first: datetime, last: datetime) -> str:
    begin, end = f"{first:%Y-%m-%d %Hh}", f"{last:%Y-%m-%d %Hh}"
    if begin == end:
        return begin
    return f"{begin}-{last:%H}h" if first.date() == last.date() else f"{begin} to {end}"


def _day(day: date) -> str:
    return day.isoformat()
