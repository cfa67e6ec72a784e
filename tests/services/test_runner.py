"""The task runner and gather: what is shipped, who comes first, and what follows from a lack of workers or memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from site_of_tests import Site

from orca.cluster.ports import free_port


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    """A Redis of our own."""
    port = free_port("127.0.0.1")
    folder = tmp_path_factory.mktemp("redis")
    words = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
        client = redis.Redis(port=port, retry=redis.retry.Retry(redis.backoff.ConstantBackoff(0.1), 100))
        client.ping()
        yield client
        process.terminate()


@pytest.fixture(scope="module")
def seen(site: Site, store: redis.Redis, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the flows of running.py did."""
    script = Path(__file__).with_name("running.py")
    port = store.connection_pool.connection_kwargs["port"]
    environment = site.environment(queue={"prefix": "someone", "result_backend_uri": f"redis://127.0.0.1:{port}/0"})
    environment |= client_environment(site)
    environment |= {"SETTINGS_SECRET": "open-sesame", "PARAMETERS_SECRET": "sesame-street"}
    words = [sys.executable, script, tmp_path_factory.mktemp("running")]
    result = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stderr[-4000:]
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def client_environment(site: Site) -> dict[str, str]:
    """Environment that makes Prefect use the server of the site, started when there is none."""
    from orca.cluster import server

    own, _ = server.ensure(site.data / "prefect")
    return server.client_environment(site.data / "prefect", own.url)


def test_what_is_shipped_holds_no_secret_of_the_settings_and_no_parameter_of_the_flow(seen: dict[str, Any]) -> None:
    shipped = seen["shipped"]
    assert shipped["argument"], "looked into the wrong place"
    assert not shipped["SETTINGS_SECRET"]
    assert not shipped["PARAMETERS_SECRET"]
    assert shipped["bytes"] < 5 * 20_000


def test_higher_priority_comes_first(seen: dict[str, Any]) -> None:
    assert [name for name in seen["order"] if not name.startswith("holder")][:3] == ["high", "usual", "low"]


def test_what_memory_killed_goes_to_a_worker_with_more(seen: dict[str, Any]) -> None:
    [[_, status, cause, reason, attempts]] = seen["hungry"]
    assert (status, cause, reason, attempts) == ("done", "", "", 2)


def test_what_is_too_large_for_every_worker_fails_and_says_so(seen: dict[str, Any]) -> None:
    [[_, status, cause, reason, attempts]] = seen["starving"]
    assert (status, cause) == ("failed", "infrastructure")
    assert attempts <= 2
    assert "it took more memory than the 1.6 GB of its Dask worker large, and no worker has more" in reason


def test_a_pool_that_nobody_offers_is_told_of_soon_and_fails(seen: dict[str, Any]) -> None:
    assert [entry[:3] for entry in seen["nobody"]] == [
        ["one", "failed", "infrastructure"],
        ["two", "failed", "infrastructure"],
    ]
    assert all("no Dask worker offered nobody" in entry[3] for entry in seen["nobody"])
    assert "no worker offers nobody: waiting for one" in seen["nobody_told"]
    assert seen["nobody_s"] < 60


def test_no_task_run_stays_unfinished(seen: dict[str, Any]) -> None:
    assert not {"RUNNING", "PENDING"} & set(seen["states"])


def test_a_result_is_kept_as_json_for_two_hours(seen: dict[str, Any], store: redis.Redis) -> None:
    assert seen["in_process"] == ["Outcome", "Ended", "/somewhere"]
    assert seen["message"] == "1 done, 0 skipped, 0 failed"
    [kept] = seen["kept"]
    assert (kept["unit"], kept["status"], kept["result"]) == ("kept", "done", {"where": "/somewhere", "skipped": False})
    assert seen["key"].startswith("someone:result:")
    assert 6000 < store.ttl(seen["key"]) <= 7200
    assert json.loads(store.get(seen["key"]))["metadata"]["serializer"]["type"] == "json"


@pytest.mark.parametrize("serializer", ["pickle", "json"])
def test_what_others_put_into_redis_is_not_read(
    site: Site, store: redis.Redis, seen: dict[str, Any], serializer: str
) -> None:
    """A record that would be unpickled, and one that would make objects of its text."""
    record = json.loads(store.get(seen["key"]))
    record["metadata"]["serializer"] = {"type": serializer}
    store.set("someone:result:forged", json.dumps(record))
    said = _said(site, store, "read_path('someone:result:forged')")
    assert "is not JSON as we write it" in said


def test_of_a_redis_that_is_full_it_is_said_that_it_is_full(site: Site, store: redis.Redis) -> None:
    store.config_set("maxmemory", "1kb")
    try:
        assert "Redis is full. Raise its maxmemory" in _said(site, store, "write_path('someone:result:new', b'{}')")
    finally:
        store.config_set("maxmemory", "0")


def _said(site: Site, store: redis.Redis, call: str) -> str:
    """The error of a call of `RedisResults`."""
    port = store.connection_pool.connection_kwargs["port"]
    code = "from orca.cluster.results import RedisResults as R; from orca.errors import OrcaError\n"
    code += f"try: R().{call}\nexcept OrcaError as error: print(error)"
    environment = site.environment(queue={"prefix": "someone", "result_backend_uri": f"redis://127.0.0.1:{port}/0"})
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout
