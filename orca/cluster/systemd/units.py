"""The system services of a cluster: systemd units, a folder of them for each machine."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from orca.cluster.api import Change
from orca.cluster.pools import POOLS, WorkPools
from orca.cluster.systemd import texts as words
from orca.config import Config
from orca.disk import make_folder, storage_errors
from orca.errors import InputError
from orca.products import write_text

TARGET = "orca.target"
LAST_CORE = 8191
"""No machine has more cores; systemd wants an end of a range, and the system leaves out those that there are not."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_PATH = re.compile(r"[A-Za-z0-9_./+:@-]+")
"""Without what has a meaning of its own in a unit."""


@dataclass(frozen=True)
class Site:
    """What runs where, and with what.

    Attributes
    ----------
    pools : WorkPools
    server, scheduler : str
        Hosts of the Prefect server and of the Dask scheduler.
    flows : tuple of str
        Hosts that start flow runs.
    venv, configuration : Path
        ORCA's Python environment, and orca-conf.yml, on every host.
    user : str
        Everything runs as this user.

    Raises
    ------
    InputError
        A name has a character that means something else in a unit.
    """

    pools: WorkPools
    server: str
    scheduler: str
    flows: tuple[str, ...]
    venv: Path
    configuration: Path
    user: str

    def __post_init__(self) -> None:
        paths = [str(self.venv), str(self.configuration)]
        for kind, texts in ((_NAME, (*self.hosts, self.user)), (_PATH, paths)):
            if wrong := [text for text in texts if not kind.fullmatch(text)]:
                raise InputError(f"{wrong[0]!r} cannot stand in a unit", remedy="Use letters, digits and . _ - only")

    @property
    def hosts(self) -> tuple[str, ...]:
        """All machines that run a part."""
        return tuple(dict.fromkeys((*self.pools.hosts, self.server, self.scheduler, *self.flows)))


def host_of(address: str | None, pools: WorkPools, option: str) -> str:
    """The machine that an address of the configuration names; the first node where there is none.

    Parameters
    ----------
    address : str or None
        As ``http://host:4200/api``.
    pools : WorkPools
    option : str
        With which the user may say it.

    Raises
    ------
    InputError
        It is a number.
    """
    name = urlsplit(address or "").hostname or "localhost"
    try:
        number = ip_address(name)
    except ValueError:
        number = None
    if name == "localhost" or (number is not None and number.is_loopback):
        return pools.hosts[0]
    if number is not None:
        raise InputError(f"no host is known by the address {name}", remedy=f"Name it with {option}")
    return name if name in pools.hosts else name.partition(".")[0]


def site(
    settings: Config,
    pools: WorkPools,
    *,
    venv: Path,
    configuration: Path,
    user: str,
    server: str | None = None,
    scheduler: str | None = None,
    flows: Sequence[str] = (),
) -> Site:
    """The site of a configuration: server and scheduler are where it says, and the flow workers beside the server."""
    url = settings.prefect.api_url
    server = server or host_of(url.reveal() if url else None, pools, "--server")
    scheduler = scheduler or host_of(settings.dask.address, pools, "--scheduler")
    return Site(pools, server, scheduler, tuple(flows) or (server,), venv, configuration, user)


def unit_files(site: Site, host: str) -> dict[str, str]:
    """The units of a machine: file name below /etc/systemd/system -> content."""
    texts, wants = {}, []
    if host == site.server:
        life, after = words.QUICK_END, " postgresql.service"
        texts["orca-server.service"] = _service(site, host, "server", "Prefect server", life, after)
        wants.append("orca-server.service")
    if host == site.scheduler:
        texts["orca-scheduler.service"] = _service(site, host, "scheduler", "Dask scheduler", words.QUICK_END)
        wants.append("orca-scheduler.service")
    if host in site.flows:
        life, after = words.FLOWS, " orca-server.service orca-scheduler.service"
        texts["orca-flows@.service"] = _service(site, host, "flows %i", "flow worker of pool %i", life, after)
        wants += [f"orca-flows@{pool}.service" for pool in POOLS]
    if host == site.flows[0]:
        life, after = words.TRIGGER, " orca-server.service rabbitmq-server.service"
        texts["orca-trigger.service"] = _service(site, host, "trigger", "trigger", life, after)
        texts["orca-metrics.service"] = _service(site, host, "metrics", "numbers for Prometheus", words.QUICK_END)
        wants += ["orca-trigger.service", "orca-metrics.service"]  # together: the numbers of the trigger lie there
    if host in site.pools.hosts:
        life, after = words.DASK.format(venv=site.venv), " orca-scheduler.service"
        texts["orca-dask@.service"] = _service(site, host, "dask %i", "Dask worker process %i", life, after)
        for i, offers in enumerate(site.pools.processes(host)):
            texts[f"orca-dask@{i}.service.d/memory.conf"] = _memory(site.pools, offers)
            wants.append(f"orca-dask@{i}.service")
    texts["orca-alarms.service"] = _alarms(site, host)
    texts["orca-alarms.timer"] = words.ALARMS_TIMER
    wants.append("orca-alarms.timer")
    texts["orca.slice"] = words.SLICE + (words.WEIGHTS if site.pools.reserved_cores.get(host) else "")
    texts[TARGET] = words.TARGET.format(host=host, wants="".join(f"Wants={name}\n" for name in wants))
    return {name: f"{words.MARK}\n{text}" for name, text in texts.items()}


def _alarms(site: Site, host: str) -> str:
    """One machine looks at everything, best another than that of the server; the others at their own disks."""
    at_all = next((each for each in reversed(site.hosts) if each != site.server), site.server)
    only = "" if host == at_all else " --only disk"
    given = {"user": site.user, "configuration": site.configuration, "host": host, "venv": site.venv}
    return words.ALARMS.format(**given, only=only, cores=_cores(site, host))


def _cores(site: Site, host: str) -> str:
    reserved = site.pools.reserved_cores.get(host, 0)
    return words.CORES.format(first=reserved, last=LAST_CORE) if reserved else ""


def _service(site: Site, host: str, part: str, what: str, life: str, after: str = "") -> str:
    return words.SERVICE.format(
        what=what,
        after=after,
        user=site.user,
        configuration=site.configuration,
        host=host,
        venv=site.venv,
        part=part,
        life=life,
        cores=_cores(site, host),
    )


def _memory(pools: WorkPools, offers: dict[str, int]) -> str:
    task, own = pools.memory_gb(offers), pools.recycle.memory_gb
    return words.MEMORY.format(task=task, own=own, limit=math.ceil((task + own) * 1e9 / 2**30))


def write_units(site: Site, folder: Path, hosts: Sequence[str] = (), *, dry_run: bool = False) -> list[Change]:
    """Write a folder of units for each host, and remove units of ours that are not wanted there any more.

    Parameters
    ----------
    site : Site
    folder : Path
    hosts : sequence of str
        Only these; all when empty.
    dry_run : bool
        Write nothing.

    Returns
    -------
    list of Change
        What was there otherwise.

    Raises
    ------
    InputError
        There is no such host.
    StorageError
        A folder cannot be written.
    """
    if unknown := [host for host in hosts if host not in site.hosts]:
        raise InputError(f"there is no host {unknown[0]}", site.pools.path, f"Known are {', '.join(site.hosts)}")
    unwanted = [] if hosts else [path.parent.name for path in sorted(folder.glob(f"*/{TARGET}")) if _is_ours(path)]
    changes: list[Change] = []
    for host in dict.fromkeys((*(hosts or site.hosts), *unwanted)):
        files = unit_files(site, host) if host in site.hosts else {}
        wanted = {folder / host / name: text for name, text in files.items()}
        there = _there(folder / host, wanted)
        changes += _differences(host, wanted, there)
        if not dry_run:
            _replace(folder / host, wanted, there)
    return changes


def _is_ours(path: Path) -> bool:
    return path.is_file() and path.read_text(errors="replace").startswith(words.MARK)


def _there(folder: Path, wanted: dict[Path, str]) -> dict[Path, str]:
    """What is there of the wanted units, and others that this command has made."""
    ours = [path for path in (*folder.glob("orca*"), *folder.glob("orca*.d/*.conf")) if _is_ours(path)]
    return {path: path.read_text(errors="replace") for path in sorted({*wanted, *ours}) if path.is_file()}


def _differences(host: str, wanted: dict[Path, str], there: dict[Path, str]) -> list[Change]:
    new = [path for path in wanted if path not in there]
    old = [path for path in there if path not in wanted]
    changes = [Change(host, "units", "none", _names(new))] if new else []
    changes += [Change(host, "units", _names(old), "none")] if old else []
    for path, text in wanted.items():
        if there.get(path, text) != text:
            lines = list(difflib.ndiff(there[path].splitlines(), text.splitlines()))
            now, then = ("\n".join(line[2:] for line in lines if line.startswith(sign)) for sign in ("- ", "+ "))
            changes.append(Change(host, _names([path]), now, then))
    return changes


def _names(paths: Sequence[Path]) -> str:
    return "\n".join("/".join(path.parts[-2:]) if path.parent.suffix == ".d" else path.name for path in paths)


def _replace(folder: Path, wanted: dict[Path, str], there: dict[Path, str]) -> None:
    for path, text in wanted.items():
        if there.get(path) != text:
            make_folder(path.parent)
            write_text(path, text)
    with storage_errors(folder):
        for path in there.keys() - wanted.keys():
            path.unlink()
            for emptied in (path.parent, folder):
                with suppress(OSError):  # there is more in it
                    emptied.rmdir()
