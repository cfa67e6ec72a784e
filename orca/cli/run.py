"""`orca run`: a stage of the pipeline, from this terminal."""

from __future__ import annotations

import typer

from orca.cli.calibration import bandpass, calibrate, delay
from orca.cli.cosmology import cosmology
from orca.cli.imaging import imaging
from orca.cli.reduction import reduction
from orca.cli.spectrum import spectrum

STAGES = (reduction, delay, bandpass, calibrate, imaging, cosmology, spectrum)

app = typer.Typer(no_args_is_help=True, help="Run a stage of the pipeline.")
for command in STAGES:
    app.command()(command)


@app.callback()
def _stages() -> None:
    """Run a stage of the pipeline."""
