"""What the manifest of a reduced block keeps of each of its integrations, besides its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orca.manifest import Manifest, Quality

if TYPE_CHECKING:
    from orca.ms.reduce import ReducedBlock

_REJECTED, _CHECKSUMS, _SOURCE = "left out ", "checksums ", "source "
"""What the names of numbers begin with that are about one integration."""


def quality_of(made: ReducedBlock, calibration: str, absent: Sequence[Path]) -> Quality:
    """What the manifest of a block says besides its files.

    Parameters
    ----------
    made : ReducedBlock
    calibration : str
        Which was applied.
    absent : sequence of Path
        Integrations that should be in it and were not there.
    """
    members = made.members
    numbers: Quality = {
        "integrations": len(members),
        "left_out": len({*(each.source for each in made.rejected), *absent}),
        "rfi_share": made.rfi_share,
        "flagged_share": sum(member.flagged_share for member in members) / len(members),
        "zero_share": sum(member.zero_share for member in members) / len(members),
        "channels": made.n_channels,
        "flagging_cpu_seconds": made.flagging_cpu_seconds,
        "calibration": calibration,
    }
    numbers |= {f"{_REJECTED}{source.name}": "there is no such file" for source in absent}
    numbers |= {f"{_REJECTED}{each.source.name}": each.reason for each in made.rejected}
    numbers |= {f"{_SOURCE}{each.averaged.name}": str(each.source) for each in members}
    return numbers | {f"{_CHECKSUMS}{each.averaged.name}": _as_text(each.checksums) for each in members}


def _as_text(checksums: Mapping[str, int]) -> str:
    return " ".join(f"{name} {value:08x}" for name, value in checksums.items())


def checksums_of(manifest: Manifest, averaged: str) -> dict[str, int]:
    """Of the columns of an averaged Measurement Set as it was written, by its name."""
    words = str(manifest.quality[f"{_CHECKSUMS}{averaged}"]).split()
    return {name: int(value, 16) for name, value in zip(words[::2], words[1::2], strict=True)}


def numbers_of(manifest: Manifest) -> Quality:
    """What it says of the block as a whole, and why integrations were left out."""
    return {k: v for k, v in manifest.quality.items() if not k.startswith((_CHECKSUMS, _SOURCE))}


def rejected_of(manifest: Manifest) -> dict[str, str]:
    """Names of the integrations that were left out, and why."""
    return {k.removeprefix(_REJECTED): str(v) for k, v in manifest.quality.items() if k.startswith(_REJECTED)}


def written(manifest: Manifest) -> list[tuple[str, Path]]:
    """Names of the averaged files, each with its original."""
    return [
        (key.removeprefix(_SOURCE), Path(str(value)))
        for key, value in manifest.quality.items()
        if key.startswith(_SOURCE)
    ]
