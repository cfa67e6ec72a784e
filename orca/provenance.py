"""Where a product comes from: its manifest, found by any of its files, and whether what that names is still so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from os.path import commonprefix
from pathlib import Path
from typing import Literal

from orca import naming
from orca.errors import DataError, InputError, MissingDataError
from orca.manifest import Fingerprint, Manifest, fingerprint, read_manifest

State = Literal["unchanged", "changed", "moved", "gone"]
_CALIBRATION = (naming.Kind.DELAY, naming.Kind.BANDPASS)


@dataclass(frozen=True)
class Seen:
    """A file of a manifest, and what became of it.

    Attributes
    ----------
    path : Path
        Where it is, or was.
    state : str
        ``moved``: unchanged, and beside its manifest, whose folder was moved.
    size : int
        Bytes, as the manifest has it.
    """

    path: Path
    state: State
    size: int


@dataclass(frozen=True)
class Provenance:
    """A product, and what it was made of.

    Attributes
    ----------
    path : Path
        Of the manifest.
    manifest : Manifest
    inputs, outputs : tuple of Seen
        In the order of the manifest.
    """

    path: Path
    manifest: Manifest
    inputs: tuple[Seen, ...]
    outputs: tuple[Seen, ...]

    @property
    def whole(self) -> bool:
        """Whether all its files are there as they were published."""
        return bool(self.outputs) and all(each.state in ("unchanged", "moved") for each in self.outputs)

    @property
    def tables(self) -> tuple[Path, ...]:
        """Calibration tables among the inputs."""
        return tuple(each.path for each in self.inputs if _is_table(each.path))


def trace(product: Path) -> Provenance:
    """Where a product comes from.

    Parameters
    ----------
    product : Path
        Any of its files, what these are called after, or its manifest.

    Raises
    ------
    MissingDataError
        There is no such file, or no manifest tells of it.
    InvalidDataError
        Its manifest is broken.
    """
    path = _find(product.absolute())
    manifest = read_manifest(path)
    return Provenance(
        path,
        manifest,
        tuple(_seen(entry) for entry in manifest.inputs),
        tuple(_seen(entry, path.parent) for entry in manifest.outputs),
    )


def _find(product: Path) -> Path:
    if product.name.endswith(naming.MANIFEST_SUFFIX):
        return product
    if (own := naming.manifest_path(product)).exists():
        return own
    for path in _candidates(product):
        try:
            outputs = read_manifest(path).outputs
        except DataError:  # another product's, which is told when that is asked for
            continue
        if any(Path(entry.path).name == product.name for entry in outputs):
            return path
    if not product.exists():
        raise MissingDataError("no such file or folder", product)
    remedy = "Only products of ORCA have one; a product without a manifest was not finished, and is made again"
    raise MissingDataError("no manifest tells of it", product, remedy)


def _candidates(product: Path) -> Iterator[Path]:
    """All manifests beside it; those first that begin like it."""
    found = sorted(product.parent.glob(f"*{naming.MANIFEST_SUFFIX}"))
    return iter(sorted(found, key=lambda path: -len(commonprefix([path.name, product.name]))))  # noqa: RUF071 - by characters


def _seen(entry: Fingerprint, folder: Path | None = None) -> Seen:
    """What became of a file; of an output also where it lies in `folder` now."""
    then = Path(entry.path)
    for path in dict.fromkeys([then, folder / then.name] if folder else [then]):
        try:
            now = fingerprint(path)
        except DataError:
            continue
        same = now.model_copy(update={"path": entry.path}).same_content(entry)
        return Seen(path, ("unchanged" if path == then else "moved") if same else "changed", entry.size)
    return Seen(then, "gone", entry.size)


def _is_table(path: Path) -> bool:
    try:
        return naming.parse(path).kind in _CALIBRATION
    except InputError:
        return False
