"""Metrics from many sources, each of which may be slow, hang or be down without harm to the others."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYetError
from dataclasses import dataclass, field
from threading import Lock

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

DEADLINE_S = 8.0
"""How long a scrape waits for a source; Prometheus gives up after ten seconds if not told otherwise."""
FRESH_S = 5.0
"""How long what a source told is good for: several who ask cost no more than one."""
Source = Callable[[], Iterable[Metric]]
_log = logging.getLogger(__name__)


@dataclass
class _Told:
    """What a source told last, and what it is about to tell."""

    metrics: list[Metric] = field(default_factory=list)
    at: float = float("-inf")
    seconds: float = 0.0
    good: bool = False
    coming: Future[tuple[list[Metric], float]] | None = None
    complained: bool = False


class Sources(Collector):
    """All metrics of some sources, with two of its own for each: whether it answered, and how long that took.

    Parameters
    ----------
    sources : mapping of str to callable
        Returns its metrics, or raises.
    deadline_s : float, optional
    """

    def __init__(self, sources: Mapping[str, Source], deadline_s: float = DEADLINE_S) -> None:
        self._sources, self._deadline_s = dict(sources), deadline_s
        self._told = {name: _Told() for name in sources}
        self._threads = ThreadPoolExecutor(max(1, len(self._sources)), thread_name_prefix="metrics")
        self._turn = Lock()

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that nobody is asked before the first scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """What all sources tell now; of one that does not answer only that."""
        with self._turn:
            self._ask()
            answered = GaugeMetricFamily(
                "orca_source_up", "Whether what these metrics come from answered.", labels=["source"]
            )
            took = GaugeMetricFamily("orca_source_seconds", "How long the answer took.", labels=["source"])
            for name, told in self._told.items():
                answered.add_metric([name], float(told.good))
                took.add_metric([name], told.seconds)
            found = [metric for told in self._told.values() if told.good for metric in told.metrics]
        yield answered
        yield took
        yield from found

    def _ask(self) -> None:
        """Ask all sources whose answer is old, side by side; one that still thinks is not asked again."""
        begun = time.monotonic()
        for name, told in self._told.items():
            if told.coming is None and begun - told.at > FRESH_S:
                told.coming = self._threads.submit(self._answer, name)
        for name, told in self._told.items():
            if told.coming is not None:
                self._take(name, told, max(0.0, begun + self._deadline_s - time.monotonic()))

    def _answer(self, name: str) -> tuple[list[Metric], float]:
        begun = time.monotonic()
        return list(self._sources[name]()), time.monotonic() - begun

    def _take(self, name: str, told: _Told, patience_s: float) -> None:
        if told.coming is None:
            return
        why = ""
        try:
            told.metrics, told.seconds = told.coming.result(patience_s)
        except NotYetError:
            why = "does not answer in time"
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one part, the others are told of
            why = str(error) or type(error).__name__
        if told.coming.done():
            told.coming, told.at = None, time.monotonic()
        told.good = not why
        if why and not told.complained:
            _log.warning("%s: %s", name, why)
        told.complained = bool(why)
