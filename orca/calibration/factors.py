"""What visibilities are multiplied with, where what is flagged is to count for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orca.calibration.apply import Corrections, jones
from orca.calibration.tables import read_table

if TYPE_CHECKING:
    from orca.ms.info import MsInfo


class Factors:
    """What the visibilities of several Measurement Sets are multiplied with; computed again only where it differs.

    Parameters
    ----------
    tables : paths
        CASA calibration tables.

    Raises
    ------
    DataError
        One cannot be read.
    """

    def __init__(self, tables: Sequence[Path]) -> None:
        self._tables = tables
        self._steady: bool | None = None
        self._key: object = None
        self._last: Corrections

    def of(self, info: MsInfo, dead: Sequence[int]) -> Corrections:
        """Those of a Measurement Set; 0 where there is no solution, or the antenna is bad."""
        if self._steady is None:
            self._steady = all(len(window.time_s) == 1 for table in self._tables for window in read_table(table))
        time_s = 0.0 if self._steady else float(info.time_s[0])
        key = info.antenna_names, info.freq_hz.tobytes(), info.receptors.tobytes(), tuple(dead), time_s
        if key != self._key:
            solved = jones(self._tables, info.antenna_names, info.freq_hz, info.channel_width_hz, time_s)
            self._last = solved.corrections(info.receptors, dead)
            self._last.left[self._last.left_flag] = 0
            self._last.right[self._last.right_flag] = 0
            self._key = key
        return self._last
