"""`orca up` and `orca down`: the whole of a cluster on this machine, kept alive, and ended without a rest."""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from orca.cluster import server
from orca.cluster.machine import questions, supervision
from orca.cluster.machine.overview import Overview, look
from orca.cluster.machine.services import PASSWORDS, PORTS, Plan
from orca.cluster.machine.standing import KINDS, MARK, Standing, api_url, locked, read, run_folder, write
from orca.cluster.pools import POOLS, WorkPools, pool_name
from orca.cluster.ports import hold_port
from orca.config import Config
from orca.disk import make_folder
from orca.errors import InfrastructureError
from orca.procfs import marked, wait_until

READY_S = 180.0
"""How long all parts together may take until they answer: a new RabbitMQ takes 10 s, busy machines are slower."""
INSIST_S = 30.0
"""How long to ask a server again that does not answer while work is waited for."""
DOWN_S = 90.0
HOPELESS = 5
"""A part that ended so often while the others got ready will not do."""
Tell = Callable[[str], None]


def up(settings: Config, pools: WorkPools, without: Collection[str], tell: Tell, *, cluster: bool = False) -> Standing:
    """Start what does not run yet, and return once the parts are started, flow workers excepted.

    Parameters
    ----------
    settings : Config
    pools : WorkPools
        Each of its hosts gets worker processes on this machine.
    without : collection of str
        Some of `orca.cluster.machine.services.OPTIONAL`.
    tell : callable
        Gets a line about what is noteworthy.
    cluster : bool
        Whether the pools are of a file that was named for this.

    Raises
    ------
    InfrastructureError
        The supervisor does not start.
    """
    folder = run_folder(settings)
    with locked(folder):
        found = read(folder)
        running = found is not None and found.supervised()
        if not running:
            _clear(folder, found, tell)
        ports, passwords = _kept(settings, found, running=running)
        plan = Plan(settings, pools, folder, ports, passwords, without)
        standing = Standing(
            folder=folder,
            ports=ports,
            passwords=passwords,
            parts=tuple(service.known for service in plan.services),
            left_out=plan.left_out,
            pools=str(pools.path),
            cluster=str(pools.path) if cluster else "",
            supervisor=found.supervisor if found is not None and running else None,
        )
        configuration = supervision.write_configuration(folder, plan.services)
        if running:
            for kind in supervision.adapt(folder):
                tell(f"{kind}: started with the new configuration")
        else:
            _prepare_server(settings, plan, tell)
            standing = replace(standing, supervisor=supervision.start(folder, configuration))
        write(standing)
        return standing


def _clear(folder: Path, found: Standing | None, tell: Tell) -> None:
    """End what a supervisor that was killed left behind. Its flow runs go on, and the new flow workers adopt them."""
    session = found.supervisor[0] if found is not None and found.supervisor is not None else None
    *others, flow_workers = KINDS
    ended = supervision.end_processes(folder, [flow_workers], session=session, patience_s=0)  # told, they end runs
    ended += supervision.end_processes(folder, reversed(others), session=session)
    if ended:
        tell("what supervised the parts was killed: they are started anew")


def _kept(settings: Config, found: Standing | None, *, running: bool) -> tuple[dict[str, int], dict[str, str]]:
    """Ports and passwords of the last time; new ports where another program has taken them meanwhile."""
    host = settings.network.host
    ports = dict(found.ports) if found else {}
    passwords = {name: secrets.token_hex(16) for name in PASSWORDS} | (found.passwords if found else {})
    own = server.find(settings.prefect.home)
    if own is not None and not running:
        ports["server"] = int(own.url.rpartition(":")[2].split("/")[0])  # whoever uses it finds the new one there
    with ExitStack() as stack:
        for name in PORTS:
            if running and name in ports:
                continue
            if name == "server" and own is not None:
                continue
            held = stack.enter_context(hold_port(host, ports.get(name, 0)))
            ports[name] = held.getsockname()[1]
    return ports, passwords


def _prepare_server(settings: Config, plan: Plan, tell: Tell) -> None:
    """Make the server's folder, and end the one that `orca run` left: two must not share a database."""
    if "server" in plan.left_out:
        return
    make_folder(settings.prefect.home)
    if server.stop(settings.prefect.home) is not None:
        tell("the Prefect server of `orca run` is replaced by a supervised one at the same address")
    if settings.prefect.database is None:
        server.prepare_database(settings.prefect.home)


def deploy(settings: Config, pools: WorkPools, standing: Standing, tell: Tell) -> None:
    """Wait for the server, tell it of pools and deployments, and start the flow workers, unless they are left out.

    Raises
    ------
    InfrastructureError
        It does not answer in time.
    """
    url, tls = api_url(settings), settings.network.tls
    if "flow-workers" in standing.left_out or url is None:
        return
    os.environ.update(server.client_environment(settings.prefect.home, url, tls))
    from orca.cluster import deployments, work_pools
    from orca.cluster.api import connected

    wanted = deployments.wanted(deployments.read_deployments(), settings.queue.prefix)  # while the server starts
    if not wait_until(lambda: server.answers(url, tls), READY_S):
        log = standing.folder / "logs" / "server.log"
        raise InfrastructureError("the Prefect server does not answer", log, "Its log may say why")
    with connected(settings) as client:
        changed = work_pools.apply(client, pools, settings.queue.prefix)
        changed += deployments.apply(client, wanted)
    if changed:
        tell(f"told Prefect of {', '.join(dict.fromkeys(change.name for change in changed))}")
    for kind in ("flow-workers", "trigger"):
        supervision.start_kind(standing.folder, kind)


def wait_until_ready(settings: Config, pools: WorkPools, standing: Standing, tell: Tell) -> Overview:
    """Return when all parts answer, or when waiting longer makes no sense; tells of each part that is ready."""
    deadline, ready = time.monotonic() + READY_S, set[str]()
    while True:
        overview = look(settings, pools, standing)
        for part in overview.parts:
            if part.healthy and part.name not in ready:
                ready.add(part.name)
                tell(f"{part.name}: {part.state}")
        unhealthy = [part for part in overview.parts if not part.healthy]
        hopeless = all((part.restarts or 0) >= HOPELESS for part in unhealthy)
        if hopeless or time.monotonic() > deadline:
            return overview
        time.sleep(0.5)


def down(settings: Config, tell: Tell, *, drain: bool = False) -> list[int]:
    """End all that `orca up` started, and what that started; returns the numbers of the processes.

    Parameters
    ----------
    settings : Config
    tell : callable
        Gets a line about what is waited for.
    drain : bool
        Start no flow runs any more, and wait until those that run have ended, however long they take.

    Raises
    ------
    InfrastructureError
        A process does not end.
    """
    folder = run_folder(settings)
    if not folder.is_dir():
        return []
    found = _readable(folder)
    with ExitStack() as stack:
        if drain and found is not None and found.supervised():
            stack.enter_context(_drained(settings, found, tell))
        stack.enter_context(locked(folder))
        found = _readable(folder)
        processes = sorted(marked(MARK, str(folder)))
        if found is not None and found.supervised():
            _shut_down(found)
        supervision.end_processes(folder, [*reversed(KINDS), None])
        if left := sorted(marked(MARK, str(folder))):
            raise InfrastructureError(f"processes {left} do not end", folder, "They hang in the kernel: see ps")
        if found is not None:
            write(replace(found, supervisor=None))
        return processes


def _readable(folder: Path) -> Standing | None:
    """What is written down: where that is broken, processes are found by their mark alone."""
    with suppress(InfrastructureError):
        return read(folder)
    return None


def _shut_down(standing: Standing) -> None:
    """Have supervisord end the parts in their order; where it does not, it is ended before them."""
    with suppress(InfrastructureError), supervision.connected(standing.folder) as supervisor:
        supervisor.shutdown()
        if wait_until(lambda: not standing.supervised(), DOWN_S):
            return
    if standing.supervisor is not None:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(standing.supervisor[0]).send_signal(signal.SIGKILL)


@contextmanager
def _drained(settings: Config, standing: Standing, tell: Tell) -> Iterator[None]:
    """Pause the work pools, wait for their flow runs, end the flow workers; the pools then are as they were."""
    url, tls = api_url(settings), settings.network.tls
    names = [pool_name(settings.queue.prefix, pool) for pool in POOLS]
    if url is None:
        raise InfrastructureError("no Prefect server is known", remedy="Run `orca down` without --drain")
    paused = []
    try:
        try:
            for pool in _insist(questions.call_api, url, "work_pools/filter", {}, tls=tls):
                if pool["name"] in names and not pool["is_paused"]:
                    path = f"work_pools/{pool['name']}"
                    _insist(questions.call_api, url, path, {"is_paused": True}, tls=tls, method="PATCH")
                    paused.append(pool["name"])
            told = None
            while running := [run for run in _insist(questions.unfinished, url, tls) if run["work_pool_name"] in names]:
                if told != len(running):
                    told = len(running)
                    tell(f"waiting for flow runs: {', '.join(sorted(run['name'] for run in running))}")
                time.sleep(0.5)
        except (OSError, ValueError) as error:
            remedy = "See `orca status`, or run `orca down` without --drain"
            raise InfrastructureError(f"the Prefect server does not answer ({error})", url, remedy) from error
        with suppress(InfrastructureError), supervision.connected(standing.folder, DOWN_S) as supervisor:
            supervisor.stopProcessGroup("flow-workers")
    finally:
        for name in paused:
            with suppress(OSError, ValueError):
                _insist(questions.call_api, url, f"work_pools/{name}", {"is_paused": False}, tls=tls, method="PATCH")
    yield


def _insist(ask: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Ask again for a while: with SQLite a busy server answers 503 now and then."""
    end = time.monotonic() + INSIST_S
    while True:
        try:
            return ask(*arguments, **options)
        except OSError:
            if time.monotonic() > end:
                raise
        time.sleep(1.0)
