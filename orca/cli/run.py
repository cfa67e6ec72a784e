"""`orca run`: a stage of the pipeline on given files, from this terminal."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orca.cli import complain, configuration
from orca.cli.options import from_model
from orca.errors import InputError
from orca.wsclean import ImagingOptions, advice

if TYPE_CHECKING:
    from orca.cli.progress import Watcher
    from orca.cluster.gather import Outcome
    from orca.config import Config

app = typer.Typer(no_args_is_help=True, help="Run a stage of the pipeline on Measurement Sets.")

MeasurementSets = Annotated[list[Path], typer.Argument(metavar="MS...", help="Measurement Sets, or tars of them.")]


@app.callback()
def _stages() -> None:
    """Run a stage of the pipeline on Measurement Sets."""


@app.command()
@from_model(options=ImagingOptions)
def imaging(
    measurement_sets: MeasurementSets,
    options: ImagingOptions,
    delay: Annotated[
        Path | None, typer.Option(exists=True, metavar="TABLE", help="Delay table (K Jones) to apply.")
    ] = None,
    bandpass: Annotated[
        Path | None, typer.Option(exists=True, metavar="TABLE", help="Bandpass table (B Jones) to apply.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the images; the configuration's tree without.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show Prefect's log.")] = False,
) -> None:
    """Make calibrated images: FITS, PNG, log and manifest of each Measurement Set.

    What is there already, made of the same files with the same options, is skipped.
    """
    from orca.process import find_program

    settings = configuration()
    find_program(settings.execs.wsclean, "execs.wsclean")
    if not any(path.exists() for path in measurement_sets):
        raise InputError("there is no such Measurement Set", measurement_sets[0], "Check the name")

    notes = [] if delay or bandpass else ["no calibration tables given: the images are not calibrated"]
    for note in (*notes, *advice(options)):
        complain("note", note)
    arguments = {
        "measurement_sets": measurement_sets,
        "delay": delay,
        "bandpass": bandpass,
        "out": out,
        "options": options,
    }
    total = 1 if options.together else len(measurement_sets)
    outcomes = _run("imaging", arguments, total, settings, quiet=not verbose)
    _report(outcomes, as_json)
    if any(outcome.status == "failed" for outcome in outcomes):
        raise typer.Exit(1)


def _run(stage: str, arguments: dict[str, Any], total: int, settings: Config, *, quiet: bool) -> list[Outcome]:
    """Run the flow of a stage in this process, with the server and the cluster of the configuration, or its own."""
    from orca.cli.progress import watching
    from orca.cluster.session import open_session

    module = f"flows.{stage}"
    with watching(stage, total) as watcher, _cleared(settings.paths.scratch, watcher):
        with open_session(settings, preload=(module,), quiet=quiet) as session:
            flow = getattr(importlib.import_module(module), stage)
            from orca.cluster.gather import listening

            flow = flow.with_options(task_runner=flow.task_runner.at(session.address))
            session.wait()
            with listening(watcher):
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
        watcher.note(f"interrupted with {done} done: the same command goes on from here")
        raise


def _report(outcomes: list[Outcome], as_json: bool) -> None:
    """Print what became of each unit."""
    if as_json:
        typer.echo(json.dumps([_plain(outcome) for outcome in outcomes], indent=2))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as RichTable

    from orca.cli.progress import styled
    from orca.cluster.gather import summary

    table = RichTable(box=None, pad_edge=False, header_style="bold")
    for column in ("image", "status", "seconds", "noise", "peak", "picture, or why not"):
        table.add_column(column, overflow="fold", justify="right" if column in ("seconds", "noise", "peak") else "left")
    for outcome in outcomes:
        made = outcome.result
        if made is None:
            table.add_row(escape(outcome.unit), styled(outcome.status), "", "", "", escape(outcome.reason))
            continue
        seconds = "" if made.skipped else f"{made.seconds:.1f}"
        noise, peak = (_first(made.quality, key) for key in (" rms_jy", " peak_jy"))
        table.add_row(escape(outcome.unit), styled(outcome.status), seconds, noise, peak, escape(_near(made.picture)))
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    folders = dict.fromkeys(str(_near(outcome.result.manifest.parent)) for outcome in outcomes if outcome.result)
    console.print(f"{summary(outcomes)}{'; in ' if folders else ''}{escape(', '.join(folders))}", soft_wrap=True)


def _first(quality: dict[str, Any], ending: str) -> str:
    """The first number whose name ends so, in Jy/beam."""
    value = next((v for key, v in quality.items() if key.endswith(ending) and key.count(" ") == 1), None)
    return "" if value is None else f"{value:.4g}"


def _near(path: Path) -> str:
    """A path as one would type it here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _plain(outcome: Outcome) -> dict[str, Any]:
    fields = {key: getattr(outcome, key) for key in ("unit", "status", "reason", "detail", "cause", "attempts")}
    made = {} if outcome.result is None else outcome.result.model_dump(mode="json")
    return {**fields, **made}
