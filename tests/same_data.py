"""Whether two trees of products hold the same data: columns of tables, gains, arrays, and not only names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from orca import naming
from orca.errors import DataError
from orca.manifest import Manifest, fresh, read_manifest

TOLERANCE = 1e-5
"""Of gains and images, as a share of the largest value: their threads add in an order that changes."""


def manifest_paths(root: Path) -> dict[str, Path]:
    """Manifests below a root by their names, those of dynamic spectra with their folder.

    Raises
    ------
    AssertionError
        A product is there twice.
    """
    found: dict[str, Path] = {}
    for path in sorted(root.rglob(f"*{naming.MANIFEST_SUFFIX}")):
        name = f"{path.parent.name}/{path.name}" if root.name == "dynspec" else path.name
        assert name not in found, f"{path} is there twice: {found[name]}"
        found[name] = path
    return found


def manifests(root: Path) -> dict[str, Manifest]:
    """What these say; those that are broken are none."""
    found = {}
    for name, path in manifest_paths(root).items():
        try:
            found[name] = read_manifest(path)
        except DataError:
            continue
    return found


def is_whole(path: Path) -> bool:
    """Whether a manifest is fresh: made of the inputs that are there, and its files are those that it describes."""
    try:
        manifest = read_manifest(path)
    except DataError:
        return False
    return fresh(path, [Path(each.path) for each in manifest.inputs], manifest.options) is not None


def strangers(root: Path) -> list[str]:
    """Files of products that no manifest knows."""
    known = {each.path for manifest in manifests(root).values() for each in manifest.outputs}
    found = []
    for path in root.rglob("*"):
        inside = any(str(part.resolve()) in known for part in (path, *path.parents))
        ours = path.name.endswith((naming.MANIFEST_SUFFIX, ".lock"))
        if path.is_file() and not inside and not ours:
            found.append(str(path))
    return found


def differences(first: Path, second: Path) -> list[str]:
    """What differs between two roots of a stage: products that one of them lacks, and data; empty if nothing does."""
    mine, other = manifests(first), manifests(second)
    found = [f"{name} is only in one" for name in sorted(mine.keys() ^ other.keys())]
    for name in sorted(mine.keys() & other.keys()):
        ours, theirs = ({Path(o.path).name: Path(o.path) for o in each[name].outputs} for each in (mine, other))
        found += [f"{name}: {output} is only in one" for output in sorted(ours.keys() ^ theirs.keys())]
        for output in sorted(ours.keys() & theirs.keys()):
            found += [f"{output}: {what}" for what in _differ(ours[output], theirs[output])]
    return found


def _differ(first: Path, second: Path) -> list[str]:
    if first.suffix == ".bin":
        return [] if first.read_bytes() == second.read_bytes() else ["its bytes differ"]
    read = {".ms": _columns, ".fits": _images, ".delay": _gains, ".bandpass": _gains}.get(first.suffix)
    if read is None:  # a picture, a log, a report
        return []
    ours, theirs = read(first), read(second)
    if ours.keys() != theirs.keys():
        return [f"{sorted(ours)} and {sorted(theirs)}"]
    exactly = first.suffix == ".ms"
    return [f"{name} differs" for name in ours if not _same(ours[name], theirs[name], exactly)]


def _same(first: np.ndarray, second: np.ndarray, exactly: bool) -> bool:
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    if exactly or first.dtype.kind not in "fc":
        return np.array_equal(first, second, equal_nan=first.dtype.kind in "fc")
    largest = float(np.nanmax(np.abs(first), initial=0.0)) if np.isfinite(first).any() else 0.0
    return bool(np.allclose(first, second, rtol=TOLERANCE, atol=TOLERANCE * largest, equal_nan=True))


def _columns(path: Path) -> dict[str, np.ndarray]:
    from casacore.tables import table

    with table(str(path), ack=False) as main:
        data = [name for name in main.colnames() if name.endswith(("DATA", "FLAG", "WEIGHT", "SIGMA", "SPECTRUM"))]
        return {name: main.getcol(name) for name in (*data, "TIME", "UVW", "ANTENNA1", "ANTENNA2")}


def _images(path: Path) -> dict[str, np.ndarray]:
    from astropy.io import fits

    with fits.open(path) as units:
        return {f"{n} {unit.name}": np.array(unit.data) for n, unit in enumerate(units) if _is_array(unit)}


def _is_array(unit: Any) -> bool:
    return unit.is_image and unit.data is not None


def _gains(path: Path) -> dict[str, np.ndarray]:
    from orca.calibration.tables import read_table

    found = {}
    for number, window in enumerate(read_table(path)):
        found |= {f"{number} flags": window.flags, f"{number} times": window.time_s}
        found[f"{number} values"] = np.where(window.flags, 0, window.values)
    return found
