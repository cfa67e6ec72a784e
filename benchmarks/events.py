"""Messages: how fast they pass, how soon a flow begins, and whether the telescope's rate and 50 times that leave a lag.

All on one machine, started by `orca up` in a folder of its own: RabbitMQ, Prefect's server, the trigger, warm workers.

- Messages are published with confirmation, and taken by the trigger, where no rule wants them, beside a bare loop of
  kombu with the same kind of queue, the same properties, and an acknowledgement for each.
- From publishing to the first line of a flow, through queue, trigger, Prefect and warm worker.
- Files as 16 subbands record them, in real time, then 50 times as fast: each has to be in exactly one block.

.venv/bin/python benchmarks/events.py [--messages 3000] [--repetitions 5] [--minutes 10] [--fast-minutes 1]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

ORCA = Path(sys.executable).with_name("orca")
FLOWS = """
import time
from pathlib import Path
from prefect import flow

@flow
def first_line(told: str) -> None:
    Path(told).write_text(str(time.time()))

@flow
def swallow(measurement_sets: list[Path]) -> None:
    pass
"""
RULES = """
recorded:
  - name: swallow
    deployment: swallow/swallow
    wait_s: 60
announced: []
"""
POOLS = """
hosts: null
pools:
  default: {runs: 4, slots: 1, threads: 1, memory_gb: 2, scratch_gb: 1}
  imaging: {runs: 1, slots: 1, threads: 1, memory_gb: 2, scratch_gb: 1}
  bandpass: {runs: 1, slots: 1, threads: 1, memory_gb: 2, scratch_gb: 1}
  cosmology: {runs: 1, slots: 1, threads: 1, memory_gb: 2, scratch_gb: 1}
limits: {load: 1000, free_memory_gb: 0, free_scratch_gb: 0}
recycle: {tasks: 20, memory_gb: 4}
take_turns: true
"""
RATE = 1.6
"""Files a second of the telescope."""
FAST = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=3000)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=10.0, help="at the telescope's rate")
    parser.add_argument("--fast-minutes", type=float, default=1.0, help=f"at {FAST} times that")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="orca-benchmark-") as name:
        for variable in [one for one in os.environ if one.startswith(("PREFECT_", "ORCA_"))]:
            del os.environ[variable]
        os.environ |= {"HOME": name, "DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        os.environ["ORCA_CONF"] = str(Path(name) / "orca-conf.yml")
        folder = Path(name)
        (folder / "orca-conf.yml").write_text(f"paths:\n  data: {folder}/orca\n")
        (folder / "work_pools.yaml").write_text(POOLS)
        (folder / "triggers.yaml").write_text(RULES)
        subprocess.run([ORCA, "up"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            deploy(folder)
            passing(asked.messages, asked.repetitions)
            beginning(folder, asked.repetitions)
            rate("the telescope's rate", RATE, asked.minutes, hour=3)
            rate(f"{FAST} times that", FAST * RATE, asked.fast_minutes, hour=8)
        finally:
            subprocess.run([ORCA, "down"], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def deploy(folder: Path) -> None:
    """Have the two flows as deployments of pool default."""
    from orca import config
    from orca.cluster import server
    from orca.cluster.machine.standing import api_url

    settings = config.load()
    url = api_url(settings)
    assert url is not None
    os.environ.update(server.client_environment(settings.prefect.home, url))
    from prefect.client.orchestration import get_client
    from prefect.flows import load_flow_from_entrypoint
    from prefect.utilities.callables import parameter_schema

    (folder / "code").mkdir()
    (folder / "code" / "some_flows.py").write_text(FLOWS)
    with get_client(sync_client=True) as client:
        for name, function in (("first-line", "first_line"), ("swallow", "swallow")):
            entrypoint = f"some_flows.py:{function}"
            schema = parameter_schema(load_flow_from_entrypoint(f"{folder}/code/{entrypoint}"))
            client.create_deployment(
                client.create_flow_from_name(name),
                name,
                entrypoint=entrypoint,
                path=str(folder / "code"),
                work_pool_name="default",
                parameter_openapi_schema=schema.model_dump_for_openapi(),
            )


# ---- Messages ----


def passing(count: int, repetitions: int) -> None:
    """Messages a second, ours and those of a bare loop, in turn."""
    ours, bare = [], []
    files = [*integrations("73MHz", 200, hour=1, ending="_averaged.ms")]
    for turn in range(-1, repetitions):
        for found, way in ((ours, pass_ours), (bare, pass_bare)):
            seconds = way(count, files)
            if turn >= 0:
                found.append(count / seconds)
    ratio = statistics.median(ours) / statistics.median(bare)
    print(f"Messages a second, published with confirmation and taken (median of {repetitions})")
    for title, each in (("ORCA's publisher and trigger", ours), ("bare kombu loop", bare)):
        print(f"  {title:30} {statistics.median(each):7.0f}   {min(each):.0f} to {max(each):.0f}")
    print(f"  {'ratio (at least 0.5)':30} {ratio:7.2f}")


def pass_ours(count: int, files: list[Path]) -> float:
    """Seconds until the trigger has taken so many messages that no rule wants."""
    from orca import config
    from orca.events.message import Message, Recorded
    from orca.events.publisher import Publisher

    settings = config.load()
    now = datetime.now(UTC)
    begin = time.perf_counter()
    with Publisher(settings) as publisher:
        for number in range(count):
            told = Recorded(path=str(files[number % len(files)]), size=1, time=now)
            publisher.publish(Message(recorded=told), "default")
    while waiting(settings) > 0:
        time.sleep(0.01)
    return time.perf_counter() - begin


def waiting(settings: Any) -> int:
    """Messages of pool default that nobody has acknowledged."""
    from orca.events.queues import overview

    return sum((state.ready or 0) + (state.unacknowledged or 0) for state in overview(settings, ["default"]))


def pass_bare(count: int, files: list[Path]) -> float:
    """Seconds until a process with a bare kombu consumer has acknowledged as many messages of the same size."""
    from kombu import Connection, Exchange, Producer, Queue

    from orca import config
    from orca.events.broker import broker_uri

    uri = broker_uri(config.load()).reveal().replace("pyamqp://", "amqp://")
    arguments = {"x-queue-type": "quorum"}
    queue = Queue("bare", Exchange("bare", "direct", durable=True), "bare", durable=True, queue_arguments=arguments)
    with Connection(uri, transport_options={"confirm_publish": True}) as connection:
        queue(connection).declare()
        context = multiprocessing.get_context("spawn")
        ready, done = context.Event(), context.Event()
        consumer = context.Process(target=take_bare, args=(uri, count, ready, done))
        consumer.start()
        ready.wait()
        producer = Producer(connection, queue.exchange, "bare")
        begin = time.perf_counter()
        for number in range(count):
            path = str(files[number % len(files)])
            body = {"id": f"{number:040d}", "attempt": 1, "recorded": {"path": path, "size": 1, "time": "2026-01-10"}}
            producer.publish(json.dumps(body), delivery_mode=2, mandatory=True, content_type="application/json")
        if not done.wait(300):
            raise SystemExit("the bare consumer did not take all messages")
        seconds = time.perf_counter() - begin
        consumer.join()
    return seconds


def take_bare(uri: str, count: int, ready: Any, done: Any) -> None:
    """Take messages, decode, acknowledge."""
    from kombu import Connection, Consumer, Queue

    seen = 0

    def take(_body: Any, message: Any) -> None:
        """kombu has decoded the body."""
        nonlocal seen
        message.ack()
        seen += 1

    with Connection(uri) as connection:
        queue = Queue("bare", no_declare=True)
        with Consumer(connection, [queue], callbacks=[take], prefetch_count=4000, accept=["application/json"]):
            ready.set()
            while seen < count:
                connection.drain_events()
    done.set()


# ---- Flows ----


def beginning(folder: Path, repetitions: int) -> None:
    """Seconds from publishing to the first line of a flow."""
    from orca import config
    from orca.events.message import Message, Run
    from orca.events.publisher import Publisher

    times = []
    with Publisher(config.load()) as publisher:
        for turn in range(-1, max(repetitions, 7)):
            told = folder / f"told{turn}"
            begin = time.time()
            publisher.publish(Message(run=Run(flow="first-line", parameters={"told": str(told)})), "default")
            while not (told.exists() and told.read_text()):
                time.sleep(0.02)
            if turn >= 0:
                times.append(float(told.read_text()) - begin)
            time.sleep(1.0)
    print(f"From publish to the first line of a flow (median of {len(times)}, seconds; less than 1.5)")
    print(f"  {statistics.median(times):.2f}   {min(times):.2f} to {max(times):.2f}")


# ---- The telescope ----


def integrations(band: str, count: int, *, hour: int, ending: str = ".ms") -> Iterator[Path]:
    """Empty folders with the recorder's names, made as they are asked for."""
    from orca import config, naming
    from orca.telescope import INTEGRATION_S

    start = datetime(2026, 1, 10, hour, 0, 2, tzinfo=UTC)
    for number in range(count):
        seen = naming.Observation(band, start + timedelta(seconds=number * INTEGRATION_S))
        path = naming.raw_path(config.load().paths.raw, seen)
        path = path.with_name(path.name.removesuffix(".ms") + ending)
        path.mkdir(parents=True, exist_ok=True)
        yield path


def rate(title: str, per_s: float, minutes: float, *, hour: int) -> None:
    """Publish as the recorders do; what the trigger's memory does, what is left, in how many blocks each file is."""
    import psutil

    from orca import config
    from orca.events.message import Message, Recorded
    from orca.events.publisher import Publisher
    from orca.events.state import read_state
    from orca.telescope import SUBBANDS

    settings = config.load()
    each = int(per_s * minutes * 60 / len(SUBBANDS))
    sources = [integrations(band.name, each, hour=hour) for band in SUBBANDS]
    told: list[str] = []
    trigger = psutil.Process(read_state(settings)["pid"])
    memory = [megabytes(trigger)]
    begin = time.monotonic()
    with Publisher(settings) as publisher:
        for number, paths in enumerate(zip(*sources, strict=True)):
            time.sleep(max(0.0, begin + number * len(SUBBANDS) / per_s - time.monotonic()))
            for path in paths:
                recorded = Recorded(path=str(path), size=1, time=datetime.now(UTC))
                publisher.publish(Message(recorded=recorded), "default")
                told.append(str(path))
            if number % max(each // 20, 1) == 0:
                memory.append(megabytes(trigger))
    took, ended = time.monotonic() - begin, time.monotonic()
    while (
        (state := read_state(settings)) is None or state["waiting_files"] or state["waiting_runs"] or waiting(settings)
    ):
        time.sleep(0.5)
    lag = time.monotonic() - ended
    blocks = Counter(path for paths in asked_for(hour) for path in paths)
    once = sum(count == 1 for count in blocks.values())
    print(f"{title}: {len(told)} files in {took:.0f} s ({len(told) / took:.1f} a second)")
    print(f"  in exactly one flow run: {once} of {len(told)}; in none {len(set(told) - set(blocks))}")
    print(f"  all acknowledged {lag:.0f} s after the last (blocks that are not full wait for 60 s)")
    print(
        f"  memory of the trigger: {memory[0]:.0f} MB before, {max(memory):.0f} at most, {megabytes(trigger):.0f} after"
    )


def megabytes(process: Any) -> float:
    """Resident memory of a process."""
    return float(process.memory_info().rss / 1e6)


def asked_for(hour: int) -> Iterator[list[str]]:
    """Files of each flow run that is about an hour's."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName

    with get_client(sync_client=True) as client:
        offset = 0
        while runs := client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=["swallow"])), limit=50, offset=offset
        ):
            offset += len(runs)
            for run in runs:
                paths = [str(path) for path in run.parameters["measurement_sets"]]
                if any(f"/{hour:02d}/" in path or f"/{hour + 1:02d}/" in path for path in paths):
                    yield paths


if __name__ == "__main__":
    main()
