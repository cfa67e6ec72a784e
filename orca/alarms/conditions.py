"""When an alarm is up: one function a condition, of what was seen. What calibrations came to is in `calibrations`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from orca.alarms.alarm import Alarm, Findings
from orca.calibration.nightly import check_recorded
from orca.catch_up import Missing
from orca.disk import readable
from orca.errors import MissingDataError

ANSWERABLE = timedelta(hours=12)
"""So long after a calibration was due it can be said whether something was recorded before: raw data live for a day."""
FORGOTTEN_S = 7 * 86400.0
"""What has not been seen for so long is not waited for any more."""
ASLEEP_S = 900.0
"""Looks that are farther apart than this, three times their usual distance, tell nothing of the time in between."""
_NAMED = 5
"""Blocks that an alarm names."""


def recording(raw: Path, due: datetime, minutes: float, now: datetime) -> Findings:
    """Nothing was recorded before a calibration was due, nor is anything now.

    Parameters
    ----------
    raw : Path
        Root of the raw data.
    due : datetime
        When the last calibration was scheduled.
    minutes : float
        In which something has to be recorded.
    now : datetime

    Raises
    ------
    StorageError
        A folder cannot be read.
    """
    span = timedelta(minutes=minutes)
    if _recorded(raw, now, span):
        return Findings("recording")
    if now - due > ANSWERABLE:
        return Findings("recording", decided=False)
    if _recorded(raw, due, span):
        return Findings("recording")
    text = f"nothing was recorded in the {minutes:g} minutes before the calibration of {due:%Y-%m-%d %H:%M} UTC"
    return Findings("recording", (Alarm("recording", f"{text}: see whether the recorders run", (str(raw),)),))


def _recorded(raw: Path, until: datetime, span: timedelta) -> bool:
    try:
        check_recorded(raw, until, span)
    except MissingDataError:
        return False
    return True


def raw_dying(missing: Iterable[Missing], lifetime_h: float, margin_h: float, now: datetime) -> Findings:
    """Raw data that the recorder will delete soon, and that are in no product.

    Parameters
    ----------
    missing : blocks
        The oldest first.
    lifetime_h, margin_h : float
        Of raw data; how much of it may be left without an alarm.
    now : datetime
    """
    dying = [each for each in missing if each.block.left_h(lifetime_h, now) < margin_h]
    if not dying:
        return Findings("raw")
    first = max(0.0, dying[0].block.left_h(lifetime_h, now))
    count = sum(len(each.names) for each in dying)
    named = ", ".join(each.block.name for each in dying[:_NAMED])
    more = f" and {len(dying) - _NAMED} more" if len(dying) > _NAMED else ""
    text = (
        f"{count} integrations in {len(dying)} blocks are not reduced, and the recorder deletes the first in"
        f" {first:.1f} h: {named}{more}. See `orca runs ls --state failed`"
    )
    return Findings("raw", (Alarm("raw", text, tuple(str(each.block.prefix) for each in dying[:_NAMED])),))


@dataclass(frozen=True)
class Disk:
    """A file system, and which of our folders are on it.

    Attributes
    ----------
    mount : str
        Where it is mounted.
    host : str
        Machine that it belongs to; empty for one that machines share.
    folders : tuple of str
    used_share : float
        Of what this user may use.
    free_bytes : int
    """

    mount: str
    host: str
    folders: tuple[str, ...]
    used_share: float
    free_bytes: int

    @property
    def name(self) -> str:
        """Of its alarm."""
        return f"disk:{self.host}:{self.mount}" if self.host else f"disk:{self.mount}"


def disks(found: Iterable[Disk], host: str, mark: float, clear: float, up: Collection[str]) -> Findings:
    """File systems that are too full; an alarm that is up ends only below another share, so that it does not flap.

    Parameters
    ----------
    found : disks
        All of a host.
    host : str
        That: the disks of others are theirs to look at.
    mark, clear : float
        Shares above which an alarm comes up, and below which it ends.
    up : names
        Of the alarms that are up.
    """
    alarms = []
    for disk in found:
        if disk.used_share > mark or (disk.name in up and disk.used_share >= clear):
            where = f"{', '.join(disk.folders)}{f' on {disk.host}' if disk.host else ''}"
            text = (
                f"the disk of {where} is {100 * disk.used_share:.1f} % full ({readable(disk.free_bytes)} free):"
                f" see docs/upkeep.md for what can go"
            )
            alarms.append(Alarm(disk.name, text, disk.folders))
    return Findings("disk", tuple(alarms), about=(f"disk:{host}:", "disk:/"))


def dead_letters(counts: Mapping[str, int], mark: int) -> Findings:
    """Queues with dead letters.

    Parameters
    ----------
    counts : mapping
        Pool -> messages in its queue of dead letters.
    mark : int
        From so many on.
    """
    look = "`orca queues dead ls` says why"
    return Findings(
        "dead-letters",
        tuple(
            Alarm(f"dead-letters:{pool}", f"{count} dead letters in the queue of pool {pool}: {look}")
            for pool, count in counts.items()
            if count >= mark
        ),
    )


@dataclass(frozen=True)
class Sighting:
    """What is there now. Names begin with their kind: ``service rabbitmq``, ``node lwacalim03``.

    Attributes
    ----------
    there : frozenset of str
    wanted : frozenset of str
        What should be there whether or not it ever was.
    silent : frozenset of str
        Kinds of which nothing is known at the moment.
    listed : frozenset of str
        Kinds of which all that there should be is wanted: others are not missed.
    """

    there: frozenset[str]
    wanted: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()
    listed: frozenset[str] = frozenset()

    def misses(self, name: str) -> bool:
        """Whether something that was there once should be there still, as far as is known."""
        kind = _kind(name)
        return name in self.wanted or kind in self.silent or kind not in self.listed


def gone(
    seen: Mapping[str, float],
    sighting: Sighting,
    patience_s: float,
    up: Collection[str],
    now: float,
    looked: float | None = None,
) -> tuple[Findings, dict[str, float]]:
    """What was there and is not, for longer than a restart takes.

    Parameters
    ----------
    seen : mapping
        When each was seen last (Unix time).
    sighting : Sighting
    patience_s : float
    up : names
        Of the alarms that are up.
    now : float
    looked : float, optional
        When somebody looked before: time in which nobody did does not count.

    Returns
    -------
    findings : Findings
    seen : dict
        What to remember.
    """
    known = dict.fromkeys(sighting.wanted, now) | {name: at for name, at in seen.items() if sighting.misses(name)}
    alarms, kept, asleep = [], {}, looked is not None and now - looked > max(patience_s, ASLEEP_S)
    for name, at in sorted((known | dict.fromkeys(sighting.there, now)).items()):
        raised = f"gone:{name}" in up
        unknown = asleep or _kind(name) in sighting.silent
        last = now if unknown and not raised else at  # the time without an answer does not count
        if now - last > FORGOTTEN_S and name not in sighting.wanted:
            continue
        kept[name] = last
        if now - last > patience_s or (raised and name not in sighting.there):
            text = f"{name} was seen last {(now - last) / 60:.0f} min ago: `orca status`, `orca workers ls`"
            alarms.append(Alarm(f"gone:{name}", text))
    return Findings("gone", tuple(alarms)), kept


def _kind(name: str) -> str:
    return name.partition(" ")[0]
