"""`orca run reduction`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orca.cli import complain, configuration
from orca.cli.flow import AsJson, Day, Hours, Verbose, print_json, report, run_flow, tell_failures, tell_warnings
from orca.cli.options import from_model
from orca.errors import InputError
from orca.reduction_options import OriginalOptions, ReductionOptions

if TYPE_CHECKING:
    from orca.cluster.gather import Outcome


@from_model(options=ReductionOptions, originals=OriginalOptions)
def reduction(
    measurement_sets: Annotated[
        list[Path] | None, typer.Argument(metavar="[MS...]", help="Raw Measurement Sets, or tars of them.")
    ] = None,
    date: Day = None,
    hours: Hours = None,
    last_hours: Annotated[
        int | None, typer.Option(min=1, help="Without MS and date: so many hours that are over; 24 without.")
    ] = None,
    subbands: Annotated[
        list[str] | None,
        typer.Option("--subband", metavar="SB", help="Such as 73MHz, may be repeated; all that were recorded without."),
    ] = None,
    raw: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, metavar="DIR", help="Root of the raw data; the configuration's without."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Root of the averaged data; the configuration's without.")
    ] = None,
    *,
    options: ReductionOptions,
    originals: OriginalOptions,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Flag and average raw data, the oldest first: averaged Measurement Sets, and their flags at full resolution.

    What is there already, made of the same files with the same options, is skipped. Originals stay, unless --originals
    trash is given; then those go to the trash that no --keep option names, each after its product was read back.
    """
    _check_asked(measurement_sets, bool(date), bool(hours), bool(last_hours), bool(subbands))
    if originals.originals == "keep" and originals.keep_lst:
        complain("note", "all originals are kept; --keep-lst says which are where --originals trash is given")
    settings = configuration()
    arguments = {
        "measurement_sets": measurement_sets or None,
        "day": date.date() if date else None,
        "hours": hours or None,
        "last_hours": last_hours,
        "subbands": subbands or None,
        "raw": raw,
        "out": out,
        "options": options,
        "originals": originals,
    }
    outcomes = run_flow("flows.reduction", "reduction", arguments, settings, quiet=not verbose)
    if as_json:
        print_json(outcomes)
    else:
        columns = ("block", "status", "seconds", "sets", "flagged", "RFI", "hours left", "to trash")
        report(outcomes, columns, [_row(outcome) for outcome in outcomes], right=columns[2:])
        tell_failures(outcomes)
        _tell_cost(outcomes)
    tell_warnings(outcomes)
    if any(outcome.status == "failed" for outcome in outcomes):
        raise typer.Exit(1)


def _check_asked(
    measurement_sets: list[Path] | None, date: bool, hours: bool, last_hours: bool, subbands: bool
) -> None:
    """Refuse what contradicts itself."""
    if measurement_sets and (date or hours or last_hours or subbands):
        raise InputError("Measurement Sets and a time were given", remedy="Give either")
    if hours and not date:
        raise InputError("--hour needs a date", remedy="Give --date, or --last-hours")
    if date and last_hours:
        raise InputError("--date and --last-hours were given", remedy="Give either")
    if measurement_sets and not any(path.exists() for path in measurement_sets):
        raise InputError("there is no such Measurement Set", measurement_sets[0], "Check the name")


def _row(outcome: Outcome) -> tuple[str, ...]:
    made = outcome.result
    if made is None:
        return ("",) * 6
    quality = made.quality
    left_out = f" (-{quality['left_out']})" if quality.get("left_out") else ""
    return (
        "" if made.skipped else f"{made.seconds:.1f}",
        f"{quality['integrations']}{left_out}",
        f"{quality['flagged_share']:.1%}",
        f"{quality['rfi_share']:.2%}",
        f"{made.left_h:.1f}" if made.left_h > 0 else "past",
        f"{made.trashed}, {made.kept} kept" if made.trashed or made.kept else "",
    )


def _tell_cost(outcomes: Sequence[Outcome]) -> None:
    """How fast that was, beside what the telescope records."""
    made = [outcome.result for outcome in outcomes if outcome.result and not outcome.result.skipped]
    sets = sum(int(each.quality["integrations"]) for each in made)
    seconds = sum(each.seconds for each in made)
    if sets:
        complain(
            "note", f"{seconds / sets:.1f} s for each Measurement Set on one core; the telescope records 1.6 a second"
        )
