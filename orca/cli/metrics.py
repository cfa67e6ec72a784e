"""`orca metrics`: what Prometheus asks for."""

from __future__ import annotations

import signal
import threading
from typing import Annotated

import typer

from orca.cli import configuration
from orca.cluster.ports import METRICS_PORT


def metrics(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for a free one.")] = METRICS_PORT,
    once: Annotated[bool, typer.Option("--once", help="Print them once, and end.")] = False,
) -> None:
    """Serve what the parts of ORCA count, for Prometheus, at http://HOST:PORT/metrics until it is ended.

    It listens on network.host alone; with TLS where network.tls is set. Nothing is asked for unless somebody asks.
    """
    settings = configuration()
    from prometheus_client import CollectorRegistry, generate_latest, start_http_server

    from orca.cluster.metrics.collector import Sources
    from orca.cluster.metrics.sources import sources
    from orca.cluster.security import CERTIFICATE, KEY
    from orca.errors import InfrastructureError

    registry = CollectorRegistry()
    registry.register(Sources(sources(settings)))
    if once:
        typer.echo(generate_latest(registry).decode(), nl=False)
        return
    host, tls = settings.network.host, settings.network.tls
    certificate, key = (str(tls / CERTIFICATE), str(tls / KEY)) if tls else (None, None)
    try:
        server, thread = start_http_server(port, host, registry, certfile=certificate, keyfile=key)
    except OSError as error:
        problem = f"cannot listen on {host}:{port} ({error.strerror})"
        raise InfrastructureError(problem, remedy="Give another --port, or 0 for a free one") from error
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    scheme = "https" if tls else "http"
    typer.echo(f"{scheme}://{host}:{server.server_port}/metrics")
    ended.wait()
    server.shutdown()
    thread.join(timeout=5)
