"""Which integrations of a block can be reduced together, and what is wrong with the others."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from orca import naming
from orca.errors import DataError, InputError, InvalidDataError
from orca.ms.acceptance import Acceptance
from orca.ms.blocks import open_table, unreadable
from orca.ms.info import MsInfo
from orca.ms.stage import open_source

_LEVEL_ROWS = 97


@dataclass(frozen=True)
class Rejected:
    """One that was not, and why."""

    source: Path
    reason: str


@dataclass
class Member:
    """An integration on its way."""

    source: Path
    info: MsInfo
    level: float
    folder: Path
    zeros: int = 0
    flagged: int = 0
    checksums: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("DATA", "FLAG", "flagmeta"), 0))

    @property
    def averaged(self) -> Path:
        return self.folder / f"{naming.strip_suffix(self.source)}_averaged.ms"

    @property
    def flagmeta(self) -> Path:
        return self.folder / f"{naming.strip_suffix(self.source)}_flagmeta.bin"

    def count(self, name: str, array: Any) -> None:
        """Add what was written to its checksum."""
        self.checksums[name] = zlib.crc32(array, self.checksums[name])


def accepted(
    sources: Sequence[Path], folder: Path, accept: Acceptance, max_level: float
) -> tuple[list[Member], list[Rejected]]:
    """Those that can be used together, in the order of time, and the others.

    Parameters
    ----------
    sources : paths
        Measurement Sets, or tars of them.
    folder : Path
        Takes what has to be unpacked, and later what is written.
    accept : Acceptance
    max_level : float
        Largest ratio of a level to the median of the block, or of that to it.
    """
    members: list[Member] = []
    rejected: list[Rejected] = []
    for source in sources:
        try:
            info = open_source(source, folder, accept)
            if len(info.time_s) != 1:
                raise InvalidDataError(f"has {len(info.time_s)} integrations, a raw file has one", source)
            members.append(Member(source, info, _level(info), folder))
        except InputError:
            raise
        except DataError as error:
            rejected.append(Rejected(source, error.problem))
    members.sort(key=lambda member: (member.info.start_s, member.source.name))
    for reasons in (_unlike, _twice, lambda those: _off_level(those, max_level)):
        why = reasons(members)
        rejected += [Rejected(members[index].source, reason) for index, reason in why.items()]
        members = [member for index, member in enumerate(members) if index not in why]
    return members, rejected


def _level(info: MsInfo) -> float:
    """Median amplitude of the parallel correlations in rows spread over the file; zeros do not count."""
    step = max(info.n_rows // _LEVEL_ROWS, 1)
    parallel = [k for k, pair in enumerate(info.receptors) if pair[0] == pair[1]]
    with open_table(info.path) as table:
        try:
            data = np.abs(table.getcol("DATA", 1, min(_LEVEL_ROWS, (info.n_rows - 1) // step), step)[:, :, parallel])
        except RuntimeError as error:
            raise unreadable(info.path, error) from error
    signal = data[np.isfinite(data) & (data > 0)]
    return float(np.median(signal)) if signal.size else 0.0


def _unlike(members: Sequence[Member]) -> dict[int, str]:
    """Those that are not of the same array and channels as most."""
    shapes = [
        (m.info.antenna_names, m.info.n_channels, m.info.n_correlations, m.info.n_rows, round(m.info.freq_hz[0]))
        for m in members
    ]
    if not shapes:
        return {}
    most = Counter(shapes).most_common(1)[0][0]
    names = ("antennas", "channels", "correlations", "rows", "frequencies")
    found = {}
    for index, shape in enumerate(shapes):
        others = [name for name, mine, theirs in zip(names, shape, most, strict=True) if mine != theirs]
        if others:
            found[index] = f"has other {' and '.join(others)} than most of its block"
    return found


def _twice(members: Sequence[Member]) -> dict[int, str]:
    """Those that are of an integration that is there already."""
    found: dict[int, str] = {}
    last: Member | None = None
    for index, member in enumerate(members):
        if last is not None and member.info.start_s - last.info.start_s < member.info.interval_s / 2:
            found[index] = f"is of the same integration as {last.source.name}"
        else:
            last = member
    return found


def _off_level(members: Sequence[Member], most: float) -> dict[int, str]:
    """Those whose level is far off the median of three or more."""
    if len(members) < 3:
        return {}
    median = float(np.median([member.level for member in members]))
    found = {}
    for index, member in enumerate(members):
        ratio = member.level / median if median else 1.0
        if not 1 / most < ratio < most:
            found[index] = f"has {ratio:.3g} times the median level of its block"
    return found
