"""`orca watch`: a message for each file that a recorder finishes."""

from __future__ import annotations

import logging
import signal
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orca.cli import complain, configuration
from orca.cli.submit import warn_of_outside
from orca.errors import InputError

if TYPE_CHECKING:
    from orca.events.submit import Submitted


def watch(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Root of what a recorder writes.")],
    poll_s: Annotated[float, typer.Option("--poll", min=0.1, metavar="SECONDS", help="Look so often.")] = 5.0,
    inotify: Annotated[
        bool, typer.Option("--inotify/--no-inotify", help="Be woken up by the kernel, where it knows of new files.")
    ] = True,
    once: Annotated[
        bool, typer.Option("--once", help="Tell of what is there, wait a little for what is growing, and end.")
    ] = False,
) -> None:
    """Send a message for each raw Measurement Set below a folder, once it is finished, until this is ended.

    What was told of is remembered, so that it may be started again at any time. While the broker is away, messages wait
    on this machine.
    """
    settings = configuration()
    from orca.events.alarm import Alarm
    from orca.events.broker import broker_uri
    from orca.events.publisher import Publisher
    from orca.events.watch import Watch

    broker_uri(settings)  # there has to be one
    if not folder.exists():
        if once:
            raise InputError("there is no such folder", folder, "Give the root of what a recorder writes")
        complain("warning", f"{folder}: there is no such folder yet; waiting for it")
    warn_of_outside(folder, settings)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING, force=True)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    settle_s = settings.limits.settle_s
    until = time.monotonic() + 2 * settle_s + 1 if once else float("inf")
    alarm = Alarm(inotify)
    with Publisher(settings) as publisher, closing(Watch(folder, settings, publisher)) as looking, closing(alarm):
        while not ended.is_set():
            looking.look(_tell, ended.is_set)
            if once and (looking.problems or not looking.growing or time.monotonic() > until):
                break
            alarm.watch(looking.active)
            alarm.wait(min(poll_s, max(settle_s / 2, 0.1)) if looking.growing else poll_s, ended)
    if once and looking.growing:
        complain("note", f"{looking.growing} still growing, or without a table: not told of")
    if once and looking.problems:
        raise typer.Exit(1)


def _tell(submitted: Submitted) -> None:
    typer.echo(f"{submitted.subject} {'waits in the spool' if submitted.why else f'to queue {submitted.queue}'}")
