"""One look at all conditions: what came up and what is over is told, once, and remembered."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from orca.alarms import conditions, memory
from orca.alarms.alarm import CONDITIONS, Findings
from orca.alarms.memory import Known, Memory
from orca.cluster.alarms import asked
from orca.cluster.alarms.delivery import Way, ways
from orca.cluster.machine.standing import run_folder
from orca.config import Config
from orca.config.secret import mask
from orca.disk import make_folder

TELLING_S = 120.0
"""After that the rest waits for the next look: ways that hang must not keep us from looking."""
LOG = "the log alone"
"""What an alarm is told by where no way is configured."""


@dataclass(frozen=True)
class Told:
    """What became of an alarm that had to be told.

    Attributes
    ----------
    alarm : Known
    ways : tuple of str
        On which somebody was told; none where there is no way, so that the log alone has it.
    failed : tuple of str
        Ways that did not work, and why.
    """

    alarm: Known
    ways: tuple[str, ...]
    failed: tuple[str, ...] = ()

    @property
    def again(self) -> bool:
        """Whether it has to be tried again: no way worked."""
        return bool(self.failed) and not self.ways


@dataclass(frozen=True)
class Look:
    """What one look came to.

    Attributes
    ----------
    up : tuple of Known
        All alarms that are up, the oldest first.
    news : tuple of Told
    problems : tuple of str
        Conditions that nothing can be said of at the moment, and why.
    """

    up: tuple[Known, ...]
    news: tuple[Told, ...]
    problems: tuple[str, ...]


def memory_path(settings: Config) -> Path:
    """Where it is remembered what is up and what was told."""
    return run_folder(settings) / "alarms.json"


def look(settings: Config, only: Collection[str] = CONDITIONS) -> Look:
    """Look at everything, tell what is new, and remember it; one look at a time.

    Parameters
    ----------
    settings : Config
    only : collection of str
        The conditions to look at.

    Raises
    ------
    InfrastructureError
        Another look has hung for long.
    StorageError
        What is to be remembered cannot be read or written.
    """
    path = memory_path(settings)
    make_folder(path.parent)
    with memory.alone(path):
        known = memory.read(path)
        problems = _find(settings, known, only, time.time())
        memory.write(path, known)
        news = _tell(path, known, ways(settings))
    return Look(_up(known), tuple(news), tuple(problems))


def remembered(settings: Config) -> tuple[tuple[Known, ...], float | None]:
    """The alarms that are up by the last look, the oldest first, and how many seconds ago that was; asks nobody.

    Raises
    ------
    StorageError
        What is remembered cannot be read.
    """
    known = memory.read(memory_path(settings))
    return _up(known), memory.age_s(known)


def _up(known: Memory) -> tuple[Known, ...]:
    return tuple(sorted(known.up.values(), key=lambda each: (each.since, each.name)))


def _find(settings: Config, known: Memory, only: Collection[str], now: float) -> list[str]:
    """Look at each condition; returns why nothing can be said of some."""
    time_now = datetime.fromtimestamp(now, UTC)
    looks: dict[str, Callable[[], Findings]] = {
        "recording": partial(asked.recording, settings, time_now),
        "raw": partial(asked.raw, settings, time_now),
        "disk": partial(asked.disks, settings, known.up),
        "dead-letters": partial(asked.dead_letters, settings),
        "gone": partial(_gone, settings, known, now),
        "calibration": partial(asked.calibration, settings, time_now),
    }
    problems = []
    for condition in (name for name in CONDITIONS if name in only):
        try:
            found = looks[condition]()
        except Exception as error:  # noqa: BLE001 - one that cannot be looked at must not hide the others
            found = Findings(condition, decided=False, problem=str(error).strip() or type(error).__name__)
        known.take(found, now)
        if found.problem:
            problems.append(f"{condition}: {mask(found.problem.splitlines()[0])}")
    if set(only) >= set(CONDITIONS):
        known.looked = now
    return problems


def _gone(settings: Config, known: Memory, now: float) -> Findings:
    minutes = settings.alarms.gone_minutes
    if minutes is None:
        return Findings("gone")
    sighting = asked.sighting(settings)
    found, known.seen = conditions.gone(known.seen, sighting, 60 * minutes, known.up, now, known.looked)
    return found


def _tell(path: Path, known: Memory, told_by: Sequence[Way]) -> list[Told]:
    """Tell what nobody knows yet; what was told is remembered at once, so that whatever ends us repeats one at most."""
    news: list[Told] = []
    end = time.monotonic() + TELLING_S
    for each in known.untold:
        if time.monotonic() > end:
            news.append(Told(each, (), ("no way was tried: others took too long",)))
            continue
        worked, failed = [], []
        for way in told_by:
            try:
                way.tell(each)
                worked.append(way.name)
            except Exception as error:  # noqa: BLE001 - the other ways must be tried, whatever is wrong with this one
                failed.append(f"{way.name}: {mask(str(error).strip() or type(error).__name__)}")
        news.append(Told(each, tuple(worked), tuple(failed)))
        if news[-1].again:
            known.missed(each)
        else:
            known.told(each, ", ".join(worked) or LOG)
        memory.write(path, known)
    return news
