"""Where RabbitMQ's management API is looked for, and what comes of something else that listens there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from orca import config
from orca.cluster.machine.broker import broker_part
from orca.cluster.machine.standing import management_uri
from orca.config import Config, SecretUri
from orca.errors import BrokerAwayError, InfrastructureError
from orca.events.management import Management, with_user

PORTS = {"rabbitmq": 1, "rabbitmq-nodes": 2, "epmd": 3}


def settings(folder: Path, **queue: str) -> Config:
    file = folder / "orca-conf.yml"
    file.write_text(yaml.safe_dump({"queue": queue, "paths": {"data": str(folder)}}))
    return config.load(file)


def found(folder: Path, **queue: str) -> str | None:
    uri = management_uri(settings(folder, **queue))
    return None if uri is None else uri.reveal()


@pytest.mark.parametrize(
    ("broker", "api"),
    [
        ("pyamqp://user:word@host:5672/vhost", "http://host:15672"),
        ("amqp://host", "http://host:15672"),
        ("amqps://user:word@host/vhost", "https://host:15671"),
        ("pyamqp://user:word@[::1]:5672//", "http://[::1]:15672"),
    ],
)
def test_it_is_looked_for_beside_the_broker(tmp_path: Path, broker: str, api: str) -> None:
    """With TLS where the broker has it, so that no password goes without."""
    assert found(tmp_path, broker_uri=broker) == api
    assert found(tmp_path, broker_uri=broker, management_uri="https://other:443/rabbit") == "https://other:443/rabbit"


def test_without_a_broker_there_is_none(tmp_path: Path) -> None:
    assert found(tmp_path) is None


@pytest.mark.parametrize(
    ("api", "broker", "whole"),
    [
        ("http://host:15672", "pyamqp://user:w%40rd@host//", "http://user:w%40rd@host:15672"),
        ("http://boss:key@host:15672", "pyamqp://user:word@host//", "http://boss:key@host:15672"),
        ("http://host:15672", "pyamqp://host//", "http://host:15672"),
    ],
)
def test_it_is_asked_as_the_broker_s_user_unless_it_names_one(api: str, broker: str, whole: str) -> None:
    assert with_user(SecretUri(api), SecretUri(broker)).reveal() == whole


class _Other(BaseHTTPRequestHandler):
    """Something else: sends on what is asked for at /moved, and has a page for all the rest."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        moved = self.path.startswith("/moved/")
        self.send_response(302 if moved else 200)
        if moved:
            self.send_header("Location", "/elsewhere")
        self.end_headers()
        self.wfile.write(b"" if moved else b"<html>")

    def log_message(self, *arguments: object) -> None: ...


@pytest.fixture
def other() -> Iterator[str]:
    """Address of a server that is not RabbitMQ's."""
    _Other.asked = []
    with HTTPServer(("127.0.0.1", 0), _Other) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://user:hidden@127.0.0.1:{server.server_port}"
        server.shutdown()


def test_something_else_is_not_taken_for_it(other: str) -> None:
    with pytest.raises(BrokerAwayError, match="does not speak JSON") as caught:
        Management(SecretUri(other)).call("whoami")
    assert "hidden" not in str(caught.value)


def test_a_password_is_not_carried_on_to_where_it_is_sent(other: str) -> None:
    with pytest.raises(InfrastructureError, match="302"):
        Management(SecretUri(f"{other}/moved")).call("whoami")
    assert _Other.asked == ["/moved/api/whoami"]


@pytest.mark.parametrize("proxy", ["http_proxy", "HTTP_PROXY"])
def test_no_proxy_is_asked(other: str, monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv(proxy, other)
    with pytest.raises(BrokerAwayError, match="does not answer"):
        Management(SecretUri("http://user:hidden@127.0.0.1:9")).call("whoami")
    assert _Other.asked == []


def test_the_plugin_is_on_only_where_it_has_a_port(tmp_path: Path) -> None:
    broker_part(tmp_path, "127.0.0.1", PORTS, "word")
    assert (tmp_path / "enabled_plugins").read_text() == "[].\n"
    assert "management" not in (tmp_path / "rabbitmq.conf").read_text()


def test_it_asks_for_certificates_where_all_do(tmp_path: Path) -> None:
    broker_part(tmp_path, "localhost", {**PORTS, "rabbitmq-management": 4}, "word", tmp_path / "tls")
    if "management" not in (tmp_path / "enabled_plugins").read_text():
        pytest.skip("needs RabbitMQ's plugin")
    lines = (tmp_path / "rabbitmq.conf").read_text().splitlines()
    assert {"management.ssl.port = 4", "management.ssl.verify = verify_peer"} <= set(lines)
    assert "management.ssl.fail_if_no_peer_cert = true" in lines
    assert not any(line.startswith("management.tcp") for line in lines)
