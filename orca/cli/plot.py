"""Pictures of products: `orca plot spectrum`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from orca.errors import InputError

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Draw products as pictures.")


@app.callback()
def _nouns() -> None:
    """Draw products as pictures."""


@app.command()
def spectrum(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="FITS file that `orca run spectrum` made.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="PNG", help="Where to; beside the file when not given.")
    ] = None,
    scale: Annotated[
        Literal["auto", "log", "linear", "ratio"],
        typer.Option(help="Of the colours; ratio: to the median of each channel, which shows bursts."),
    ] = "auto",
    percentiles: Annotated[tuple[float, float], typer.Option(metavar="LOW HIGH", help="Ends of the colour range.")] = (
        1.0,
        99.5,
    ),
) -> None:
    """Draw a dynamic spectrum: time to the right, frequency upwards, and where nothing is."""
    low, high = percentiles
    if not 0 <= low < high <= 100:
        raise InputError(
            f"{low:g} and {high:g} are no percentiles", remedy="Give two from 0 to 100, the lower one first"
        )
    from orca.disk import remove, storage_errors
    from orca.dynspec.waterfall import draw_waterfall
    from orca.scratch import owner_token, part_path

    target = out or file.with_suffix(".png")
    if target.is_dir():
        target = target / file.with_suffix(".png").name
    if target.suffix.lower() != ".png":
        raise InputError("is no name of a picture", target, "Give one that ends in .png")
    part = part_path(target, owner_token(), "png")
    try:
        with storage_errors(target):
            draw_waterfall(file, part, scale=scale, percentiles=percentiles)
            part.replace(target)
    finally:
        remove(part)
    typer.echo(target)
