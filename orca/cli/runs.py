"""Flow runs: `orca runs ls | show | log`."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from orca.cli import configuration
from orca.cli.changes import AsJson, print_table

if TYPE_CHECKING:
    from orca.cluster.flow_runs import FlowRun

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Show flow runs: what became of them, and what they said."
)


class State(StrEnum):
    """What is listed."""

    waiting = "waiting"
    running = "running"
    done = "done"
    failed = "failed"
    cancelled = "cancelled"


Run = Annotated[str, typer.Argument(metavar="RUN", help="Its name, its id, or four characters or more of that.")]


@app.command("ls")
def list_runs(
    states: Annotated[
        list[State] | None, typer.Option("--state", help="Only such, may be repeated; all of them without.")
    ] = None,
    flow: Annotated[str | None, typer.Option(metavar="NAME", help="Only of that flow, such as imaging.")] = None,
    since_h: Annotated[
        float, typer.Option("--hours", min=0, metavar="H", help="Only of the last hours; those that wait besides.")
    ] = 24.0,
    limit: Annotated[int, typer.Option(min=1, max=5000, help="So many at most, the latest.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Show the latest flow runs, the latest first."""
    from orca.cluster.flow_runs import FlowRunBook

    words = tuple(dict.fromkeys(state.value for state in states or ()))
    found = FlowRunBook(configuration()).latest(limit, states=words, flow=flow, since_h=since_h)
    if as_json:
        typer.echo(json.dumps([asdict(run) for run in found], indent=2))
    elif not found:
        typer.echo(f"no such flow runs in the last {since_h:g} h")
    else:
        print_table(["id", "flow", "name", "state", "begin (UT)", "took", "what it says"], [_row(run) for run in found])
        if len(found) == limit:
            typer.echo(f"the latest {limit}; see --limit")


@app.command()
def show(run: Run, as_json: AsJson = False) -> None:
    """Show a flow run: its state and why, its times and parameters."""
    from orca.cluster.flow_runs import FlowRunBook

    found = FlowRunBook(configuration()).find(run)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
        return
    for name, value in asdict(found).items():
        text = json.dumps(value, indent=2) if isinstance(value, dict) else ", ".join(value) if name == "tags" else value
        typer.echo(f"{name:10} {'' if text is None else text}")


@app.command()
def log(
    run: Run,
    debug: Annotated[bool, typer.Option("--debug", help="Everything, however small.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print what a flow run and its tasks have logged."""
    from orca.cluster.flow_runs import FlowRunBook

    book = FlowRunBook(configuration())
    entries = book.log(book.find(run), 10 if debug else 20)
    if as_json:
        rows = [{"time": time, "level": level, "text": text} for time, level, text in entries]
        typer.echo(json.dumps(rows, indent=2))
        return
    for time, level, text in entries:
        typer.echo(f"{_moment(time, '%H:%M:%S')} {level:8} {_printable(text)}")


def _row(run: FlowRun) -> list[str]:
    took = f"{run.seconds:.0f} s" if run.seconds else ""
    message = _printable(run.message.strip().split("\n")[0])
    return [run.id[:8], run.flow, run.name, run.state, _moment(run.start, "%Y-%m-%d %H:%M"), took, message[:200]]


def _moment(text: str | None, form: str) -> str:
    return "" if text is None else f"{datetime.fromisoformat(text).astimezone(UTC):{form}}"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)
