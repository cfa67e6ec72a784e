"""`orca run spectrum`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orca.cli import complain, configuration
from orca.cli.flow import AsJson, Day, Hours, Verbose, print_json, report, run_flow, tell_failures, tell_warnings
from orca.cli.options import from_model
from orca.errors import InputError
from orca.spectrum_options import SpectrumOptions

if TYPE_CHECKING:
    from orca.cluster.gather import Outcome


class Data(StrEnum):
    """What is taken of a date."""

    raw = "raw"
    averaged = "averaged"


@from_model(options=SpectrumOptions)
def spectrum(
    measurement_sets: Annotated[
        list[Path] | None, typer.Argument(metavar="[MS...]", help="Raw or averaged Measurement Sets, or tars of them.")
    ] = None,
    date: Day = None,
    hours: Hours = None,
    subbands: Annotated[
        list[str] | None,
        typer.Option("--subband", metavar="SB", help="Such as 73MHz, may be repeated; all that are there without."),
    ] = None,
    data: Annotated[Data, typer.Option("--data", help="What to take of that date.")] = Data.raw,
    root: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, metavar="DIR", help="Root of these; the configuration's without."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Root of the dynamic spectra; the configuration's without.")
    ] = None,
    average: Annotated[
        int | None, typer.Option(min=1, help="Recorded channels in one channel of the data; looked up without.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Make again what is there already, as after a new calibration.")
    ] = False,
    *,
    options: SpectrumOptions,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Dynamic spectra of a date, or of Measurement Sets: a FITS file and a picture of each spectrum and polarization.

    The spectra of each Measurement Set go through the cache (see orca cache). What is there already, in the cache or in
    the files of that date, is not made again.
    """
    _check_asked(measurement_sets, bool(date), bool(hours), bool(subbands), root)
    if options.towards and options.calibrate == "none":
        more = "say --calibrate find, unless these data are calibrated already"
        complain("warning", f"Stokes I and V towards {options.towards} mean nothing without calibration: {more}")
    arguments = {
        "measurement_sets": measurement_sets or None,
        "day": date.date() if date else None,
        "hours": hours or None,
        "subbands": subbands or None,
        "data": data.value,
        "root": root,
        "out": out,
        "average": average,
        "again": again,
        "options": options,
    }
    outcomes = run_flow("flows.spectrum", "spectrum", arguments, configuration(), quiet=not verbose)
    if as_json:
        print_json(outcomes)
    else:
        products = [outcome for outcome in outcomes if _is_product(outcome) or outcome.status == "failed"]
        columns = ("product", "status", "seconds", "integrations", "new", "as before", "again", "lost", "dead")
        report(products, columns, [_row(outcome) for outcome in products], right=columns[2:])
        _tell_batches([outcome for outcome in outcomes if not _is_product(outcome)])
        tell_failures(outcomes)
    tell_warnings(outcomes, "parts")
    unusable = [outcome for outcome in outcomes if not _is_product(outcome) and outcome.result]
    named_in_vain = bool(measurement_sets) and any(outcome.result.left_out for outcome in unusable)
    if named_in_vain or any(outcome.status == "failed" for outcome in outcomes):
        raise typer.Exit(1)


def _check_asked(
    measurement_sets: list[Path] | None, date: bool, hours: bool, subbands: bool, root: Path | None
) -> None:
    """Refuse what contradicts itself."""
    if measurement_sets and (date or hours or subbands or root):
        raise InputError("Measurement Sets and a date were given", remedy="Give either")
    if not measurement_sets and not date:
        raise InputError(
            "neither Measurement Sets nor a date were given", remedy="Give either, such as --date 2026-01-10"
        )
    if measurement_sets and not any(path.exists() for path in measurement_sets):
        raise InputError("there is no such Measurement Set", measurement_sets[0], "Check the name")


def _is_product(outcome: Outcome) -> bool:
    return outcome.unit.startswith("dynamic spectrum ")


def _row(outcome: Outcome) -> tuple[str, ...]:
    made = outcome.result
    if made is None:
        return ("",) * 7
    tally = made.tally
    return (
        "" if made.skipped else f"{made.seconds:.1f}",
        str(made.n_times),
        str(tally["cache"] + tally["spill"]),
        str(tally["product"]),
        str(tally["recomputed"]),
        str(tally["missing"]),
        str(tally["dead"]),
    )


def _tell_batches(outcomes: Sequence[Outcome]) -> None:
    """What the spectra of single Measurement Sets took."""
    made = [outcome.result for outcome in outcomes if outcome.result]
    sets = sum(each.sets for each in made)
    if sets:
        cpu_s = sum(each.cpu_seconds for each in made) / sets
        complain(
            "note",
            f"spectra of {sets} Measurement Sets were made, {cpu_s:.2f} CPU s each; the telescope records 1.6 a second",
        )
