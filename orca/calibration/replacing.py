"""A good calibration that gives way to one made otherwise: said, and kept in the trash."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from orca.calibration.options import BlockOptions, DelayOptions, SolveOptions
from orca.disk import make_folder
from orca.errors import InvalidDataError, MissingDataError, OrcaError
from orca.manifest import Manifest, read_manifest
from orca.skyoptions import SkyOptions
from orca.trash import restore, trash

_MODELS: dict[str, type[BaseModel]] = {
    "sky": SkyOptions,
    "solve": SolveOptions,
    "block": BlockOptions,
    "delay": DelayOptions,
}
"""Sections of a calibration's options, in the manifest."""


@contextmanager
def replacing(manifest_path: Path, new: Manifest, trash_root: Path, spare_root: Path) -> Iterator[str]:
    """Publish in this context: what is there and was made otherwise lies in the trash, or is back if that failed.

    Parameters
    ----------
    manifest_path : Path
        Of the product that is there, if there is one.
    new : Manifest
        Of the one that replaces it; its outputs do not matter.
    trash_root, spare_root : Path
        The trash, and the one for a product on another file system than it, since nothing is copied.

    Yields
    ------
    str
        What to say about it; empty when there is no such product, or it was made in the same way.
    """
    try:
        old = read_manifest(manifest_path)
    except (MissingDataError, InvalidDataError):
        old = new
    how = differences(old, new)
    moved: list[Path] = []
    try:
        # The manifest comes last: when this is killed halfway, the next run finds it and moves the rest.
        for path in [*(Path(output.path) for output in old.outputs), manifest_path] if how else []:
            with suppress(MissingDataError):
                moved.append(trash(path, _on_disk_of(path, trash_root, spare_root), moved[0] if moved else None))
        yield f"replaces the table made {' and '.join(how)}, which is now {moved[0]}" if moved else ""
    except BaseException:
        for path in moved:
            with suppress(OrcaError):
                restore(path)
        raise


def differences(old: Manifest, new: Manifest) -> list[str]:
    """In what an earlier calibration was made otherwise, in words; nothing if it had the same options.

    More integrations with equal options are no difference: a block that is complete now replaces one that was not.
    """
    flags = [
        _words(_flag(model, key), before.get(key))
        for section, model in _MODELS.items()
        if (before := _section(old, section)) is not None and (now := _section(new, section)) is not None
        for key in model.model_fields
        if before.get(key) != now.get(key)
    ]
    delays = [any(entry.path.endswith(".delay") for entry in manifest.inputs) for manifest in (old, new)]
    if delays[0] != delays[1]:
        flags.append("--use-delay" if delays[0] else "--no-delay")
    words = [f"with {', '.join(flags)}"] if flags else []
    if old.options.get("bad") != new.options.get("bad"):
        words.append("with other bad antennas")
    if old.options.get("limits") != new.options.get("limits"):
        words.append("with other limits")
    if not _recordings(old) <= _recordings(new):
        words.append("of other integrations")
    return words


def _section(manifest: Manifest, name: str) -> dict[str, Any] | None:
    section = manifest.options.get(name)
    return section if isinstance(section, dict) else None


def _flag(model: type[BaseModel], name: str) -> str:
    """The option of the command line."""
    extra = model.model_fields[name].json_schema_extra
    return str(extra["cli"]) if isinstance(extra, dict) and "cli" in extra else f"--{name.replace('_', '-')}"


def _words(flag: str, value: Any) -> str:
    if value in (None, "", []):
        return f"no {flag}"
    return f"{flag} {','.join(map(str, value)) if isinstance(value, list) else value}"


def _recordings(manifest: Manifest) -> set[str]:
    names = (Path(entry.path).name.removesuffix(".tar") for entry in manifest.inputs)
    return {name for name in names if name.endswith(".ms")}


def _on_disk_of(path: Path, trash_root: Path, spare_root: Path) -> Path:
    make_folder(trash_root)
    same = path.exists() and path.lstat().st_dev == trash_root.stat().st_dev
    return trash_root if same else spare_root
