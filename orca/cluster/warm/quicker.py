"""What a flow run need not wait for, at its beginning and its end; for processes that were forked ready.

These are changes of Prefect's own functions, within processes that do nothing but run flows.
"""

from __future__ import annotations

import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from functools import cache, partial
from typing import Any


class _SharedTls:
    """The module `ssl`, but that equal contexts are made once: each takes 40 ms, and a flow run makes four."""

    create_default_context = staticmethod(cache(ssl.create_default_context))

    def __getattr__(self, name: str) -> Any:
        return getattr(ssl, name)


def share_tls_contexts() -> None:
    """Have Prefect's clients of a process, and of its forks, use the same TLS context; others make their own."""
    import certifi

    shared: Any = _SharedTls()
    shared.create_default_context(cafile=certifi.where())
    for name in ("prefect.client.orchestration", "prefect._internal.websockets"):
        if (module := sys.modules.get(name)) is not None:
            vars(module)["ssl"] = shared


def observe_beside() -> None:
    """Have a flow begin while Prefect still connects to hear of its suspension, for which it would wait 0.2 s.

    The connection asks for the state once it is there, so that what was suspended meanwhile is seen, too.
    """
    from prefect import flow_engine

    observe = flow_engine.observe_flow_run_suspension

    @contextmanager
    def beside(*args: Any, **options: Any) -> Iterator[None]:
        over = threading.Event()

        def watch() -> None:
            with observe(*args, **options):
                over.wait()

        watcher = threading.Thread(target=copy_context().run, args=(watch,), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join(timeout=5)

    flow_engine.observe_flow_run_suspension = beside


def end_at_once() -> None:
    """Have a flow run end without its heart's last beat, which sleeps for a second at a time.

    Prefect does the same where the flow is asynchronous.
    """
    from prefect import flow_engine

    flow_engine._send_heartbeats = partial(flow_engine._send_heartbeats, join_on_exit=False)
