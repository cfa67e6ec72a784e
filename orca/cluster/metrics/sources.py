"""Where the metrics come from: each function asks one part of a site.

Names follow https://prometheus.io/docs/practices/naming: they begin with ``orca_`` and end with their unit, times are
Unix seconds, and what only grows ends in ``_total``. docs/metrics.md lists them.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

import orca
from orca import naming
from orca.cluster.machine import standing
from orca.cluster.machine.overview import look
from orca.cluster.metrics.collector import Source
from orca.cluster.pools import load_pools
from orca.cluster.security import secured
from orca.config import Config
from orca.config.secret import SecretUri
from orca.disk import nearest_folder
from orca.errors import InfrastructureError
from orca.recordings import recordings
from orca.telescope import SUBBANDS

_HOUR = timedelta(hours=1)
_CACHE_S = 1.0


def sources(settings: Config) -> dict[str, Source]:
    """All of a site; without a broker there is nothing to ask of queues and trigger."""
    found: dict[str, Callable[[Config], Iterable[Metric]]] = {
        "parts": of_parts,
        "cache": of_cache,
        "disks": of_disks,
        "files": of_files,
    }
    if standing.broker_uri(settings) is not None:
        found |= {"queues": of_queues, "trigger": of_trigger}
    return {name: partial(source, settings) for name, source in found.items()}


def of_parts(settings: Config) -> Iterator[Metric]:
    """Health of each part, slots, tasks and flow runs, as `orca status` shows them."""
    known = standing.read(standing.run_folder(settings))
    if known is not None and known.supervisor is None:
        known = None
    seen = look(settings, load_pools(Path(known.pools) if known else None), known)
    version = GaugeMetricFamily("orca_info", "Version of ORCA.", labels=["version"])
    version.add_metric([orca.__version__], 1)
    up = GaugeMetricFamily("orca_up", "Whether a part answers, or is known to be there.", labels=["part", "kind"])
    restarts = CounterMetricFamily("orca_restarts", "How often a part was started again.", labels=["part", "kind"])
    for part in seen.parts:
        up.add_metric([part.name, part.kind], float(part.healthy))
        if part.restarts is not None:
            restarts.add_metric([part.name, part.kind], part.restarts)
    slots = GaugeMetricFamily("orca_slots", "Slots for tasks.", labels=["pool", "node", "state"])
    for pool, nodes in seen.slots.items():
        for node, (used, offered) in nodes.items():
            slots.add_metric([pool, node, "used"], used)
            slots.add_metric([pool, node, "offered"], offered)
    late = GaugeMetricFamily("orca_flow_runs_late", "Flow runs that should have begun.", labels=["pool"])
    for waiting in seen.waiting:
        late.add_metric([waiting.pool], waiting.count)
    runs = GaugeMetricFamily("orca_flow_runs", "Flow runs that have not ended.", labels=["pool", "state"])
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for run in seen.flow_runs:
        counts[run.pool, run.state] += 1
    for labels, count in counts.items():
        runs.add_metric(labels, count)
    yield from (version, up, restarts, slots, late, runs)


def of_queues(settings: Config) -> Iterator[Metric]:
    """What waits in the queues of the pools."""
    from orca.events.queues import overview

    messages = GaugeMetricFamily("orca_queue_messages", "Messages in a queue.", labels=["pool", "state"])
    consumers = GaugeMetricFamily("orca_queue_consumers", "Who takes messages from it.", labels=["pool"])
    oldest = GaugeMetricFamily("orca_queue_oldest_seconds", "Age of the oldest message that waits.", labels=["pool"])
    for queue in overview(settings):
        if not queue.declared:
            raise InfrastructureError(queue.problem)
        messages.add_metric([queue.pool, "ready"], queue.ready)
        messages.add_metric([queue.pool, "dead"], queue.dead)
        if queue.unacknowledged is not None:
            messages.add_metric([queue.pool, "unacknowledged"], queue.unacknowledged)
        consumers.add_metric([queue.pool], queue.consumers)
        oldest.add_metric([queue.pool], queue.oldest_s or 0.0)
    yield from (messages, consumers, oldest)


def of_trigger(settings: Config) -> Iterator[Metric]:
    """What the trigger of this machine has done since it started, and what waits in it."""
    from orca.events.state import read_state

    state = read_state(settings)
    if state is None:
        raise InfrastructureError("no trigger on this machine has told anything for a while")
    for name, text in (
        ("received", "Messages taken."),
        ("refused", "Messages put to the dead letters."),
        ("flow_runs", "Flow runs asked for."),
    ):
        yield CounterMetricFamily(f"orca_trigger_{name}", text, value=state[name])
    waiting = GaugeMetricFamily("orca_trigger_waiting", "What waits in the trigger.", labels=["what"])
    for what in ("files", "blocks", "runs"):
        waiting.add_metric([what], state[f"waiting_{what}"])
    yield waiting
    yield GaugeMetricFamily("orca_trigger_oldest_seconds", "How long its first file waits.", value=state["oldest_s"])
    takes = float(state["doing"] == "takes messages")
    yield GaugeMetricFamily("orca_trigger_takes_messages", "Whether it does, and does not wait.", value=takes)


def of_cache(settings: Config) -> Iterator[Metric]:
    """Room in the spectrum cache, of all users, and what this one has put and asked for."""
    from orca.cache import SpectrumCache

    uri = secured(settings.cache.uri, settings.network.tls)
    where = uri.reveal() if isinstance(uri, SecretUri) else uri
    expire_s = settings.cache.expire_hours * 3600
    with SpectrumCache.open(where, settings.queue.prefix, expire_s, patience_s=_CACHE_S) as cache:
        room, counted = cache.store.room(), cache.store.counted(cache.counters)
    sizes = GaugeMetricFamily("orca_cache_bytes", "Memory or disk of the spectrum cache.", labels=["what"])
    for what, size in (("used", room.used_bytes), ("peak", room.peak_bytes), ("limit", room.limit_bytes)):
        if size is not None:
            sizes.add_metric([what], size)
    yield sizes
    spectra = CounterMetricFamily("orca_cache_spectra", "Spectra of this user's prefix.", labels=["what"])
    for what in ("put", "asked", "found", "broken"):
        spectra.add_metric([what], counted.get(what, 0))
    yield spectra


def of_disks(settings: Config) -> Iterator[Metric]:
    """Room on the file systems of all folders of the configuration."""
    free = GaugeMetricFamily("orca_disk_free_bytes", "Free for ORCA on the folder's file system.", labels=["folder"])
    size = GaugeMetricFamily("orca_disk_size_bytes", "Size of the folder's file system.", labels=["folder"])
    for name in type(settings.paths).model_fields:
        folder = nearest_folder(getattr(settings.paths, name))
        disk = shutil.disk_usage(folder)
        free.add_metric([name], disk.free)
        size.add_metric([name], disk.total)
    yield from (free, size)


def of_files(settings: Config) -> Iterator[Metric]:
    """How much was recorded and made of the last hour, and what is the newest of it; by names alone."""
    now = datetime.now(UTC)
    paths = settings.paths
    count = GaugeMetricFamily(
        "orca_integrations_last_hour", "Integrations of the last hour that are there.", labels=["kind", "subband"]
    )
    newest = GaugeMetricFamily(
        "orca_newest_integration_timestamp_seconds",
        "Start of the newest one that is there, of the last two days.",
        labels=["kind", "subband"],
    )
    for kind, root in (
        (naming.Kind.RAW, paths.raw),
        (naming.Kind.AVERAGED, paths.averaged),
        (naming.Kind.COSMOLOGY, paths.cosmology),
        (naming.Kind.IMAGE, paths.images),
    ):
        for band in SUBBANDS:
            labels = [str(kind), band.name]
            if (last := _newest(root, band.name, kind, now)) is None:
                continue
            newest.add_metric(labels, last.timestamp())
            count.add_metric(labels, len(_starts(root, band.name, kind, now - _HOUR, now)))
    yield from (count, newest)


def _newest(root: Path, band: str, kind: naming.Kind, now: datetime) -> datetime | None:
    """Start of the newest integration of the last two days."""
    for hours in range(48):
        begin = (now - hours * _HOUR).replace(minute=0, second=0, microsecond=0)
        folder = naming.observation_folder(root, naming.Observation(band, begin))
        if folder.is_dir() and (found := _starts(root, band, kind, begin, begin + _HOUR)):
            return max(found)
    return None


def _starts(root: Path, band: str, kind: naming.Kind, first: datetime, last: datetime) -> set[datetime]:
    return {each.start for each in recordings(root, band, first, last, kind)} if root.is_dir() else set()
