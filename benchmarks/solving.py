"""What the calibration benchmark runs in a child process."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orca.calibration.gains import solve_gains, sum_integrations
from orca.calibration.options import SolveOptions
from orca.calibration.tables import write_table
from orca.skyoptions import SkyOptions


@dataclass(frozen=True)
class Solved:
    """What solving alone, without the report, took."""

    cpu_seconds: float
    peak_memory_bytes: int


def solve_only(sets: Sequence[Path], table: Path) -> Solved:
    """Read, solve and write, without a report; in a child."""
    began = time.process_time()
    options = SolveOptions(reference_antenna="LWA-114")
    summed = sum_integrations(sets, table.parent, sky=SkyOptions(), uv_range_lambda=options.uv_range_lambda)
    write_table(table, solve_gains(summed.sums, options).solutions, sets[0])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Solved(time.process_time() - began, peak)
