"""`orca run cosmology`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orca.cli import configuration
from orca.cli.flow import AsJson, Verbose, near, print_json, report, run_flow
from orca.cli.imaging import MeasurementSets
from orca.cli.options import from_model
from orca.split_options import SplitOptions

if TYPE_CHECKING:
    from orca.cluster.gather import Outcome


@from_model(options=SplitOptions)
def cosmology(
    measurement_sets: MeasurementSets,
    options: SplitOptions,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the products; the configuration's tree without.")
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Keep XX and YY alone: a Measurement Set and a manifest of each Measurement Set.

    What is there already, made of the same file with the same options, is skipped.
    """
    arguments = {"measurement_sets": measurement_sets, "out": out, "options": options}
    outcomes = run_flow("flows.cosmology", "cosmology", arguments, configuration(), quiet=not verbose)
    if as_json:
        print_json(outcomes)
    else:
        columns = ("product", "status", "seconds", "channels", "flagged", "note")
        report(outcomes, columns, [_row(outcome) for outcome in outcomes], right=("seconds", "channels", "flagged"))
    if any(outcome.status == "failed" for outcome in outcomes):
        raise typer.Exit(1)


def _row(outcome: Outcome) -> tuple[str, ...]:
    from rich.markup import escape

    made = outcome.result
    if made is None:
        return "", "", "", escape(outcome.reason)
    seconds = "" if made.skipped else f"{made.seconds:.1f}"
    told = f"{near(made.product)}{f': {made.note}' if made.note else ''}"
    return seconds, str(made.quality.get("n_channels", "")), f"{made.quality['flagged_share']:.1%}", escape(told)
