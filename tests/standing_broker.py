"""A RabbitMQ of the tests' own: on free ports of the loopback interface, ended by the numbers of its processes.

Most tests share one, the fixture `broker` (tests/conftest.py), and take a `queue.prefix` of their own::

    def test_something(broker: Broker, tmp_path: Path) -> None:
        settings = broker.settings(tmp_path, "mine")           # orca.config.Config with that prefix
        setup(settings)
        few = broker.settings(tmp_path, "mine", user="publisher")   # one of USERS

For command lines: ``Site(tmp_path, broker.sections("mine"))``. A test that stops, restarts or kills the broker takes
one for itself: ``with standing_broker(tmp_path / "broker") as own: own.kill(); own.start()``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from waiting import wait_for

from orca import config
from orca.cluster.machine.broker import USER, broker_part, name_server_part
from orca.config import Config, SecretUri
from orca.events.health import ask_broker

PASSWORD = "pass-of-tests"
"""Of all users; no message may show it."""
NOTHING = {"configure": "^$", "write": "^$", "read": "^$"}
USERS: dict[str, dict[str, str] | None] = {
    "publisher": {**NOTHING, "write": ".*"},
    "reader": {**NOTHING, "read": ".*"},
    "nobody": NOTHING,
    "own": dict.fromkeys(("configure", "write", "read"), r"^own[-.].*"),  # all that has the prefix own
    "stranger": None,  # who may not enter the vhost
}
"""What users of the broker beside ``orca``, who may do all, have rights for."""
POLICIES = [
    {
        "vhost": "/",
        "name": "short",
        "pattern": r"^short-\w+$",
        "apply-to": "queues",
        "priority": 0,
        "definition": {"max-length": 3},
    }
]
"""A queue whose name begins with ``short-`` holds three messages."""

_IMPATIENT = "[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 1000}]}].\n"
"""A dead letter that could not be kept is tried again after so many ms; without this after three minutes."""


@dataclass
class Broker:
    """RabbitMQ and its name server."""

    folder: Path
    ports: dict[str, int]
    tls: Path | None = None
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def uri(self, user: str = USER, password: str = PASSWORD) -> str:
        scheme = "amqps" if self.tls else "pyamqp"
        return f"{scheme}://{user}:{password}@127.0.0.1:{self.ports['rabbitmq']}//"

    def sections(self, prefix: str, user: str = USER) -> dict[str, Any]:
        """Sections of a configuration."""
        queue = {"prefix": prefix, "broker_uri": self.uri(user)}
        return {"queue": queue, "limits": {"settle_s": 1.0}, "network": {"tls": self.tls and str(self.tls)}}

    def settings(self, folder: Path, prefix: str, user: str = USER) -> Config:
        """A configuration with its data below a folder."""
        file = folder / f"{prefix}-{user}.yml"
        file.write_text(yaml.safe_dump({**self.sections(prefix, user), "paths": {"data": str(folder / "data")}}))
        file.chmod(0o600)
        return config.load(file)

    def start(self, patience_s: float = 90.0) -> None:
        """Start what does not run, and wait until it answers."""
        broker = broker_part(self.folder, "127.0.0.1", self.ports, PASSWORD, self.tls)
        _add_users(self.folder / "definitions.json")
        (self.folder / "advanced.config").write_text(_IMPATIENT)
        for part in (name_server_part(self.ports["epmd"]), broker):
            running = self.processes.get(part.name)
            if running is None or running.poll() is not None:
                self.processes[part.name] = _start(part.argv, part.environment, self.folder / f"{part.name}.log")
        wait_for(self.answers, f"the start of RabbitMQ (its log: {self.folder})", patience_s)

    def answers(self) -> bool:
        ended = self.processes["rabbitmq"].poll()
        assert ended is None, (self.folder / "rabbitmq.log").read_text()[-2000:]
        return ask_broker(self.settings(self.folder, "default"), SecretUri(self.uri())).healthy

    def kill(self) -> None:
        """As a power cut would: kill -9 of the broker alone."""
        self._end("rabbitmq", "kill")

    def stop(self) -> None:
        """End both, the broker in order."""
        for name in ("rabbitmq", "epmd"):
            self._end(name, "terminate")

    def _end(self, name: str, how: str) -> None:
        process = self.processes.get(name)
        if process is not None and process.poll() is None:
            getattr(process, how)()
            process.wait(timeout=60)


@contextmanager
def standing_broker(folder: Path, tls: Path | None = None) -> Iterator[Broker]:
    """A broker that runs inside this context, with what it writes in a folder; with certificates it talks TLS."""
    folder.mkdir(parents=True, exist_ok=True)
    broker = Broker(folder, free_ports("rabbitmq", "rabbitmq-nodes", "rabbitmq-management", "epmd"), tls)
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()  # in order it takes six seconds
        broker.stop()


def free_ports(*names: str) -> dict[str, int]:
    """A free port of the loopback interface for each name."""
    with ExitStack() as stack:
        ports = {}
        for name in names:  # all are held until the last is found, so that they differ
            taken = stack.enter_context(socket.socket())
            taken.bind(("127.0.0.1", 0))
            ports[name] = taken.getsockname()[1]
        return ports


def _start(argv: tuple[str, ...], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a process that does not outlive pytest."""
    with log.open("a") as sink:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *argv],
            env={**os.environ, **environment, "RABBITMQ_ADVANCED_CONFIG_FILE": str(log.with_name("advanced.config"))},
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
        )


def _add_users(definitions: Path) -> None:
    found = json.loads(definitions.read_text())
    salt = b"salt"
    password_hash = base64.b64encode(salt + hashlib.sha256(salt + PASSWORD.encode()).digest()).decode()
    for name, rights in USERS.items():
        user = {"name": name, "password_hash": password_hash, "tags": ""}
        found["users"].append({**user, "hashing_algorithm": "rabbit_password_hashing_sha256"})
        if rights is not None:
            found["permissions"].append({"user": name, "vhost": "/", **rights})
    found["policies"] = POLICIES
    definitions.write_text(json.dumps(found))
