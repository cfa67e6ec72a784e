"""Announcements that wait on the disk because the broker was away.

One file an announcement, whole or not there, in the order in which they were made: ``<when>.<id>.json``. Two processes
may send the same one at a time: whoever hears it twice knows it by its id.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from orca.config import Config
from orca.disk import make_folder, storage_errors
from orca.errors import BrokerAwayError, MessageError
from orca.events.announcements import Announcement, announce
from orca.products import write_text

FOLDER = "announcements"
"""Below paths.data."""
KEPT = timedelta(days=1)
"""What is older is no news: it is not sent any more."""
AT_ONCE = 200
"""Announcements that are sent together."""
_log = logging.getLogger(__name__)


def announce_or_keep(settings: Config, announcements: Sequence[Announcement]) -> None:
    """Announce, after all that waits; what the broker is not there for waits on the disk.

    Raises
    ------
    BrokerAwayError
        All of it waits.
    InfrastructureError, RightsError, ConfigError
        The broker refuses, or there is none: these are lost, and what waited waits on.
    StorageError
        The broker is away, and they cannot be kept.
    """
    try:
        send_waiting(settings)
        if announcements:
            announce(settings, announcements)
    except BrokerAwayError:
        for each in announcements:
            _keep(settings, each)
        raise


def send_waiting(settings: Config) -> int:
    """Send what waits, the oldest first; returns how many.

    Raises
    ------
    InfrastructureError, RightsError, ConfigError
        The broker is away or refuses, or there is none.
    StorageError
        They cannot be read or removed.
    """
    files = waiting(settings)
    sent = 0
    for first in range(0, len(files), AT_ONCE):
        known = {path: found for path in files[first : first + AT_ONCE] if (found := _read(path)) is not None}
        if known:
            announce(settings, list(known.values()))
        for path in known:
            with storage_errors(path):
                path.unlink(missing_ok=True)
        sent += len(known)
    return sent


def waiting(settings: Config) -> list[Path]:
    """Files of what waits, the oldest first."""
    folder = settings.paths.data / FOLDER
    with storage_errors(folder):
        return sorted(folder.glob("*.json"))


def _keep(settings: Config, announcement: Announcement) -> None:
    folder = settings.paths.data / FOLDER
    make_folder(folder)
    write_text(folder / f"{announcement.time:%Y%m%dT%H%M%S.%f}.{announcement.id}.json", announcement.model_dump_json())


def _read(path: Path) -> Announcement | None:
    """One that is worth sending; what is too old, or no announcement, is removed or set aside."""
    try:
        with storage_errors(path):
            try:
                body = path.read_bytes()
            except FileNotFoundError:  # another process has sent it
                return None
        found = Announcement.decode(body)
    except MessageError as error:
        _log.warning("%s: %s. It is set aside, and not sent", path, error.problem)
        with storage_errors(path):
            path.rename(path.with_name(path.name + ".broken"))
        return None
    if datetime.now(UTC) - found.time <= KEPT:
        return found
    with storage_errors(path):
        path.unlink(missing_ok=True)
    return None
