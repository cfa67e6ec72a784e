"""`orca flagging`: strategies that find RFI."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from orca.rfi_score import Score

app = typer.Typer(no_args_is_help=True, help="Strategies that find RFI.")


@app.callback()
def _flagging() -> None:
    """Strategies that find RFI."""


@app.command()
def score(
    strategy: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Lua script of AOFlagger; ORCA's own without.")
    ] = None,
    baselines: Annotated[int, typer.Option(min=1, help="Simulated baselines of each kind and strength.")] = 60,
    integrations: Annotated[int, typer.Option(min=1, max=360, help="Integrations that are flagged together.")] = 24,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Measure what a strategy finds: simulated baselines with RFI of known place and strength."""
    from rich.console import Console

    from orca.flagging import check_strategy
    from orca.rfi_score import score as measured

    chosen = check_strategy(strategy)
    with Console(stderr=True).status("measuring") as status:
        result = measured(
            chosen, baselines, integrations=integrations, told=lambda what: status.update(f"measuring {what}")
        )
    if as_json:
        typer.echo(json.dumps(asdict(result), indent=2))
    else:
        _show(result, chosen, integrations)


def _show(result: Score, strategy: Path, integrations: int) -> None:
    from rich.console import Console
    from rich.table import Table

    strengths = sorted({each.strength for each in result.detections})
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("RFI (found / false alarms, %)")
    for strength in strengths:
        table.add_column(f"{strength:g} x noise", justify="right")
    for linear in (False, True):
        for kind in dict.fromkeys(each.kind for each in result.detections):
            cells = [
                f"{100 * each.found:.1f} / {100 * each.false:.2f}"
                for each in result.detections
                if each.kind == kind and each.linear == linear
            ]
            table.add_row(f"{kind}{', linearly polarized' if linear else ''}", *cells)
    console = Console()
    console.print(table)
    console.print(
        f"{strategy.name}, {integrations} integrations together: {100 * result.false_alone:.2f} % of noise alone is "
        f"flagged; {result.cpu_seconds:.1f} CPU s for a Measurement Set of 352 antennas",
        highlight=False,
        soft_wrap=True,
    )
