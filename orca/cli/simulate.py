"""`orca simulate`: Measurement Sets as the recorder writes them, with a known sky."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from orca.errors import InputError

app = typer.Typer()
FORMATS = ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d"]


@app.command()
def simulate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Root of the raw data to write; made if missing.")],
    subband: Annotated[
        list[str], typer.Option("--subband", "-s", metavar="NAME", help="Such as 73MHz; repeat it, or say all.")
    ] = ["73MHz"],  # noqa: B006 - typer copies it
    start: Annotated[
        datetime, typer.Option(formats=FORMATS, metavar="TIME", help="Start of the first integration, UTC.")
    ] = datetime(2026, 1, 10, 18),
    integrations: Annotated[int, typer.Option(min=1, help="Consecutive integrations of 10.031 s.")] = 1,
    antennas: Annotated[int, typer.Option(min=4, max=352, help="Antennas of the array.")] = 352,
    channels: Annotated[int, typer.Option(min=1, max=192, help="Channels, from the subband's first.")] = 192,
    tar: Annotated[bool, typer.Option("--tar", help="Pack each into a .ms.tar.")] = False,
    rfi: Annotated[int, typer.Option(min=0, metavar="N", help="Narrow lines of interference in a subband.")] = 0,
    dead_antenna: Annotated[
        list[int] | None, typer.Option(metavar="NUMBER", help="Antenna that hears nothing, from 0; repeat it.")
    ] = None,
    dead_polarization: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Such as 12X: X of antenna 12 hears nothing; repeat it.")
    ] = None,
    dead_subband: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Subband to record as zeros; repeat it.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of gains, noise and interference.")] = 0,
    noise: Annotated[bool, typer.Option("--noise/--no-noise", help="Noise of the telescope's level.")] = True,
    gains: Annotated[bool, typer.Option("--gains/--no-gains", help="A bandpass and a delay for each antenna.")] = True,
    beam: Annotated[
        bool, typer.Option("--beam/--no-beam", help="Weaken sources by the pattern of the dipoles.")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the paths as JSON.")] = False,
) -> None:
    """Write Measurement Sets below DIR as the recorder does, with a known sky.

    What is true, gains and sources, is written beside them into DIR/truth, the gains also as CASA tables of bandpass
    and delay.
    """
    from pydantic import ValidationError

    from orca import telescope
    from orca.ms.simulate import SimulationOptions
    from orca.ms.simulate import simulate as run
    from orca.ms.truth import truth_paths

    names = [band.name for band in telescope.SUBBANDS] if "all" in subband else subband
    try:
        options = SimulationOptions(
            subbands=tuple(names),
            start=start,
            integrations=integrations,
            antennas=antennas,
            channels=channels,
            gains=gains,
            noise=float(noise),
            beam=beam,
            rfi=rfi,
            dead_antennas=tuple(dead_antenna or ()),
            dead_polarizations=tuple(dead_polarization or ()),
            dead_subbands=tuple(dead_subband or ()),
            seed=seed,
            tar=tar,
        )
    except ValidationError as error:
        raise InputError(error.errors()[0]["msg"].removeprefix("Value error, "), remedy="See --help.") from error
    with _bar() as progress:
        paths = run(folder, options, progress, force=force)
    truth = {name: truth_paths(folder, name) for name in options.subbands}
    if as_json:
        gains_of = {name: {"delay": str(t.delay), "bandpass": str(t.bandpass)} for name, t in truth.items()}
        typer.echo(json.dumps({"measurement_sets": [str(path) for path in paths], "truth": gains_of}, indent=2))
    else:
        _report(paths, truth)


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error, if that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(file=sys.stderr)
    columns = (TextColumn("simulating"), BarColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _report(paths: list[Path], truth: dict[str, Any]) -> None:
    """Say what was written, and where the tables are that calibrate it."""
    for path in paths:
        typer.echo(str(path))
    for name, files in truth.items():
        typer.echo(f"true gains of {name}: --delay {files.delay} --bandpass {files.bandpass}")
