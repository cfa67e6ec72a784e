"""`orca run delay | bandpass | calibrate`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orca.calibration.options import BlockOptions, DelayOptions, SolveOptions
from orca.cli import complain, configuration
from orca.cli.flow import AsJson, Verbose, print_json, report, run_flow, tell_warnings
from orca.cli.options import from_model
from orca.skyoptions import SkyOptions

if TYPE_CHECKING:
    from orca.cluster.gather import Outcome

Day = Annotated[
    datetime | None,
    typer.Option("--date", formats=["%Y-%m-%d"], help="Date in UTC; that of the last transit of Cyg A without."),
]
Raw = Annotated[
    Path | None,
    typer.Option(
        exists=True, file_okay=False, metavar="DIR", help="Root of the raw data; the configuration's without."
    ),
]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="Root of the calibrations; the configuration's without.")]
Subbands = Annotated[
    list[str] | None,
    typer.Option("--subband", metavar="SB", help="Such as 73MHz, may be repeated; all that were recorded without."),
]
_FLOWS = "flows.bandpass"


@from_model(sky=SkyOptions, solve=SolveOptions, options=DelayOptions)
def delay(
    date: Day = None,
    raw: Raw = None,
    out: Out = None,
    *,
    sky: SkyOptions,
    solve: SolveOptions,
    options: DelayOptions,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Find the delays of all antennas from one integration of many subbands at the transit of Cyg A.

    Writes a table (K Jones) that CASA takes as well, and a report as PDF, PNG and JSON.
    """
    arguments = {"sky": sky, "solve": solve, "options": options}
    _calibrate("delay", arguments, date, raw, out, as_json, verbose)


@from_model(sky=SkyOptions, solve=SolveOptions, block=BlockOptions)
def bandpass(
    date: Day = None,
    subbands: Subbands = None,
    hours: Annotated[
        list[int] | None,
        typer.Option("--hour", min=0, max=23, help="Hour in UTC, may be repeated; the transit of Cyg A without."),
    ] = None,
    use_delay: Annotated[
        bool, typer.Option("--use-delay/--no-delay", help="Apply the delays of the day first, or the last good ones.")
    ] = True,
    raw: Raw = None,
    out: Out = None,
    *,
    sky: SkyOptions,
    solve: SolveOptions,
    block: BlockOptions,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Solve for the bandpass of each subband, from a block of integrations.

    Writes tables (B Jones) that CASA takes as well, and a report of each as PDF, PNG and JSON.
    """
    arguments = {"sky": sky, "solve": solve, "block": block, "use_delay": use_delay}
    arguments |= {"subbands": subbands or None, "hours": hours or None}
    _calibrate("bandpass", arguments, date, raw, out, as_json, verbose)


@from_model(exclude=("subbands",), sky=SkyOptions, solve=SolveOptions, block=BlockOptions, delay_options=DelayOptions)
def calibrate(
    date: Day = None,
    subbands: Subbands = None,
    raw: Raw = None,
    out: Out = None,
    *,
    sky: SkyOptions,
    solve: SolveOptions,
    block: BlockOptions,
    delay_options: DelayOptions,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Calibrate a day at the transit of Cyg A, as it is done every night: delays, then all bandpasses.

    The tables are those that `orca run imaging` finds by itself.
    """
    arguments = {"sky": sky, "solve": solve, "block": block, "delay_options": delay_options}
    _calibrate("nightly_calibration", arguments | {"subbands": subbands or None}, date, raw, out, as_json, verbose)


def _calibrate(
    name: str,
    arguments: dict[str, Any],
    date: datetime | None,
    raw: Path | None,
    out: Path | None,
    as_json: bool,
    verbose: bool,
) -> None:
    settings = configuration()
    arguments |= {"day": date.date() if date else None, "raw": raw, "out": out}
    outcomes = run_flow(_FLOWS, name, arguments, settings, quiet=not verbose)
    if as_json:
        print_json(outcomes)
    else:
        columns = ("calibration", "status", "seconds", "sets", "flagged", "refant", "warnings")
        right = ("seconds", "sets", "flagged", "warnings")
        report(outcomes, columns, [_row(outcome) for outcome in outcomes], right=right)
        for outcome in outcomes:  # below the table: they are long, and need the width of the terminal
            if outcome.status == "failed":
                complain("error", f"{outcome.unit}: {outcome.reason}")
    tell_warnings(outcomes)
    if any(outcome.status == "failed" for outcome in outcomes):
        raise typer.Exit(1)


def _row(outcome: Outcome) -> tuple[str, ...]:
    from rich.markup import escape

    made = outcome.result
    if made is None:
        return ("",) * 5
    quality = made.quality
    flagged = quality.get("flagged_share")
    return (
        "" if made.skipped else f"{made.seconds:.1f}",
        str(quality.get("n_subbands") or quality.get("n_integrations", "")),
        "" if flagged is None else f"{flagged:.1%}",
        escape(str(quality.get("reference_antenna", ""))),
        str(len(made.warnings) or ""),
    )
