"""`orca show PRODUCT`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orca.cli.changes import AsJson
from orca.disk import readable

if TYPE_CHECKING:
    from orca.manifest import Manifest
    from orca.provenance import Provenance, Seen


def show(
    product: Annotated[Path, typer.Argument(metavar="PRODUCT", help="Any of its files, or its manifest.")],
    as_json: AsJson = False,
) -> None:
    """Show what a product was made of, by what, when, and at what cost.

    The exit status is 1 when a file of it is gone or has changed since.
    """
    from orca.provenance import trace

    found = trace(product)
    if as_json:
        typer.echo(json.dumps(_plain(found), indent=2))
    else:
        for line in _lines(found):
            typer.echo(line)
    if not found.whole:
        raise typer.Exit(1)


def _plain(found: Provenance) -> dict[str, Any]:
    """The manifest as it is, and what was seen of its files."""
    files = {name: [_entry(each) for each in getattr(found, name)] for name in ("inputs", "outputs")}
    told = {"path": str(found.path), "whole": found.whole, "tables": [str(table) for table in found.tables]}
    return {"manifest": json.loads(found.manifest.text()), **told, **files}


def _entry(seen: Seen) -> dict[str, Any]:
    return {"path": str(seen.path), "state": seen.state, "size": seen.size}


def _lines(found: Provenance) -> Iterable[str]:
    from orca.block_record import numbers_of

    made = found.manifest
    yield f"{made.kind} {made.product}{'' if found.whole else ': NOT WHOLE, see its files'}"
    yield from _fields({"manifest": found.path, "made": _when(made), "took": _cost(made), "by": _software(made)})
    yield from _files("inputs", found.inputs)
    if found.tables:
        yield "calibration tables"
        yield from (f"  {table}" for table in found.tables)
    yield from _files("outputs", found.outputs)
    for program in made.programs:
        yield f"program, exit status {program['exit_code']} after {_number(program['seconds'])} s"
        yield f"  {shlex.join(map(str, _sequence(program['argv'])))}"
    for title, values in (("options", made.options), ("numbers", numbers_of(made))):
        if values:
            yield title
            yield from _fields(values, "  ")


def _fields(values: Mapping[str, Any], indent: str = "") -> Iterable[str]:
    width = max(map(len, values))
    return (f"{indent}{name:{width}}  {_number(value)}" for name, value in values.items())


def _files(title: str, files: Iterable[Seen]) -> Iterable[str]:
    files = list(files)
    if files:
        yield f"{title}: {len(files)}, {readable(sum(each.size for each in files))}"
        yield from (f"  {each.state:9}  {readable(each.size):>10}  {each.path}" for each in files)


def _when(made: Manifest) -> str:
    ended = datetime.fromisoformat(made.finished).astimezone(UTC)
    return f"{ended:%Y-%m-%d %H:%M:%S} UT on {made.host}"


def _cost(made: Manifest) -> str:
    used = f"{made.seconds:.1f} s, {made.cpu_seconds:.1f} CPU s, {readable(made.peak_memory_bytes)} of memory"
    return f"{used}; read {readable(made.read_bytes)}"


def _software(made: Manifest) -> str:
    return ", ".join(f"{name} {version}" for name, version in made.software.items())


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value) if isinstance(value, dict | list | bool) or value is None else str(value)


def _sequence(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
