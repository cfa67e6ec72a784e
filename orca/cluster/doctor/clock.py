"""The clock: disciplined by a time server, and equal to those of the machines that ORCA talks to."""

from __future__ import annotations

import ctypes
import os
import ssl
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from orca.cluster.doctor import prefect_server, redis_server
from orca.cluster.doctor.finding import Check, Finding
from orca.cluster.doctor.site import Examined
from orca.cluster.machine import standing
from orca.cluster.security import CA
from orca.config import Config, SecretUri
from orca.errors import OrcaError

SECTION = "clock"
PATIENCE_S = 3.0
UNSYNCHRONIZED = 0x0040
"""STA_UNSYNC of adjtimex(2)."""
OFF_S, FAR_OFF_S = 2.0, 60.0
"""An integration takes 10 s; HTTP tells whole seconds."""


class _Timeval(ctypes.Structure):
    _fields_ = (("sec", ctypes.c_long), ("usec", ctypes.c_long))


class _Timex(ctypes.Structure):
    """See adjtimex(2)."""

    _fields_ = (
        ("modes", ctypes.c_uint), ("offset", ctypes.c_long), ("freq", ctypes.c_long), ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long), ("status", ctypes.c_int), ("constant", ctypes.c_long),
        ("precision", ctypes.c_long), ("tolerance", ctypes.c_long), ("time", _Timeval), ("tick", ctypes.c_long),
        ("rest", ctypes.c_byte * 256),
    )  # fmt: skip


def checks(site: Examined) -> list[Check]:
    """The kernel, and each server that tells the time."""
    found = [Check(SECTION, "ntp", _kernel)]
    settings = site.settings
    if settings is None:
        return found
    for where, (uri, _) in redis_server.addresses(settings).items():
        found.append(Check(SECTION, f"redis {where}", partial(_redis, settings, where, uri)))
    if url := prefect_server.address(settings):
        found.append(Check(SECTION, "prefect", lambda: _http(f"{url}/health", "prefect", settings.network.tls)))
    try:
        management = standing.management_uri(settings)
    except OrcaError:
        management = None
    if management is not None:
        address = management.reveal().rpartition("@")[2].rpartition("//")[2].rstrip("/")
        there = f"{management.scheme}://{address}/"
        found.append(Check(SECTION, "broker", lambda: _http(there, "broker", settings.network.tls)))
    return found


def _kernel() -> Iterator[Finding]:
    """What timedatectl tells, too, of what chrony, ntpd or systemd-timesyncd tell the kernel."""
    state = _Timex()
    result = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(state))
    if result < 0:
        yield Finding(SECTION, "ntp", "note", f"the kernel does not tell ({os.strerror(ctypes.get_errno())})")
        return
    yield kernel_finding(int(state.status), int(state.maxerror))


def kernel_finding(status: int, maxerror_us: int) -> Finding:
    """What status and greatest error of adjtimex(2) mean."""
    if status & UNSYNCHRONIZED:
        seen = "not synchronized with any time server"
        return Finding(SECTION, "ntp", "warning", seen, "timedatectl set-ntp true, or apt install chrony")
    return Finding(SECTION, "ntp", "ok", f"synchronized, at most {maxerror_us / 1000:.3g} ms off")


def _redis(settings: Config, where: str, uri: SecretUri) -> Iterator[Finding]:
    import redis

    try:
        with redis_server.connected(settings, uri) as client:
            client.ping()
            began = time.time()
            seconds, micro = client.time()
            ended = time.time()
    except (redis.RedisError, OSError):  # the section redis says so
        return
    yield compared(f"redis {where}", seconds + micro / 1e6 - (began + ended) / 2, 0.0)


def _http(url: str, name: str, tls: Path | None) -> Iterator[Finding]:
    """By the header Date, which an answer has whatever it says."""
    context = ssl.create_default_context(cafile=tls / CA) if tls and url.startswith("https://") else None
    began = time.time()
    try:
        with urlopen(Request(url), timeout=PATIENCE_S, context=context) as answer:
            headers: Any = answer.headers
    except HTTPError as error:
        headers = error.headers
    except (OSError, ValueError):  # another section says so
        return
    ended = time.time()
    told = headers.get("Date")
    if told is None:
        return
    # it is cut to whole seconds
    yield compared(name, parsedate_to_datetime(told).timestamp() + 0.5 - (began + ended) / 2, 1.0)


def compared(name: str, ahead_s: float, coarse_s: float) -> Finding:
    """A clock that is ahead of ours by so much, and tells the time no finer than `coarse_s`."""
    if abs(ahead_s) <= OFF_S:
        unit = "within a second or two" if coarse_s else f"{abs(ahead_s) * 1000:.0f} ms apart"
        return Finding(SECTION, name, "ok", unit)
    seen = f"its clock is {abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} this machine's"
    remedy = "timedatectl set-ntp true on both; see which is right: date -u"
    return Finding(SECTION, name, "error" if abs(ahead_s) > FAR_OFF_S else "warning", seen, remedy)
