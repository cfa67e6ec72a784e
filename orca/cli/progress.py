"""Progress of a flow on the terminal: a bar for all units, and a line for each that runs, with its step."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

if TYPE_CHECKING:
    from orca.cluster.gather import Event, Outcome

_WIDE = 100
"""Columns of a terminal that has room for long bars."""
STYLES = {"done": "green", "skipped": "cyan", "failed": "red"}


class _Count(MofNCompleteColumn):
    """3/8, and nothing where it is not known of how many."""

    def render(self, task: Task) -> Text:
        return Text("") if task.total is None else super().render(task)


class Watcher:
    """Listens to a flow's events, shows them, and keeps the outcomes."""

    def __init__(self, progress: Progress, title: str) -> None:
        self.outcomes: list[Outcome] = []
        self._progress = progress
        self.total = 0
        self._all = progress.add_task(title, total=None, step="starting Prefect and Dask")
        self._units: dict[str, TaskID] = {}

    def __call__(self, event: Event) -> None:
        """Take note of an event (from any thread)."""
        if event.planned:
            self.total += event.planned
            self._progress.update(self._all, total=self.total)
            return
        if not event.unit:  # about all of them, such as that no worker has a slot for them
            self._progress.update(self._all, step=event.step)
            if event.step and not self._progress.console.is_terminal:
                self.note(event.step)
            return
        if event.outcome is None:
            if event.unit not in self._units:
                self._units[event.unit] = self._progress.add_task(f"  {event.unit}", total=None, step="")
            self._progress.update(self._units[event.unit], step=event.step)
            self._progress.update(self._all, step="")
            return
        self.outcomes.append(event.outcome)
        if event.unit in self._units:
            self._progress.remove_task(self._units.pop(event.unit))
        self._progress.update(self._all, advance=1, step="")
        if not self._progress.console.is_terminal:
            self._progress.console.print(
                f"{event.unit}: {event.outcome.status}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True, style="dim")

    def warn(self, text: str) -> None:
        """Print a warning above the bar."""
        self._progress.console.print(f"orca: warning: {text}", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def watching(title: str) -> Iterator[Watcher]:
    """Show a flow's progress on standard error while the context lasts."""
    console = Console(file=sys.stderr, highlight=False)
    columns = (
        TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis")),
        BarColumn(bar_width=24 if console.width >= _WIDE else 8),
        _Count(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[step]}", style="dim", table_column=Column(no_wrap=True, overflow="ellipsis")),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Watcher(progress, title)


def styled(status: str) -> str:
    """A status as rich markup in its colour."""
    return f"[{STYLES.get(status, 'default')}]{escape(status)}[/]"
