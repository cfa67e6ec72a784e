"""The spectrum cache: puts and gets beside a bare redis-py pipeline; a day of the telescope put and reduced.

    .venv/bin/python benchmarks/cache.py [--sets 2000] [--repetitions 7] [--hours 0.5] [--folder]

The first part puts the six spectra of each Measurement Set in one round trip, and gets them in batches as the reducer
does; the bare pipeline handles the same bytes in the same batches on the same server. The second part puts so many
hours of all 16 subbands and reduces them in a process of its own; `--hours 24` is a day of the telescope (137 812 sets,
3.2 GB in Redis, and 5.5 GB of disk in $TMPDIR).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import redis
from measure import in_turn, report

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from standing_redis import Redis, standing_redis

from orca.cache import Entry, SpectrumCache, digest
from orca.cache.entry import encode, key_of
from orca.cache.spectra import AT_ONCE, in_batches
from orca.cache.statistics import statistics
from orca.dynspec import Span, reduce_spectrum
from orca.dynspec.axes import midnight_s
from orca.telescope import CHANNEL_WIDTH_HZ, INTEGRATION_S, SUBBANDS

KINDS = ("cross", "LWA128&LWA160", "LWA048&LWA051", "LWA018&LWA237", "LWA065&LWA094", "LWA286&LWA333")
DAY = date(2026, 1, 10)
EXPIRE_S = 36_000.0
OPTIONS = {"calibrate": "none"}
PASSES = 4
"""Through all keys, so that gets take as long as puts."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=2000, help="Measurement Sets of the first part")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--hours", type=float, default=0.5, help="of the second part")
    parser.add_argument("--folder", action="store_true", help="the second part in a folder, without Redis")
    parser.add_argument("--reduce", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.reduce:
        reduce_all(*asked.reduce)
        return
    with tempfile.TemporaryDirectory(prefix="orca-benchmark-") as name:
        with standing_redis(Path(name)) as server:
            beside_a_bare_pipeline(server, asked.sets, asked.repetitions)
        with standing_redis(Path(name)) as server:
            day(str(Path(name) / "cache") if asked.folder else server.uri(), asked.hours, Path(name))


def spectra(band: int, numbers: range) -> Iterator[list[Entry]]:
    """The six spectra of one Measurement Set after the other."""
    chance = np.random.default_rng(band)
    subband = SUBBANDS[band]
    freq_hz = subband.frequencies_hz()
    sky = (1000 * (freq_hz / 50e6) ** -2.5)[:, None] * np.array([1.0, 0.1, 0.1, 1.1])
    samples = [(sky * chance.normal(1, 0.03, sky.shape)).astype(np.float32) for _ in range(100)]
    for number in numbers:
        time_s = midnight_s(DAY) + 10 + number * INTEGRATION_S + (band % 2)
        path = f"/lustre/pipeline/slow/{subband.name}/2026-01-10/18/20260110_{number:06d}_{subband.name}.ms"
        yield [
            Entry(kind, subband.name, time_s, samples[(number + k) % 100], float(freq_hz[0]), CHANNEL_WIDTH_HZ,
                  unit="Jy", version="0.1.0", made_from=path, options=digest(OPTIONS))
            for k, kind in enumerate(KINDS)
        ]  # fmt: skip


def beside_a_bare_pipeline(server: Redis, sets: int, repetitions: int) -> None:
    """Puts and gets, ours and bare ones, in turn."""
    entries = list(spectra(13, range(sets)))
    raw = [[(key_of("bench", entry), encode(entry)) for entry in each] for each in entries]
    client = redis.Redis.from_url(server.uri())
    cache = SpectrumCache.open(server.uri(), "bench", EXPIRE_S)
    keys = [key for each in raw for key, _ in each]

    def put_bare() -> None:
        for each in raw:
            pipe = client.pipeline(transaction=False)
            for key, value in each:
                pipe.set(key, value, ex=int(EXPIRE_S))
            pipe.execute()

    def put_ours() -> None:
        for each in entries:
            cache.put_many(each)

    def get_bare() -> None:
        for some in in_batches(keys * PASSES, AT_ONCE):
            pipe = client.pipeline(transaction=False)
            for key in some:
                pipe.get(key)
            pipe.execute()

    def get_ours() -> None:
        for some in in_batches(keys * PASSES, AT_ONCE):
            if None in cache.get_many(some).values():
                raise SystemExit("an entry is missing")

    size = len(raw[0][0][1])
    for title, bare, ours in (("put", put_bare, put_ours), ("get", get_bare, get_ours)):
        timings = in_turn({"a bare pipeline": bare, "SpectrumCache": ours}, repetitions)
        report(
            f"{title} {len(keys)} spectra of {size} bytes, {'6' if title == 'put' else AT_ONCE} at a time",
            timings,
            "a bare pipeline",
        )
        bare_one, our_one = timings["a bare pipeline"], timings["SpectrumCache"]
        rates = bare_one.median / our_one.median, min(bare_one.seconds) / min(our_one.seconds)
        cpu = bare_one.median_cpu / our_one.median_cpu
        print(f"  rate {rates[0]:.2f} of the bare one's (at least 0.5); fastest {rates[1]:.2f}, {cpu:.2f} by CPU")
    cache.close()


def day(where: str, hours: float, folder: Path) -> None:
    """Put all spectra of some hours, then reduce them in a process of its own."""
    numbers = range(round(hours * 3600 / INTEGRATION_S))
    begin, begin_cpu = time.perf_counter(), time.process_time()
    with SpectrumCache.open(where, "bench", EXPIRE_S) as cache:
        for start in range(0, len(numbers), 24):
            for band in SUBBANDS:
                for each in spectra(band.index, numbers[start : start + 24]):
                    cache.put_many(each)
        sets = len(numbers) * len(SUBBANDS)
        seconds, cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
        found = statistics(cache)
    print(f"\n{hours:g} h of the telescope: {sets} Measurement Sets, {found.entries} spectra")
    print(f"  put: {seconds:.0f} s, {cpu:.0f} s of CPU ({sets / seconds:.0f} sets a second; the telescope makes 1.6)")
    each = found.room.used_bytes / found.entries
    print(f"  {found.room.kind}: {found.room.peak_bytes / 1e9:.2f} GB, {each:.0f} bytes a spectrum")
    words = [sys.executable, __file__, "--reduce", where, str(folder), str(len(numbers))]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True)
    for line in json.loads(done.stdout.splitlines()[-1]):
        print(f"  {line}")


def reduce_all(where: str, folder: str, count: str) -> None:
    """Reduce all kinds, and print what it took as JSON."""
    first_s = midnight_s(DAY)
    span = Span(DAY, first_s, first_s + (int(count) + 2) * INTEGRATION_S, options=OPTIONS)
    lines = []
    begin = time.perf_counter()
    for kind in KINDS:
        with SpectrumCache.open(where, "bench", EXPIRE_S) as cache:
            made = reduce_spectrum(kind, span, cache, Path(folder) / "dynspec", scratch=Path(folder) / "scratch")
        tally = made.tally
        sizes = sum(path.stat().st_size for path in made.files) / 1e6
        lines.append(
            f"{kind:14} {made.seconds:6.1f} s, {tally.cache} spectra, {tally.missing + tally.broken} lost, "
            f"{tally.deleted} dropped, {sizes:.0f} MB of FITS, peak memory {made.peak_memory_bytes / 1e6:.0f} MB"
        )
    usage = resource.getrusage(resource.RUSAGE_SELF)
    lines.append(
        f"all kinds: {time.perf_counter() - begin:.0f} s, {usage.ru_utime + usage.ru_stime:.0f} s of CPU, "
        f"peak memory {usage.ru_maxrss / 1e3:.0f} MB"
    )
    print(json.dumps(lines))


if __name__ == "__main__":
    main()
