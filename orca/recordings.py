"""Which integrations were recorded: what is on disk below the root of the raw data."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from orca import naming
from orca.errors import InputError, MissingDataError, StorageError
from orca.telescope import INTEGRATION_S, subband, utc_of


@dataclass(frozen=True, order=True)
class Recording:
    """A Measurement Set, or a tar of one.

    Attributes
    ----------
    start : datetime
        Of the integration, as its name says it.
    path : Path
    """

    start: datetime
    path: Path

    @property
    def centre(self) -> datetime:
        """Middle of the integration."""
        return self.start + timedelta(seconds=INTEGRATION_S / 2)


def recordings(
    root: Path, band: str, first: datetime, last: datetime, kind: naming.Kind = naming.Kind.RAW
) -> list[Recording]:
    """Recordings of a subband that start between two times, in the order of time, or what was made of them.

    Where an integration is there as a folder and as a tar, the folder is taken.

    Raises
    ------
    MissingDataError
        There is no such root.
    StorageError
        A folder cannot be read.
    """
    if not root.is_dir():
        raise MissingDataError(f"there is no such folder of {kind} data", root, f"Set paths.{kind}, or give its root")
    first, last = utc_of(first), utc_of(last)
    hour = first.replace(minute=0, second=0, microsecond=0)
    found: dict[datetime, Recording] = {}
    while hour <= last:
        for name in _names(naming.observation_folder(root, naming.Observation(band, hour))):
            recording = _recording(name, band, kind)
            if recording and first <= recording.start <= last:
                other = found.setdefault(recording.start, recording)
                if other.path.suffix == ".tar":
                    found[recording.start] = recording
        hour += timedelta(hours=1)
    return sorted(found.values())


def given(paths: Iterable[Path], kinds: Collection[naming.Kind], wanted: str) -> list[tuple[str, Recording]]:
    """What was named by its path: subbands and recordings, in their order; of one and its tar the former is taken.

    Parameters
    ----------
    paths : paths
    kinds : kinds
        What they may be.
    wanted : str
        The same in words.

    Raises
    ------
    InputError
        Another kind, a name that does not tell subband and time, or two of one integration.
    """
    found: dict[tuple[str, datetime], Recording] = {}
    for path in sorted({Path(path).absolute() for path in paths}, key=lambda path: (path.suffix == ".tar", path)):
        parsed = naming.parse(path)
        if parsed.kind not in kinds:
            raise InputError(f"is {parsed.kind}, not {wanted}", path, f"Give {wanted}")
        seen = parsed.observation
        other = found.setdefault((seen.subband, seen.start), Recording(seen.start, path)).path
        if other != path and path.with_suffix("") != other:
            raise InputError(f"is of the same integration as {other}", path, "Give each integration once")
    return sorted((band, recording) for (band, _), recording in found.items())


def check_hours(hours: Sequence[int] | None) -> None:
    """Refuse hours of a day that do not exist, by an InputError."""
    if hours and not all(0 <= hour < 24 for hour in hours):
        raise InputError(f"hours are 0 to 23, not {max(hours, key=abs)}")


def nearest(candidates: Sequence[Recording], time: datetime, tolerance_s: float) -> Recording | None:
    """The recording whose middle is nearest to a time, or None if none is within the tolerance."""
    best = min(candidates, key=lambda r: abs(r.centre - utc_of(time)), default=None)
    if best is None or abs((best.centre - utc_of(time)).total_seconds()) > tolerance_s:
        return None
    return best


def block_about(root: Path, band: str, centre: datetime, integrations: int) -> list[Recording]:
    """The recordings of a subband in a block about a time: at most `integrations`, whatever hours they are in.

    Only what lies within the block's own length counts, which need not be centred better than to half an integration:
    where integrations are missing, the block is incomplete.
    """
    reach = timedelta(seconds=(integrations + 1) * INTEGRATION_S / 2)
    found = recordings(root, band, centre - reach - timedelta(seconds=INTEGRATION_S), centre + reach)
    inside = [recording for recording in found if abs(recording.centre - utc_of(centre)) <= reach]
    return block_in(inside, centre, integrations)


def block_in(found: Sequence[Recording], middle: datetime, integrations: int) -> list[Recording]:
    """Of some recordings, in the order of time, the most that lie in one block; of equals those nearest to a time."""
    length = timedelta(seconds=(integrations - 0.5) * INTEGRATION_S)  # names have whole seconds
    blocks = []
    for number, first in enumerate(found):
        following = found[number : number + integrations]
        blocks.append([each for each in following if each.start - first.start < length])

    def rank(block: list[Recording]) -> tuple[int, timedelta]:
        return -len(block), abs(middle_of(block) - utc_of(middle))

    return min(blocks, key=rank, default=[])


def middle_of(block: Sequence[Recording]) -> datetime:
    """Halfway from the first recording of a block to its last."""
    return block[0].centre + (block[-1].centre - block[0].centre) / 2


def hours_recorded(root: Path, band: str, day: datetime) -> list[int]:
    """Hours of a day (UTC) of which there is anything of a subband."""
    midnight = utc_of(day).replace(hour=0, minute=0, second=0, microsecond=0)
    found = recordings(root, band, midnight, midnight + timedelta(days=1) - timedelta(seconds=1))
    return sorted({recording.start.hour for recording in found})


def subbands_recorded(root: Path, day: datetime) -> list[str]:
    """Names of the subbands that have anything recorded on a day (UTC), from the lowest."""
    bands = [entry for entry in _names(root) if _is_subband(entry.name)]
    there = [entry.name for entry in bands if (entry / f"{utc_of(day):%Y-%m-%d}").is_dir()]
    return sorted(there, key=lambda name: subband(name).first_channel_hz)


def strangers(folders: Iterable[Path]) -> list[Path]:
    """What lies in folders of hours, looks like a Measurement Set, and has no name that a recorder gives."""
    return [
        entry
        for folder in sorted(folders)
        for entry in _names(folder)
        if entry.name.endswith((".ms", ".ms.tar")) and not entry.name.startswith(".") and not _is_recording(entry)
    ]


def _is_recording(path: Path) -> bool:
    try:
        return naming.parse(path).kind is naming.Kind.RAW
    except InputError:
        return False


def _is_subband(name: str) -> bool:
    try:
        return subband(name).name == name
    except InputError:
        return False


def _names(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in sorted(os.listdir(folder))]  # noqa: PTH208 - a full hour has thousands
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StorageError(f"cannot be read ({error.strerror})", folder, "Check its disk and permissions") from error


def _recording(path: Path, band: str, kind: naming.Kind) -> Recording | None:
    """What a name says; None for other things that lie there."""
    try:
        parsed = naming.parse(path)
    except InputError:
        return None
    if parsed.kind is not kind or parsed.manifest or parsed.subband != subband(band).name:
        return None
    return Recording(parsed.start, path) if parsed.start else None
