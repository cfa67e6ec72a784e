"""Is this a Measurement Set worth an hour of work? Everything that can be known about it in a few milliseconds.

Nothing is written: tables are opened without a lock, so read-only folders and files are fine.
"""

from __future__ import annotations

from pathlib import Path

from orca.errors import DeadDataError
from orca.ms.checks import check
from orca.ms.growth import settled
from orca.ms.info import MsInfo

__all__ = ["MsInfo", "inspect"]


def inspect(path: Path, *, settle_s: float = 5.0, min_fill_level: float = 0.0, max_zero_share: float = 1.0) -> MsInfo:
    """Check a Measurement Set and tell what is in it.

    Parameters
    ----------
    path : Path
        A folder; a tar must be unpacked first (`orca.ms.archive`).
    settle_s : float
        A file that changed within this time is watched for a moment; if it changes again, it is still being written.
    min_fill_level : float
        Lowest FILL_LEVEL_0 that is worth the work.
    max_zero_share : float
        Share of zeros from which on it is not.

    Raises
    ------
    MissingDataError
        There is nothing at this path.
    InvalidDataError
        It is something else, a part of it is missing, or its parts do not fit together.
    TruncatedDataError
        It ends too early.
    GrowingDataError
        It is still being written.
    DeadDataError
        There is no signal in it.
    """
    path = Path(path)
    with settled(path, settle_s):
        info = check(path)
    if info.fill_level is not None and info.fill_level < min_fill_level:
        lost = f"only {info.fill_level:.0%} of the packets arrived (FILL_LEVEL_0), wanted are {min_fill_level:.0%}"
        raise DeadDataError(lost, path, "Leave this subband out.")
    if info.zero_share >= max_zero_share:
        share = "all" if info.zero_share == 1 else f"{info.zero_share:.0%} of the"
        raise DeadDataError(f"{share} visibilities are zero", path, "Leave this subband out.")
    return info
