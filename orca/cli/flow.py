"""Running a flow from this terminal: its session, its progress, and what is left when it is interrupted."""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from orca.cli.progress import Watcher
    from orca.cluster.gather import Outcome
    from orca.config import Config

AsJson = Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")]
Day = Annotated[datetime | None, typer.Option("--date", formats=["%Y-%m-%d"], help="Without MS: a date in UTC.")]
Hours = Annotated[
    list[int] | None,
    typer.Option("--hour", min=0, max=23, help="Hour of that date, may be repeated; all of them without."),
]
Starter = Callable[[str, str, dict[str, Any], "Config"], None]
"""Gets module, name, arguments and settings of a flow."""
_starter: ContextVar[Starter | None] = ContextVar("starter", default=None)
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show Prefect's log.")]


@contextmanager
def started_by(starter: Starter) -> Iterator[None]:
    """Have flows that are run inside this context started by something else, and the command end with that."""
    token = _starter.set(starter)
    try:
        yield
    finally:
        _starter.reset(token)


def runs_here() -> bool:
    """Whether flows run on this machine: only then it has to have the programs that they need."""
    return _starter.get() is None


def run_flow(module: str, name: str, arguments: dict[str, Any], settings: Config, *, quiet: bool) -> list[Outcome]:
    """Run a flow in this process, with the server and the cluster of the configuration, or its own.

    Parameters
    ----------
    module, name : str
        Where it is, and what it is called there.
    arguments : dict
    settings : Config
    quiet : bool
        Keep Prefect's log off the terminal.

    Returns
    -------
    list of Outcome
        Of all units, sorted by their names. Raises what ended the flow, if that is not a unit that failed.
    """
    if (starter := _starter.get()) is not None:
        starter(module, name, arguments, settings)
        raise typer.Exit
    from orca.cli.progress import watching
    from orca.cluster.session import open_session

    with watching(name.replace("_", " ")) as watcher, _cleared(settings.paths.scratch, watcher):
        with open_session(settings, preload=(module,), quiet=quiet) as session:
            flow = getattr(importlib.import_module(module), name)
            from orca.cluster.gather import listening
            from orca.cluster.warm.records import register

            def remember(_flow: Any, run: Any, _state: Any) -> None:
                """So that a reaper can tell when this process is killed."""
                register(settings.prefect.home / "runs", str(run.id))

            flow = flow.with_options(task_runner=flow.task_runner.at(session.address), on_running=[remember])
            session.wait()
            with listening(watcher), _warnings_shown(watcher if quiet else None):
                state = flow(**arguments, return_state=True)
        if session.started_server:
            watcher.note(f"The Prefect server stays for the next call: {session.ui_url} (orca down ends it)")
    if not state.is_completed() and not any(outcome.status == "failed" for outcome in watcher.outcomes):
        state.result()  # raises what ended the flow
    return sorted(watcher.outcomes, key=lambda outcome: outcome.unit)


@contextmanager
def _cleared(scratch: Path, watcher: Watcher) -> Iterator[None]:
    """When the call is interrupted, end what it left and say how to go on."""
    from orca.scratch import sweep

    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        sweep(scratch)
        done = sum(outcome.status != "failed" for outcome in watcher.outcomes)
        of_all = f" of {watcher.total}" if watcher.total else ""
        watcher.note(f"interrupted with {done}{of_all} done: the same command goes on from here")
        raise


@contextmanager
def _warnings_shown(watcher: Watcher | None) -> Iterator[None]:
    """Show what the flow itself warns of; its log as a whole stays off the terminal."""
    if watcher is None:
        yield
        return
    handler = logging.Handler(logging.WARNING)
    handler.addFilter(lambda record: record.levelno == logging.WARNING)
    handler.emit = lambda record: watcher.warn(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("prefect.flow_runs")  # what get_run_logger gives in a flow
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def report(
    outcomes: Sequence[Outcome], columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()
) -> None:
    """Print a table with a row for each outcome, its name and status first, and a line that sums up.

    Parameters
    ----------
    outcomes : sequence of Outcome
    columns : names of the columns, of which the first two are for name and status
    rows : the other cells of each outcome, as rich markup
    right : names of columns to be aligned at the right
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from orca.cli.progress import styled
    from orca.cluster.gather import summary

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", justify="right" if column in right else "left")
    for outcome, cells in zip(outcomes, rows, strict=True):
        table.add_row(escape(outcome.unit), styled(outcome.status), *cells)
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    folders = {outcome.result.manifest.parent for outcome in outcomes if outcome.result}
    where = f"; in {near(Path(os.path.commonpath(folders)))}" if folders else ""
    console.print(f"{summary(list(outcomes))}{escape(where)}", soft_wrap=True, highlight=False)


def tell_warnings(outcomes: Sequence[Outcome], of: str = "tables") -> None:
    """Say on standard error what the results warn of, each once with the units that it concerns."""
    from orca.cli import complain

    concerned: dict[str, list[str]] = {}
    for outcome in outcomes:
        for warning in outcome.result.warnings if outcome.result else ():
            concerned.setdefault(warning, []).append(outcome.unit)
    for warning, units in concerned.items():
        complain("warning", f"{units[0] if len(units) == 1 else f'{len(units)} {of}'}: {warning}")


def tell_failures(outcomes: Sequence[Outcome]) -> None:
    """Say on standard error why units failed, each reason once: they are long, and need the width of the terminal."""
    from orca.cli import complain

    concerned: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.status == "failed":
            concerned.setdefault(outcome.reason, []).append(outcome.unit)
    for reason, units in concerned.items():
        more = f" and {len(units) - 1} more" if len(units) > 1 else ""
        complain("error", f"{units[0]}{more}: {reason}")


def print_json(outcomes: Sequence[Outcome]) -> None:
    """Print all outcomes as one JSON list."""
    typer.echo(json.dumps([_plain(outcome) for outcome in outcomes], indent=2))


def near(path: Path) -> Path:
    """A path as one would type it here."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _plain(outcome: Outcome) -> dict[str, Any]:
    fields = {key: getattr(outcome, key) for key in ("unit", "status", "reason", "detail", "cause", "attempts")}
    if outcome.detail == outcome.reason:
        del fields["detail"]
    made = {} if outcome.result is None else outcome.result.model_dump(mode="json")
    return {**fields, **made}
