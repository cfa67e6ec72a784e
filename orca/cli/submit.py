"""`orca submit`: what `orca run` runs here, asked for by a message; and files that were recorded."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orca.cli import complain, configuration
from orca.cli.flow import AsJson, started_by
from orca.cli.run import STAGES
from orca.errors import InputError

if TYPE_CHECKING:
    from orca.config import Config
    from orca.events.submit import Submitted

app = typer.Typer(
    no_args_is_help=True, help="Ask for a stage of the pipeline, or tell of recorded files, by a message."
)


@app.callback()
def _messages() -> None:
    """Ask for a stage of the pipeline, or tell of recorded files, by a message.

    The stages take what `orca run` takes. Their options are checked here, and their files where they run.
    """


def _by_message(stage: Callable[..., Any]) -> Callable[..., Any]:
    """The command of `orca run` that sends a message instead."""

    @functools.wraps(stage)
    def submit(**given: Any) -> None:
        with started_by(lambda *flow: _submit_flow(*flow, as_json=given["as_json"])):
            stage(**given)

    return submit


for _stage in STAGES:
    app.command(help=f"By message: {inspect.getdoc(_stage)}")(_by_message(_stage))


@app.command()
def recorded(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Raw Measurement Sets, or tars of them.")],
    time: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%dT%H:%M:%S"], help="When they were closed, in UTC; when each was last changed without."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell of files that were recorded, as `orca watch` does."""
    settings = configuration()
    from orca.events.submit import submit_recorded

    there = [path for path in paths if path.exists()]
    for path in paths:
        if path not in there:
            complain("error", f"{path}: there is no such file")
    if not there:
        raise InputError("there is nothing to tell of", remedy="Check the names")
    closed = None if time is None else time.replace(tzinfo=UTC)
    warn_of_outside(there, settings)
    _tell(submit_recorded(there, time=closed, settings=settings), as_json)
    if len(there) < len(paths):
        raise typer.Exit(1)


@app.command()
def run(
    deployment: Annotated[str, typer.Argument(help="Such as reduction-hour, or imaging/imaging.")],
    parameters: Annotated[
        list[str] | None,
        typer.Option(
            "--param", "-p", metavar="KEY=VALUE", help="Of its flow, may be repeated; the value as JSON, or text."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask for a run of any deployment. Its parameters are checked where it runs."""
    settings = configuration()
    from orca.events.submit import submit_run

    given = dict(_parameter(text) for text in parameters or [])
    _tell([submit_run(deployment, given, settings=settings)], as_json)


def _parameter(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not separator:
        raise typer.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="'-p'")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _submit_flow(_module: str, name: str, arguments: dict[str, Any], settings: Config, *, as_json: bool) -> None:
    from orca.events.submit import submit_run

    given = {key: value for key, value in arguments.items() if value is not None and not _is_default(value)}
    target = name.replace("_", "-")
    warn_of_outside(given, settings)
    _tell([submit_run(target, given, settings=settings)], as_json)


def warn_of_outside(values: Any, settings: Config) -> None:
    """Say which paths the trigger will refuse."""
    from orca.events.runs import outside

    if found := outside(values, settings):
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        roots = "the folders of raw data and products (paths.raw and others; `orca config show`)"
        complain("warning", f"{found[0]}{more}: not below {roots}: a trigger with this configuration refuses it")


def _is_default(value: Any) -> bool:
    """Whether these are options that nobody has set."""
    return hasattr(value, "model_dump") and not value.model_dump(exclude_defaults=True)


def _tell(submitted: Sequence[Submitted], as_json: bool) -> None:
    if as_json:
        rows = [{key: value for key, value in asdict(each).items() if value} for each in submitted]
        typer.echo(json.dumps(rows, indent=2))
        return
    for each in submitted:
        if each.why:
            typer.echo(f"kept {each.subject} as {each.id} in the spool, for queue {each.queue}")
        else:
            typer.echo(f"submitted {each.subject} as {each.id} to queue {each.queue}")
    if whys := dict.fromkeys(each.why for each in submitted if each.why):
        complain("warning", f"{' '.join(whys)}. What is kept is sent with the next message, or by `orca events flush`")
