"""Timing for the benchmarks: things in turn, several times, and the ratios of their medians.

Machines are noisy, so nothing is compared that was not measured in the same run, and medians are quoted.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Timing:
    """Seconds and CPU seconds (children included) of each repetition of one contestant."""

    name: str
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def median_cpu(self) -> float:
        return statistics.median(self.cpu_seconds)


def in_turn(contestants: dict[str, Callable[[], object]], repetitions: int = 5, warm_up: int = 1) -> dict[str, Timing]:
    """Run all contestants in turn, A B C A B C ..., so that a drift of the machine meets all of them."""
    timings = {name: Timing(name) for name in contestants}
    for turn in range(-warm_up, repetitions):
        for name, run in contestants.items():
            begin, begin_cpu = time.perf_counter(), _cpu()
            run()
            if turn >= 0:
                timings[name].seconds.append(time.perf_counter() - begin)
                timings[name].cpu_seconds.append(_cpu() - begin_cpu)
    return timings


def report(title: str, timings: dict[str, Timing], reference: str) -> None:
    """Print a table: median, minimum, maximum, CPU, and each as a multiple of the reference."""
    print(f"\n{title} (median of {len(timings[reference].seconds)}; times as multiples of '{reference}')")
    print(f"{'':44} {'median s':>9} {'min':>7} {'max':>7} {'CPU s':>7} {'ratio':>7}")
    for timing in timings.values():
        ratio = timing.median / timings[reference].median
        print(
            f"{timing.name:44} {timing.median:9.3f} {min(timing.seconds):7.3f} {max(timing.seconds):7.3f} "
            f"{timing.median_cpu:7.2f} {ratio:7.2f}"
        )


def _cpu() -> float:
    usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
