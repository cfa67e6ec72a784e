"""Commands that are imported when they are called, so that help and completion take no time."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command


class LazyCommand(TyperCommand):
    """Stands for a noun in help and completion, and knows where the real command is.

    Parameters
    ----------
    name : str
        The noun.
    target : str
        ``module`` with a `typer.Typer` called ``app``, or ``module:function`` for a function as the command.
    summary : str
        One line of help.
    """

    def __init__(self, name: str, target: str, summary: str) -> None:
        super().__init__(name=name, help=summary)
        self.target = target

    def load(self) -> Any:
        """Import the module and return the real command."""
        module, _, function = self.target.partition(":")
        found = getattr(import_module(module), function or "app")
        if not isinstance(found, typer.Typer):
            app = typer.Typer()
            app.command(self.name)(found)
            found = app
        command: Any = get_command(found)
        command.name = self.name
        # Typer takes each app for a program of its own, which offers to install its completion.
        command.params = [each for each in command.params if each.name not in ("install_completion", "show_completion")]
        return command


class LazyGroup(TyperGroup):
    """A group whose `nouns` are imported when one of them is called."""

    nouns: ClassVar[Mapping[str, tuple[str, str]]] = {}
    """Noun -> (target, one line of help); see `LazyCommand`."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for noun, (target, summary) in self.nouns.items():
            self.commands.setdefault(noun, LazyCommand(noun, target, summary))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Find the command that is called, or whose arguments are completed, and import it."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, LazyCommand) else command, rest
