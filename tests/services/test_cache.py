"""The spectrum cache in a real Redis and in a folder: both mean the same. And what happens when Redis is not well."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from site_of_tests import Site
from some_spectra import KIND, Night
from standing_redis import PASSWORD, Redis, standing_redis
from waiting import wait_for

from orca.cache import SpectrumCache, Spill
from orca.cluster.security import make_certificates, secured
from orca.config.secret import SecretUri
from orca.dynspec import keep
from orca.errors import CacheAwayError, ConfigError, InputError

Open = Callable[..., SpectrumCache]
WRITER = Path(__file__).parents[1] / "writing_spectra.py"


@pytest.fixture(params=["redis", "folder"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the cache is."""
    if request.param == "folder":
        return str(tmp_path / "cache")
    server: Redis = request.getfixturevalue("redis_server")
    server.client(3).flushdb()
    return server.uri(3)


@pytest.fixture
def open_cache(where: str) -> Iterator[Open]:
    """`open_cache(prefix="anna", expire_s=60.0)`."""
    opened = []

    def open_one(prefix: str = "anna", expire_s: float = 60.0, patience_s: float = 0.3) -> SpectrumCache:
        opened.append(SpectrumCache.open(where, prefix, expire_s, patience_s))
        return opened[-1]

    yield open_one
    for cache in opened:
        cache.close()


def write_raw(cache: SpectrumCache, key: str, value: bytes) -> None:
    """As something else would that knows nothing of spectra."""
    cache.store.put([(key, value)], 60.0)


# ---- Both kinds ----


def test_what_was_put_is_there_in_the_order_of_time(open_cache: Open) -> None:
    night = Night(integrations=5, kinds=(KIND, "cross"))
    cache = open_cache()
    entries = night.entries(["73MHz", "78MHz"])
    cache.put_many(entries[::-1])
    keys = cache.keys(KIND)
    assert keys == sorted(keys)
    assert [cache.label(key).time_s for key in keys] == sorted(cache.label(key).time_s for key in keys)
    assert (len(keys), cache.size()) == (10, 20)
    found = cache.get_many([*keys, "anna:spectrum:cross:0000000000.000:73MHz"])
    assert list(found) == [*keys, "anna:spectrum:cross:0000000000.000:73MHz"]
    wanted = {(e.subband, e.time_s): e for e in entries if e.kind == KIND}
    for entry in list(found.values())[:-1]:
        assert entry is not None
        assert np.array_equal(entry.values, wanted[entry.subband, entry.time_s].values)
        assert entry.made_from == wanted[entry.subband, entry.time_s].made_from
    assert list(found.values())[-1] is None


def test_only_a_range_of_times_is_listed_ends_included(open_cache: Open) -> None:
    night, cache = Night(integrations=8), open_cache()
    cache.put_many(night.entries(["78MHz"]))
    times = [night.time_s("78MHz", number) for number in range(8)]
    found = cache.keys(KIND, times[2], times[5])
    assert [cache.label(key).time_s for key in found] == pytest.approx(times[2:6], abs=1e-3)


def test_more_than_one_batch_goes_there_and_back(open_cache: Open) -> None:
    night, cache = Night(integrations=40, average=48), open_cache()
    cache.put_many(night.entries())
    keys = cache.keys()
    assert len(keys) == 640
    assert sum(entry is not None for entry in cache.get_many(keys).values()) == 640
    assert cache.delete(keys[:300]) == 300
    assert cache.keys() == keys[300:]


def test_an_entry_that_is_put_again_replaces_the_older_one(open_cache: Open) -> None:
    entry, cache = Night().entry(KIND, "73MHz", 0), open_cache()
    cache.put_many([entry])
    cache.put_many([replace(entry, values=entry.values * 2)])
    [found] = cache.get_many(cache.keys()).values()
    assert found is not None
    assert np.array_equal(found.values, entry.values * 2)


def test_entries_expire_whether_somebody_looks_or_not(open_cache: Open) -> None:
    night = Night(integrations=3)
    brief, cache = open_cache(expire_s=0.4), open_cache()
    brief.put_many(night.entries(["73MHz"]))
    cache.put_many(night.entries(["78MHz"]))
    keys = brief.keys()
    assert len(keys) == 6
    wait_for(lambda: brief.size() == 3, "the end of the brief ones", 20)
    left = brief.keys()
    assert {brief.label(key).subband for key in left} == {"78MHz"}
    assert sum(entry is not None for entry in brief.get_many(keys).values()) == 3


def test_two_users_do_not_see_each_other(open_cache: Open) -> None:
    night = Night(integrations=2)
    anna, annabel = open_cache("anna"), open_cache("annabel")
    anna.put_many(night.entries(["73MHz"]))
    annabel.put_many(night.entries(["78MHz"]))
    assert (anna.size(), annabel.size()) == (2, 2)
    assert anna.delete(annabel.keys()) == 0
    assert annabel.size() == 2
    anna.delete(anna.keys())
    assert (anna.size(), annabel.size()) == (0, 2)


def test_broken_and_foreign_values_are_missing_and_counted(open_cache: Open) -> None:
    night = Night(integrations=4)
    with open_cache() as cache:
        cache.put_many(night.entries(["73MHz"]))
        keys = cache.keys()
        [value] = cache.store.get(keys[:1])
        assert value is not None
        write_raw(cache, keys[0], value[:-1])
        write_raw(cache, keys[1], b"\x80\x04\x95 somebody's pickle")
        write_raw(cache, keys[2], value)  # a right value under another one's key
        write_raw(cache, "anna:something-else", b"text")
        write_raw(cache, "anna:spectrum:cross:nonsense", b"text")
        found = cache.get_many(keys)
        assert [entry is not None for entry in found.values()] == [False, False, False, True]
        assert cache.keys() == keys
    with open_cache() as later:
        assert later.store.counted(later.counters) == {"put": 4, "asked": 4, "found": 1, "broken": 3}


def write(where: str, band: str, number: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, str(WRITER), where, band, str(number)])


def test_processes_write_at_the_same_time(where: str, open_cache: Open) -> None:
    writers = [write(where, band, 200) for band in ("13MHz", "73MHz")]
    cache = open_cache()
    while any(writer.poll() is None for writer in writers):
        assert None not in cache.get_many(cache.keys()).values()
        time.sleep(0.05)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert cache.size() == 400


def test_a_writer_that_is_killed_leaves_whole_entries(where: str, open_cache: Open) -> None:
    writer = write(where, "73MHz", 1_000_000)
    cache = open_cache()
    wait_for(lambda: cache.size() > 20, "the first entries")
    writer.kill()
    writer.wait()
    assert None not in cache.get_many(cache.keys()).values()
    cache.put_many(Night(integrations=1).entries(["41MHz"]))


@pytest.mark.parametrize("prefix", ["anna:spectrum", "*", ""])
def test_a_prefix_that_means_others_is_refused(prefix: str, open_cache: Open) -> None:
    with pytest.raises(InputError):
        open_cache(prefix)


# ---- Redis that is not well ----


def test_what_belongs_together_goes_over_in_one_round_trip(redis_server: Redis) -> None:
    client = redis_server.client()
    with SpectrumCache.open(redis_server.uri(), "anna", 60.0) as cache:
        cache.keys()
        before = client.info("stats")["total_reads_processed"]
        cache.put_many(Night(kinds=("cross", "a", "b", "c", "d", "e"), integrations=1).entries(["73MHz"]))
        reads = client.info("stats")["total_reads_processed"] - before
        assert client.info("commandstats")["cmdstat_set"]["calls"] >= 6
    assert reads <= 3  # ours, and the two questions


def test_with_tls_the_certificates_of_the_cluster_count(tmp_path: Path) -> None:
    tls = tmp_path / "tls"
    make_certificates(tls, ["127.0.0.1"])
    with standing_redis(tmp_path, tls) as server:
        address = secured(SecretUri(server.uri()), tls)
        assert isinstance(address, SecretUri)
        with SpectrumCache.open(address.reveal(), "anna", 60.0) as cache:
            cache.put_many(Night(integrations=2).entries(["73MHz"]))
            assert len(cache.keys()) == 2
        with SpectrumCache.open(server.uri(), "anna", 60.0, patience_s=0.1) as cache:
            with pytest.raises(CacheAwayError, match="does not answer") as found:
                cache.keys()
            assert PASSWORD not in str(found.value)


def test_a_redis_that_comes_back_gets_what_was_put_meanwhile(own_redis: Redis) -> None:
    night = Night(integrations=2)
    with SpectrumCache.open(own_redis.uri(), "anna", 60.0, patience_s=30.0) as cache:
        cache.put_many(night.entries(["73MHz"]))
        own_redis.kill()
        later = threading.Timer(0.5, own_redis.start)
        later.start()
        cache.put_many(night.entries(["78MHz"]))
        later.join()
        keys = cache.keys()
        assert [cache.label(key).subband for key in keys] == ["78MHz"] * 2


def test_a_redis_that_is_away_is_told_without_its_password_and_not_waited_for_twice(own_redis: Redis) -> None:
    entries = Night(integrations=1).entries(["73MHz"])
    own_redis.kill()
    with SpectrumCache.open(own_redis.uri(5), "anna", 60.0, patience_s=1.0) as cache:
        begin = time.monotonic()
        with pytest.raises(CacheAwayError, match=rf"127\.0\.0\.1:{own_redis.port}/5: Redis does not answer") as caught:
            cache.put_many(entries)
        first = time.monotonic() - begin
        assert first > 0.4
        calls = []
        cache.store.put = lambda *_: calls.append(1) or (_ for _ in ()).throw(caught.value)  # type: ignore[method-assign]
        with pytest.raises(CacheAwayError):
            cache.put_many(entries)
        assert calls == [1]
    assert PASSWORD not in str(caught.value)
    assert PASSWORD not in repr(caught.value.__cause__)


def test_a_full_redis_refuses_and_the_spectra_are_kept_beside_the_products(own_redis: Redis, tmp_path: Path) -> None:
    own_redis.client().config_set("maxmemory-policy", "noeviction")
    own_redis.client().config_set("maxmemory", "3mb")
    night = Night(integrations=200, average=1, kinds=("cross",))
    spill = Spill(tmp_path / "spill" / "anna", "anna")
    with SpectrumCache.open(own_redis.uri(), "anna", 60.0, patience_s=0.2) as cache:
        taken = [keep(cache, spill, [entry]) for entry in night.entries(["13MHz", "73MHz", "82MHz"])]
        assert 0 < sum(taken) < len(taken) == 600
        with pytest.raises(CacheAwayError, match=r"Redis is full\. Raise its maxmemory"):
            cache.put_many(night.entries(["78MHz"]))
        kept = {**cache.get_many(cache.keys()), **spill.get_many(spill.keys())}
        assert len(kept) >= 600
        assert None not in kept.values()


@pytest.mark.parametrize("uri", ["redis://:{wrong}@127.0.0.1:{port}/0", "redis://127.0.0.1:{port}/0"])
def test_a_wrong_password_is_told_at_once_and_not_shown(redis_server: Redis, uri: str) -> None:
    address = uri.format(wrong="sesame-street", port=redis_server.port)
    with SpectrumCache.open(address, "anna", 60.0, patience_s=100.0) as cache:
        with pytest.raises(CacheAwayError, match=r"refuses") as caught:
            cache.put_many(Night(integrations=1).entries(["73MHz"]))
    assert "sesame-street" not in str(caught.value)


def test_an_address_that_is_none_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        SpectrumCache.open(f"http://:{PASSWORD}@h", "anna", 60.0)
    assert PASSWORD not in str(caught.value)


def test_a_folder_that_holds_something_else_is_told(tmp_path: Path) -> None:
    (tmp_path / "spectra.sqlite").write_bytes(b"something else" * 1000)
    with pytest.raises(CacheAwayError, match="not a database"):
        SpectrumCache.open(tmp_path, "anna", 60.0)


def test_a_full_disk_refuses_and_what_was_there_stays(small_disk: Callable[[str], Path]) -> None:
    night = Night(integrations=400, average=1, kinds=("cross",))
    with SpectrumCache.open(small_disk("3m"), "anna", 60.0, patience_s=0.2) as cache:
        cache.put_many(night.entries(["73MHz"])[:50])
        with pytest.raises(CacheAwayError, match="full"):
            cache.put_many(night.entries(["13MHz", "18MHz"]))
        found = cache.get_many(cache.keys())
        assert len(found) == 50
        assert None not in found.values()


# ---- Beside the products ----


def test_spilled_spectra_have_the_keys_of_the_cache_and_go_together(tmp_path: Path) -> None:
    night = Night(integrations=4, kinds=(KIND, "cross"))
    spill = Spill(tmp_path / "anna", "anna")
    assert spill.keys() == []
    spill.put_many(night.entries(["73MHz"]))
    spill.put_many(night.entries(["82MHz"]))
    keys = Spill(tmp_path / "anna", "anna").keys(KIND)
    assert len(keys) == 8
    assert None not in spill.get_many(spill.keys()).values()
    later = night.time_s("73MHz", 2)
    assert len(spill.keys(KIND, later)) == 4
    spill.keys(KIND)
    assert spill.delete(keys[:3]) == 0  # half of a file
    assert spill.delete(keys) == 8
    assert len(spill.keys()) == 8
    assert spill.clear() == 2
    assert spill.keys() == []


def test_a_spilled_file_that_was_cut_off_gives_what_is_whole(tmp_path: Path) -> None:
    spill = Spill(tmp_path, "anna")
    spill.put_many(Night(integrations=4).entries(["73MHz"]))
    [path] = (tmp_path / KIND).glob("*.spectra")
    path.write_bytes(path.read_bytes()[:-10])
    assert len(spill.keys()) == 3
    assert spill.broken == {path}


# ---- The command line ----


def test_the_commands_show_and_remove_the_entries_of_the_user_alone(
    where: str, open_cache: Open, tmp_path: Path
) -> None:
    site = Site(tmp_path)
    settings = {"queue": {"prefix": "anna"}, "cache": {"uri": where, "expire_hours": 0.1}}
    night = Night(integrations=3, kinds=(KIND, "cross"))
    with open_cache(expire_s=360.0) as cache:
        cache.put_many(night.entries(["73MHz", "78MHz"]))
        cache.get_many([*cache.keys(), "anna:spectrum:cross:0000000000.000:73MHz"])
    others = open_cache("berta")
    others.put_many(night.entries(["73MHz"]))

    found = json.loads(site.run("cache", "stats", "--json", **settings).stdout)
    assert (found["prefix"], found["entries"], found["asked"], found["found"]) == ("anna", 12, 13, 12)
    assert {kind["kind"]: (kind["entries"], kind["subbands"]) for kind in found["kinds"]} == {
        KIND: (6, 2),
        "cross": (6, 2),
    }
    assert all(0 <= kind["youngest_s"] <= kind["oldest_s"] < 300 for kind in found["kinds"])
    assert found["room"]["peak_bytes"] >= found["room"]["used_bytes"] > 12 * 400
    assert found["day"]["entries"] == 6 * 137_812
    assert found["day"]["samples_bytes"] == 6 * 137_812 * 3072

    shown = site.run("cache", "stats", **settings)
    assert PASSWORD not in shown.stdout + shown.stderr
    assert "cross" in shown.stdout
    rows = json.loads(site.run("cache", "ls", "cross", "--json", **settings).stdout)
    assert [(row["subband"], row["entries"]) for row in rows] == [("73MHz", 3), ("78MHz", 3)]

    refused = site.run("cache", "rm", "cross", **settings)
    assert (refused.returncode, "nobody to ask" in refused.stderr) == (2, True)
    assert site.run("cache", "rm", **settings).returncode == 2
    assert "removed 0" in site.run("cache", "rm", "--date", "2026-01-11", "--yes", **settings).stdout
    assert "removed 6 entries" in site.run("cache", "rm", "cross", "--yes", **settings).stdout
    Spill(tmp_path / "orca" / "dynspec" / ".spill" / "anna", "anna").put_many(night.entries(["41MHz"]))
    settings["paths"] = {"data": str(tmp_path / "orca")}
    assert "removed 12 entries" in site.run("cache", "clear", "--yes", **settings).stdout
    assert json.loads(site.run("cache", "stats", "--json", **settings).stdout)["spilled"] == 0
    assert others.size() == 6


def test_a_cache_that_is_away_is_told_in_one_line(own_redis: Redis, tmp_path: Path) -> None:
    own_redis.kill()
    done = Site(tmp_path).run("cache", "stats", cache={"uri": own_redis.uri()})
    assert done.returncode == 1
    assert "Redis does not answer" in done.stderr
    assert PASSWORD not in done.stderr
    assert done.stderr.count("\n") <= 2
