"""Ports for services whose address is told to others before they listen.

Between the choice of such a port and its use seconds go by, and a port that the system gave would meanwhile be given to
the next one who asks: a Dask cluster of somebody else then answers where a Prefect server was expected. So these ports
come from below those that the system gives.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

LOWEST = 16384
TRIES = 100
METRICS_PORT = 9410
"""Of `orca metrics`, where nobody says another; deployments/prometheus/prometheus.yml asks there."""
_GIVEN = Path("/proc/sys/net/ipv4/ip_local_port_range")


def hold_port(host: str, port: int = 0) -> socket.socket:
    """Listen at a port of this machine, so that nobody else takes it until the socket is closed.

    Parameters
    ----------
    host : str
        An address of this machine.
    port : int
        This one if it is free, else some other.

    Raises
    ------
    OSError
        There is no such address, or no free port.
    """
    wanted = [port] if port else []
    if (highest := _first_given()) > LOWEST + TRIES:
        wanted += random.sample(range(LOWEST, highest), TRIES)
    for each in wanted:
        try:
            return socket.create_server((host, each))
        except OSError:
            continue
    return socket.create_server((host, 0))


def free_port(host: str) -> int:
    """A port that nobody listens on, and that the system gives to nobody who does not ask for it."""
    with hold_port(host) as held:
        return int(held.getsockname()[1])


def _first_given() -> int:
    """The first port that the system gives to those who ask for any; 32768 on Linux unless it was told otherwise."""
    try:
        return int(_GIVEN.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0
