"""`orca run imaging`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from orca.cli import complain, configuration
from orca.cli.flow import AsJson, Verbose, near, print_json, report, run_flow, runs_here
from orca.cli.options import from_model
from orca.errors import InputError
from orca.wsclean import ImagingOptions, advice

if TYPE_CHECKING:
    from orca.cluster.gather import Outcome

MeasurementSets = Annotated[list[Path], typer.Argument(metavar="MS...", help="Measurement Sets, or tars of them.")]


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
    calibration: Annotated[
        Literal["find", "require", "none"],
        typer.Option(help="Without tables: find the best of the site's calibrations, require one, or apply none."),
    ] = "find",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the images; the configuration's tree without.")
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Make calibrated images: FITS, PNG, log and manifest of each Measurement Set.

    What is there already, made of the same files with the same options, is skipped.
    """
    from orca.process import find_program

    settings = configuration()
    if runs_here():
        find_program(settings.execs.wsclean, "execs.wsclean")
    if not any(path.exists() for path in measurement_sets):
        raise InputError("there is no such Measurement Set", measurement_sets[0], "Check the name")

    for note in advice(options):
        complain("note", note)
    arguments = {
        "measurement_sets": measurement_sets,
        "delay": delay,
        "bandpass": bandpass,
        "calibration": calibration,
        "out": out,
        "options": options,
    }
    outcomes = run_flow("flows.imaging", "imaging", arguments, settings, quiet=not verbose)
    if as_json:
        print_json(outcomes)
    else:
        columns = ("image", "status", "seconds", "noise", "peak", "picture, or why not")
        report(outcomes, columns, [_row(outcome) for outcome in outcomes], right=("seconds", "noise", "peak"))
    if not (delay or bandpass):
        _tell_calibrations(outcomes)
    if any(outcome.status == "failed" for outcome in outcomes):
        raise typer.Exit(1)


def _tell_calibrations(outcomes: Sequence[Outcome]) -> None:
    """Say which calibrations were found, each once."""
    # without how far away it is, which differs from image to image and stands in their manifests
    whys = (str(o.result.quality.get("calibration", "none")) for o in outcomes if o.result)
    told = Counter(re.sub(r" \([^)]*away[^)]*\)", "", why) for why in whys)
    for why, count in told.items():
        images = f"{count} image{'s' if count > 1 else ''}"
        if why.startswith("none"):
            reason = why.removeprefix("none").removeprefix(": ")
            complain("note", f"{images} not calibrated{f': {reason}' if reason else ''}")
        else:
            complain("note", f"{images} calibrated with the {why}")


def _row(outcome: Outcome) -> tuple[str, ...]:
    from rich.markup import escape

    made = outcome.result
    if made is None:
        return "", "", "", escape(outcome.reason)
    seconds = "" if made.skipped else f"{made.seconds:.1f}"
    noise, peak = (_first(made.quality, key) for key in (" rms_jy", " peak_jy"))
    return seconds, noise, peak, escape(str(near(made.picture)))


def _first(quality: dict[str, Any], ending: str) -> str:
    """The first number whose name ends so, in Jy/beam."""
    value = next((v for key, v in quality.items() if key.endswith(ending) and key.count(" ") == 1), None)
    return "" if value is None else f"{value:.4g}"
