"""`orca doctor`: everything that ORCA needs, what is wrong with it, and how to mend it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from orca.cli.changes import AsJson

if TYPE_CHECKING:
    from rich.console import Console

    from orca.cluster.doctor.finding import Check, Finding, Level

WIDE = 160
"""Columns where there is no terminal, as in tables."""
STYLES = {"ok": "dim", "note": "cyan", "warning": "yellow", "error": "bold red"}
_INDENT = 10


def doctor(
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="SECTION", help="Only this section; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Examine configuration, programs, services, disks, clock and rights; say what is wrong and what to do.

    Nothing is changed; 64 MB are written to scratch for a moment. It takes 20 s at most, whatever does not answer.

    The exit status is 1 if there is an error.
    """
    from orca.cluster.doctor.all_checks import plan
    from orca.cluster.doctor.finding import LEVELS, SECTIONS, examine

    if unknown := [name for name in only or () if name not in SECTIONS]:
        raise typer.BadParameter(f"{unknown[0]}: there are {', '.join(SECTIONS)}", param_hint="'--only'")
    began = time.monotonic()
    with _progress() as tell:
        findings, ended = examine(plan(only or SECTIONS), tell)
    findings.sort(key=lambda finding: SECTIONS.index(finding.section))  # stable: else as the checks come
    counts = {level: sum(finding.level == level for finding in findings) for level in LEVELS}
    seconds = time.monotonic() - began
    if as_json:
        told = {"findings": [asdict(finding) for finding in findings], "counts": counts, "seconds": round(seconds, 2)}
        typer.echo(json.dumps(told, indent=2))
    else:
        _print(findings)
        _summary(counts, seconds)
    sys.stdout.flush()
    sys.stderr.flush()
    status = 1 if counts["error"] else 0
    if not ended:  # threads that hang would be waited for, or hold up the end of the interpreter
        os._exit(status)
    raise typer.Exit(status)


@contextmanager
def _progress() -> Iterator[Callable[[Sequence[Check]], None]]:
    """A line on the terminal that names what is still examined; nothing elsewhere."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield lambda unfinished: None
        return
    with console.status("reading the configuration") as line:

        def tell(unfinished: Sequence[Check]) -> None:
            names = ", ".join(dict.fromkeys(check.section for check in unfinished))
            text = f"examining {names}"
            line.update(text if len(text) < console.width - 4 else f"{text[: console.width - 5]}…")

        yield tell


def _print(findings: Sequence[Finding]) -> None:
    """A heading for each section, a line for each finding, and its remedy beneath."""
    from rich.console import Console
    from rich.text import Text

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDE
    console = Console(width=width, highlight=False)
    section = ""
    for finding in findings:
        if finding.section != section:
            section = finding.section
            console.print(Text(section, style="bold"))
        _line(console, finding)


def _line(console: Console, finding: Finding) -> None:
    from rich.text import Text

    style = STYLES[finding.level]
    text = f"{finding.name}: {finding.seen}"
    if finding.level == "ok":  # short: whoever wants all of it takes --json
        line = Text(f"  {'ok':<{_INDENT - 2}}{text}", style=style)
        line.truncate(console.width, overflow="ellipsis")
        console.print(line, no_wrap=True, overflow="ellipsis")
        return
    room = max(20, console.width - _INDENT)
    for number, row in enumerate(Text(text).wrap(console, room)):
        row.rstrip()
        console.print(Text(f"  {finding.level if number == 0 else '':<{_INDENT - 2}}", style=style) + row)
    if finding.remedy:
        for row in Text(f"> {finding.remedy}", style="" if finding.level == "note" else "bold").wrap(console, room):
            row.rstrip()
            console.print(Text(" " * _INDENT) + row)


def _summary(counts: Mapping[Level, int], seconds: float) -> None:
    from orca.cluster.doctor.finding import LEVELS

    parts = [
        f"{counts[level]} {level if counts[level] == 1 or level == 'ok' else f'{level}s'}"
        for level in reversed(LEVELS)
        if counts[level]
    ]
    verdict = "something is broken" if counts["error"] else "nothing is broken"
    typer.echo(f"{verdict}: {', '.join(parts)} ({seconds:.1f} s)")
