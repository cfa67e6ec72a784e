"""What lies in the folders of one subband and hour: recordings, and what was made of them.

An integration is known by its name without .ms and .tar. What vanishes while it is looked at is not there; nothing here
opens a Measurement Set, and of manifests only what is needed is read: a night has thousands.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from orca import naming
from orca.errors import InputError

DEAD = re.compile(r"(visibilities|samples) are zero|packets arrived")
"""What is said of a Measurement Set without signal (`orca.ms.inspect`, `orca.ms.stage`)."""
ABSENT = "there is no such file"
"""What a reduction says of what vanished before it was read."""
_LEFT_OUT = "left out "
_TOGETHER = re.compile(r"(.+)_\d+together")


@dataclass
class Reduced:
    """What became of the integrations of an hour in its reductions.

    Attributes
    ----------
    done : set of str
    left_out : dict
        Why, by name.
    """

    done: set[str] = field(default_factory=set)
    left_out: dict[str, str] = field(default_factory=dict)


def names_in(folder: Path) -> list[str]:
    """Names in a folder; none where there is no folder, or it cannot be read."""
    try:
        return os.listdir(folder)  # noqa: PTH208 - a full hour has thousands
    except OSError:
        return []


def recorded_in(folder: Path) -> dict[str, str]:
    """File names of the recordings by integration; where there is a folder and a tar, the folder."""
    found: dict[str, str] = {}
    for name in names_in(folder):
        if not name.endswith((".ms", ".ms.tar")) or name.endswith(("_averaged.ms", "_2pol.ms")):
            continue
        try:
            parsed = naming.parse(name)
        except InputError:
            continue
        if parsed.kind is naming.Kind.RAW:
            plain = naming.strip_suffix(name)
            if not parsed.tar or plain not in found:
                found[plain] = name
    return found


def reduced_in(folder: Path) -> Reduced:
    """What the manifests of an hour's blocks say."""
    found = Reduced()
    for manifest in _manifests(folder, "_block"):
        inputs = {naming.strip_suffix(entry["path"]) for entry in manifest["inputs"]}
        left_out = {
            naming.strip_suffix(key.removeprefix(_LEFT_OUT)): str(why)
            for key, why in manifest["quality"].items()
            if key.startswith(_LEFT_OUT)
        }
        found.done |= inputs - left_out.keys()
        found.left_out |= left_out
    for name in found.done & found.left_out.keys():  # another block has it
        del found.left_out[name]
    return found


def imaged_in(folder: Path) -> set[str]:
    """Integrations of an hour that are in an image."""
    found: set[str] = set()
    for name in names_in(folder):
        if not name.endswith(naming.MANIFEST_SUFFIX):
            continue
        plain = name.removesuffix(naming.MANIFEST_SUFFIX)
        if _TOGETHER.fullmatch(plain):
            manifest = _read(folder / name)
            found.update(naming.strip_suffix(entry["path"]) for entry in (manifest or {}).get("inputs", ()))
        else:
            found.add(plain)
    return {name for name in found if _is_integration(name)}


def split_in(folder: Path) -> set[str]:
    """Integrations of an hour that are split for cosmology."""
    ending = f"_2pol.ms{naming.MANIFEST_SUFFIX}"
    return {name.removesuffix(ending) for name in names_in(folder) if name.endswith(ending)}


def came_s(path: str) -> float | None:
    """When a recording was last changed, Unix time; None if it is gone."""
    try:
        return os.stat(path).st_mtime  # noqa: PTH116 - as above
    except OSError:
        return None


def _manifests(folder: Path, part: str) -> Iterator[dict[str, Any]]:
    for name in names_in(folder):
        if name.endswith(naming.MANIFEST_SUFFIX) and part in name and (manifest := _read(folder / name)):
            yield manifest


def _read(path: Path) -> dict[str, Any] | None:
    """A manifest, unchecked but for what is used here; None if it is broken or gone."""
    try:
        found = from_json(path.read_bytes())
        usable = isinstance(found["quality"], dict) and all(isinstance(e["path"], str) for e in found["inputs"])
    except (OSError, ValueError, TypeError, LookupError):
        return None
    return found if usable else None


def _is_integration(name: str) -> bool:
    try:
        return naming.parse(f"{name}.ms").kind is naming.Kind.RAW
    except InputError:
        return False
