"""The Dask workers of the cluster: `orca workers ls | ping | drain | resume | restart | stop`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orca.cli import configuration

if TYPE_CHECKING:
    from orca.cluster.nodes.node import Order
    from orca.cluster.nodes.workers import WorkerInfo

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Show, drain, restart and stop the Dask workers of the cluster."
)

Host = Annotated[str | None, typer.Option("--host", metavar="HOST", help="Only the workers of this node.")]
PoolOption = Annotated[str | None, typer.Option("--pool", metavar="POOL", help="Only those with slots of this pool.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
Now = Annotated[bool, typer.Option("--now", help="Do not wait for tasks that run: they begin again elsewhere.")]


@app.command()
def ls(host: Host = None, pool: PoolOption = None, as_json: AsJson = False) -> None:
    """Show each worker process: what it takes, what it does and since when, and how busy its node is."""
    from orca.cluster.nodes.workers import list_workers

    with _client() as client:
        workers = list_workers(client, host, pool)
    if as_json:
        typer.echo(json.dumps([asdict(worker) for worker in workers], indent=2))
    else:
        _print_table(workers)


@app.command()
def ping(
    host: Host = None,
    pool: PoolOption = None,
    patience: Annotated[float, typer.Option("--patience", metavar="SECONDS", min=0.1, help="Wait so long.")] = 5.0,
    as_json: AsJson = False,
) -> None:
    """See which workers answer; exit status 1 if one does not."""
    from orca.cluster.nodes import workers

    with _client() as client:
        chosen = workers.select(client, host, pool)
        answers = workers.ping(client, chosen, patience)
    if as_json:
        typer.echo(json.dumps(answers))
    else:
        for name, seconds in answers.items():
            typer.echo(f"{name}: {'no answer' if seconds is None else f'{1000 * seconds:.0f} ms'}")
    if None in answers.values():
        raise typer.Exit(1)


@app.command()
def drain(host: Host = None, pool: PoolOption = None) -> None:
    """Have workers finish what they run and take nothing new, until `orca workers resume`."""
    _order("drain", host, pool, "drained")


@app.command()
def resume(host: Host = None, pool: PoolOption = None) -> None:
    """Have drained workers take tasks again."""
    _order("work", host, pool, "told to go on")


@app.command()
def restart(host: Host = None, pool: PoolOption = None, now: Now = False) -> None:
    """Replace worker processes, each when it has finished what it runs."""
    _order("restart", host, pool, "replaced", now=now)


@app.command()
def stop(host: Host = None, pool: PoolOption = None, now: Now = False) -> None:
    """End workers, each when it has finished what it runs."""
    _order("stop", host, pool, "ended", now=now)


@contextmanager
def _client() -> Iterator[Any]:
    """A client of the cluster's Dask scheduler."""
    settings = configuration()
    from orca.cluster.nodes.workers import connected

    with connected(settings) as client:
        yield client


def _order(order: Order, host: str | None, pool: str | None, done: str, *, now: bool = False) -> None:
    from orca.cluster.nodes import workers

    with _client() as client:
        chosen = workers.select(client, host, pool)
        workers.tell(client, order, chosen, now=now)
        workers.wait_for(client, order, chosen, _tell_of)
    typer.echo(f"{done}: {', '.join(worker.name for worker in chosen)}")


def _tell_of(waiting: list[WorkerInfo]) -> None:
    for worker in waiting:
        for task in worker.running:
            typer.echo(
                f"waiting for {worker.name}: {_task(task.task, task.unit, task.step)}, {_age(task.since)}", err=True
            )


def _print_table(workers: Sequence[WorkerInfo]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("worker", "pools", "state", "tasks", "memory", "heard", "load", "free", "runs"):
        table.add_column(column, overflow="fold", justify="right" if column in ("tasks", "memory", "load") else "left")
    for worker in workers:
        load = worker.load
        table.add_row(
            escape(worker.name),
            escape(" ".join(worker.pools)),
            escape(f"{worker.status}: {worker.reason}" if worker.reason else worker.status),
            str(worker.begun),
            f"{worker.memory_gb:.1f} GB",
            f"{worker.heard_s:.0f} s ago",
            f"{load.per_core:.2f}" if load else "",
            f"{load.free_memory_gb:.0f} GB memory, {load.free_scratch_gb:.0f} GB scratch" if load else "",
            escape("; ".join(f"{_task(t.task, t.unit, t.step)}, {_age(t.since)}" for t in worker.running)),
        )
    console = Console()
    console.print(table, soft_wrap=not console.is_terminal)
    busy = sum(bool(worker.running) for worker in workers)
    taking = sum(worker.status == "running" for worker in workers)
    console.print(f"{len(workers)} workers, {taking} take tasks, {busy} run one", highlight=False)


def _task(key: str, unit: str, step: str) -> str:
    """``image 20260110_180000_73MHz (imaging)``: the name of the task, and what it told."""
    name = key[:-37] if len(key) > 37 and key[-37] == "-" else key  # a task run's id is behind its name
    return " ".join(text for text in (name, unit, f"({step})" if step else "") if text)


def _age(since: float) -> str:
    return f"for {time.time() - since:.0f} s"
