"""`orca trigger`: takes messages, and has Prefect run what they ask for."""

from __future__ import annotations

import json
import logging
import signal
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orca.cli import complain, configuration
from orca.errors import InfrastructureError

if TYPE_CHECKING:
    from orca.config import Config
    from orca.events.rules import Rules


def trigger(
    rules: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            metavar="FILE",
            help="A triggers.yaml; without it $ORCA_TRIGGERS, the one beside orca-conf.yml, or ORCA's own.",
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Only show the rules, and ask Prefect whether it knows what they ask for."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --check: print as JSON.")] = False,
) -> None:
    """Take messages from the queues, and have Prefect run what they ask for, until it is ended.

    Files that were recorded gather into blocks, by the rules. A message is acknowledged when its flow run exists; what
    nobody can work with goes to the dead letters, with the reason. A second trigger stands by.
    """
    settings = configuration()
    from orca.events.rules import load_rules

    wanted = load_rules(rules)
    if check:
        _check(wanted, settings, as_json=as_json)
        return
    from orca.events.journal import Journal
    from orca.events.runs import FlowRuns
    from orca.events.state import TriggerState, trigger_folder
    from orca.events.trigger import Trigger

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING, force=True)
    logging.getLogger("orca.trigger").setLevel(logging.INFO)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    folder = trigger_folder(settings)
    state = TriggerState(folder / "state.json")
    with closing(Journal(folder / "journal.sqlite")) as journal:
        working = Trigger(settings, wanted, journal, FlowRuns(settings), state, lambda: load_rules(rules))
        working.run(ended.is_set)


def _check(rules: Rules, settings: Config, *, as_json: bool) -> None:
    from orca.events.rules import refused
    from orca.events.runs import FlowRuns

    wrong, unknown = {}, ""
    try:
        wrong = refused(rules, FlowRuns(settings))
    except InfrastructureError as error:
        unknown = str(error)
    if as_json:
        typer.echo(json.dumps({"rules": rules.model_dump(mode="json"), "refused": wrong, "unknown": unknown}, indent=2))
    else:
        _show(rules.model_dump(mode="json"))
    if unknown:
        complain("warning", f"deployments and parameters were not checked: {unknown}")
    for name, why in wrong.items():
        complain("error", f"rule {name}: {why}")
    if wrong:
        raise typer.Exit(2)


def _show(rules: dict[str, list[dict[str, object]]]) -> None:
    for kind, found in rules.items():
        for rule in found:
            said = {key: value for key, value in rule.items() if key != "name" and value not in (None, {})}
            told = ", ".join(f"{key} {value}" for key, value in said.items())
            typer.echo(f"{kind}: {rule['name']}: {told}")
