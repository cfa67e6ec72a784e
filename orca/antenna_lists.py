"""Lists of bad antennas: a dated file, or what a program prints."""

from __future__ import annotations

import json
import shlex
import tempfile
from datetime import date, datetime
from pathlib import Path

import yaml

from orca.antennas import BadAntennas, antenna, antennas, words
from orca.errors import InvalidDataError, MissingDataError, StorageError
from orca.process import run

_MAX_BYTES = 1_000_000  # a list that is longer is none
_REMEDY = "Give a list of antennas under each date, such as 2026-01-10: [12, LWA-114]"


def from_file(file: Path, day: date) -> BadAntennas:
    """The list of a day in a YAML file: the newest entry that is not after it.

    Raises
    ------
    MissingDataError, InvalidDataError, StorageError
        With the line, where the file is broken.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
        loader = yaml.SafeLoader(content if len(content) <= _MAX_BYTES else b"")
        root = loader.get_single_node()
        if not isinstance(root, yaml.MappingNode) or not root.value:
            raise InvalidDataError("holds no lists by date", file, _REMEDY)
        lists = {_day_of(loader, key, file): value for key, value in root.value}
        valid = [key for key in lists if key <= day]
        if not valid:
            raise MissingDataError(f"has no list for {day}: its first is of {min(lists)}", file)
        places = _places(loader, lists[max(valid)], max(valid), file)
    except FileNotFoundError as error:
        raise MissingDataError("there is no such file", file) from error
    except OSError as error:
        raise StorageError(f"cannot be read ({error.strerror})", file) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = file if mark is None else f"{file}:{mark.line + 1}"
        raise InvalidDataError(f"is no YAML: {error.problem}", place, _REMEDY) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidDataError("is no YAML", file, _REMEDY) from error
    return BadAntennas(tuple(places), f"{file}, list of {max(valid)}", places=places)


def _day_of(loader: yaml.SafeLoader, node: yaml.Node, file: Path) -> date:
    try:
        key = loader.construct_object(node, deep=True)
        if isinstance(key, date) and not isinstance(key, datetime):
            return key
        return date.fromisoformat(key)
    except (TypeError, ValueError):
        place = f"{file}:{node.start_mark.line + 1}"
        raise InvalidDataError("a key in it is no date like 2026-01-10", place, _REMEDY) from None


def _places(loader: yaml.SafeLoader, node: yaml.Node, day: date, file: Path) -> dict[str | int, str]:
    """The antennas of a list, none twice, each with the file and the line on which it stands."""
    places: dict[str | int, str] = {}
    place = f"{file}:{node.start_mark.line + 1}"
    try:
        items = loader.construct_object(node, deep=True)
        antennas(items if not isinstance(items, list) else [])
        for item, entry in zip(items, node.value, strict=True):
            place = f"{file}:{entry.start_mark.line + 1}"
            places.setdefault(antenna(item), place)
    except ValueError as error:
        raise InvalidDataError(f"{day}: {error}", place, _REMEDY) from error
    return places


def from_command(command: str, day: date, deadline_s: float) -> BadAntennas:
    """The list that a program prints.

    Raises
    ------
    ProgramError
        It failed, or took longer than `deadline_s` seconds.
    InvalidDataError, StorageError
        It printed no list, or its output cannot be kept.
    """
    argv = [word.replace("{date}", day.isoformat()) for word in words(command)]
    try:
        with tempfile.TemporaryDirectory(prefix="orca-antennas-") as folder:
            log = Path(folder) / "printed"
            run(argv, log=log, deadline_s=deadline_s, threads=1)
            first_line = f"{shlex.join(argv)}\n".encode(errors="surrogateescape")  # which the log begins with
            with log.open("rb") as stream:
                printed = stream.read(len(first_line) + _MAX_BYTES + 1).removeprefix(first_line)
    except OSError as error:
        raise StorageError(f"its output cannot be kept ({error.strerror})", argv[0]) from error
    if len(printed) > _MAX_BYTES:
        raise InvalidDataError("prints too much to be a list of antennas", argv[0])
    try:
        return BadAntennas(_listed(printed.decode()), f"{argv[0]}, for {day}")
    except (ValueError, RecursionError):
        raise InvalidDataError("prints no list of antennas: neither JSON, nor one antenna a line", argv[0]) from None


def _listed(text: str) -> tuple[str | int, ...]:
    """What a program printed. Raises ValueError if it is no list."""
    text = text.strip()
    if text.startswith("["):
        return antennas(json.loads(text))
    if text.lower() == "none":
        return ()
    if not text:
        raise ValueError("nothing printed")  # as a query does whose database is empty or away
    return antennas([line for line in text.splitlines() if line.strip()])
