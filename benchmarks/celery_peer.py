"""Celery with RabbitMQ and Redis as the telescope runs it, for tasks.py: workers recycled after 20 tasks, or never."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from parts import Cpu, cpu_of

from orca.cluster.ports import free_port
from orca.cluster.server import LOOPBACK

PYTHON = "ORCA_CELERY_PYTHON"
RECYCLE = 20
APP = """
import json, sys, time
from celery import Celery
app = Celery("peer", broker={broker!r}, backend={backend!r})
app.conf.task_default_queue = {queue!r}
app.conf.result_expires = 7200

@app.task
def empty(number):
    return number

if __name__ == "__main__":
    tasks = int(sys.argv[1])
    empty.delay(0).get(timeout=60)
    begin, begin_cpu = time.perf_counter(), time.process_time()
    for result in [empty.delay(number) for number in range(tasks)]:
        result.get(timeout=300)
    print(json.dumps(dict(seconds=time.perf_counter() - begin, flow=time.process_time() - begin_cpu)))
"""

Contestant = tuple[dict[str, Cpu], Callable[[int], dict[str, float]]]


@contextmanager
def celery_peer(folder: Path, workers: int) -> Iterator[dict[str, Contestant]]:
    """Celery workers with and without recycling, each with a queue of its own; none when Celery is not there."""
    if PYTHON not in os.environ:
        yield {}
        return
    with ExitStack() as stack:
        redis_port, redis = stack.enter_context(_redis(folder / "redis"))
        rabbit_port, rabbit = stack.enter_context(_rabbitmq(folder / "rabbitmq"))
        broker, backend = f"amqp://guest:guest@127.0.0.1:{rabbit_port}//", f"redis://127.0.0.1:{redis_port}/0"
        contestants: dict[str, Contestant] = {}
        for name, recycle in ((f"Celery, recycled after {RECYCLE}", RECYCLE), ("Celery, not recycled", None)):
            place = folder / f"celery-{recycle}"
            place.mkdir()
            (place / "peer.py").write_text(APP.format(broker=broker, backend=backend, queue=place.name))
            worker = stack.enter_context(_worker(place, workers, recycle))
            parts = {"workers": partial(cpu_of, worker), "RabbitMQ": partial(cpu_of, rabbit)}
            contestants[name] = (parts | {"Redis": partial(cpu_of, redis)}, partial(_run, place))
        yield contestants


def _run(place: Path, tasks: int) -> dict[str, float]:
    words = [os.environ[PYTHON], "peer.py", str(tasks)]
    done = subprocess.run(words, cwd=place, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout))


@contextmanager
def _worker(place: Path, workers: int, recycle: int | None) -> Iterator[int]:
    words = [os.environ[PYTHON], "-m", "celery", "-A", "peer", "worker", f"--concurrency={workers}", "-l", "ERROR"]
    words += ["--without-gossip", "--without-mingle", f"--hostname={place.name}@localhost"]
    words += [f"--max-tasks-per-child={recycle}"] if recycle else []
    with _process(words, place) as pid:
        yield pid


@contextmanager
def _redis(place: Path) -> Iterator[tuple[int, int]]:
    place.mkdir()
    port = free_port(LOOPBACK)
    with _process(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""], place) as pid:
        yield port, pid


@contextmanager
def _rabbitmq(place: Path) -> Iterator[tuple[int, int]]:
    """A RabbitMQ of our own: its node, its ports and its folders."""
    place.mkdir()
    port, distribution = free_port(LOOPBACK), free_port(LOOPBACK)
    node = f"orca{port}@localhost"
    environment = {
        **os.environ,
        "HOME": str(place),
        "RABBITMQ_NODENAME": node,
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_MNESIA_BASE": str(place / "mnesia"),
        "RABBITMQ_LOG_BASE": str(place / "log"),
        "RABBITMQ_PID_FILE": str(place / "pid"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(place / "plugins"),
    }
    (place / "plugins").write_text("[].\n")
    with _process(["/usr/lib/rabbitmq/bin/rabbitmq-server"], place, environment) as pid:
        control = ["/usr/lib/rabbitmq/bin/rabbitmqctl", "-n", node, "await_startup", "--timeout", "60"]
        for _ in range(20):
            if subprocess.run(control, env=environment, capture_output=True, check=False).returncode == 0:
                break
            time.sleep(1)
        yield port, pid


@contextmanager
def _process(words: list[str], place: Path, environment: dict[str, str] | None = None) -> Iterator[int]:
    with (place / "output.log").open("wb") as output:
        process = subprocess.Popen(words, cwd=place, env=environment, stdout=output, stderr=output)
        try:
            yield process.pid
        finally:
            process.terminate()
            process.wait(60)
