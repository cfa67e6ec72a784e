"""The command line, `orca NOUN`: one module a noun."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer
from typer.main import get_command

import orca
from orca.cli.lazy import LazyGroup
from orca.errors import OrcaError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orca.config import Config

INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class _Orca(LazyGroup):
    nouns: ClassVar[Mapping[str, tuple[str, str]]] = {
        "run": ("orca.cli.run", "Run a stage of the pipeline on Measurement Sets."),
        "submit": ("orca.cli.submit", "Ask for a stage by a message, or tell of recorded files."),
        "flagging": ("orca.cli.flagging", "Measure what a strategy finds of RFI."),
        "plot": ("orca.cli.plot", "Draw products as pictures."),
        "cache": ("orca.cli.cache", "Show what is in the spectrum cache, and remove it."),
        "show": ("orca.cli.show:show", "Show what a product was made of, and how."),
        "trash": ("orca.cli.trash", "Show what was removed, and bring it back."),
        "simulate": ("orca.cli.simulate", "Write Measurement Sets as the recorder does, with a known sky."),
        "config": ("orca.cli.config", "Make, show and check the configuration."),
        "pools": ("orca.cli.pools", "Show the work pools, and bring Prefect in line with work_pools.yaml."),
        "deploy": ("orca.cli.deploy:deploy", "Tell Prefect of all flows and their schedules."),
        "night": ("orca.cli.night:night", "Show what became of a day, and ask for what is missing of it."),
        "runs": ("orca.cli.runs", "Show flow runs: what became of them, and what they said."),
        "logs": ("orca.cli.runs:log", "Print what a flow run and its tasks have logged."),
        "workers": ("orca.cli.workers", "Show, drain, restart and stop the Dask workers."),
        "events": ("orca.cli.events", "Make the queues, and send messages that wait on this machine."),
        "watch": ("orca.cli.watch:watch", "Send a message for each file that a recorder finishes."),
        "trigger": ("orca.cli.trigger:trigger", "Take messages, and have Prefect run what they ask for."),
        "queues": ("orca.cli.queues", "Show the queues of the pools, and empty them; look after dead letters."),
        "users": ("orca.cli.users", "Make, show and remove users of RabbitMQ."),
        "alarms": ("orca.cli.alarms", "Show what is wrong, and tell who should know."),
        "cluster": ("orca.cli.cluster", "Make certificates and system services for a cluster."),
        "up": ("orca.cli.machine:up", "Start all parts on this machine, and keep them alive."),
        "status": ("orca.cli.machine:status", "Show what runs on this machine."),
        "metrics": ("orca.cli.metrics:metrics", "Serve what the parts count, for Prometheus."),
        "doctor": ("orca.cli.doctor:doctor", "Examine all that ORCA needs: what is wrong, and how to mend it."),
        "down": ("orca.cli.machine:down", "End what runs on this machine."),
    }


# Without rich for its help, which takes 0.1 s to import: as long as all the rest.
app = typer.Typer(cls=_Orca, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"orca {orca.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Configuration to use, as if $ORCA_CONF named it.")
    ] = None,
    show_traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where an unexpected error came from (also: ORCA_TRACEBACK=1).")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """From what a radio telescope records to calibrated, flagged, averaged and imaged data."""
    if config is not None:  # in the environment, so that servers, workers and programs get it, too
        os.environ["ORCA_CONF"] = str(config.expanduser().absolute())
    if show_traceback:
        os.environ["ORCA_TRACEBACK"] = "1"


def configuration() -> Config:
    """Load the configuration for a command, and say on standard error what is unwise about it.

    Raises
    ------
    ConfigError
        As `orca.config.load` does.
    """
    from orca.config import load

    config = load()
    for warning in config.warnings:
        complain("warning", warning)
    return config


def complain(kind: str, text: str) -> None:
    """Write ``orca: kind: text`` to standard error, without passwords, markup or control characters."""
    from orca.config.secret import mask

    printable = "".join(c if c.isprintable() or c in "\n\t" else "?" for c in mask(text))
    sys.stderr.write(f"orca: {kind}: {printable}\n")


def main() -> None:
    """Run the command line of this process and exit: 0 done, 1 failed, 2 wrong input, 130 interrupted."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that what was begun is cleared
    gc.set_threshold(100_000, 50, 50)  # importing sets off hundreds of collections that find nothing: 0.2 s
    atexit.register(gc.freeze)  # nor has the last one anything to find: 0.4 s with all of Prefect and Dask
    try:
        get_command(app)(prog_name="orca")
    except OrcaError as error:
        if os.environ.get("ORCA_TRACEBACK"):
            sys.stderr.write(_traceback(error))
        complain("error", str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - told to the user, and kept in full
        _unexpected(error)
        sys.exit(1)


def _unexpected(error: Exception) -> None:
    """Tell of an error that nobody foresaw in one line, and keep the rest where it can be looked up."""
    where = "shown above"
    if os.environ.get("ORCA_TRACEBACK"):
        sys.stderr.write(_traceback(error))
    else:
        try:
            with tempfile.NamedTemporaryFile("w", prefix="orca-traceback-", suffix=".txt", delete=False) as file:
                file.write(_traceback(error))
            where = f"in {file.name}, or with --traceback"
        except OSError:
            sys.stderr.write(_traceback(error))
    first_line = (str(error).strip().splitlines() or ["no message"])[0]
    complain("error", f"unexpected {type(error).__name__}: {first_line} (traceback {where})")


def _traceback(error: Exception) -> str:
    from orca.config.secret import mask

    return mask("".join(traceback.format_exception(error)))
