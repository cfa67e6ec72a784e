"""The parts that `orca up` runs on this machine: their command lines, environments, files and addresses."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from orca import config
from orca.cluster import server
from orca.cluster.machine import broker
from orca.cluster.machine.standing import Known, write_private
from orca.cluster.nodes.parts import (
    NODE_VARIABLE,
    Part,
    dask_environment,
    metrics_part,
    scheduler_part,
    trigger_part,
    worker_parts,
)
from orca.cluster.pools import POOLS, WorkPools, pool_name, this_host
from orca.cluster.pools import VARIABLE as POOLS_VARIABLE
from orca.cluster.security import CA, CERTIFICATE, KEY, redis_query
from orca.config import Config

PORTS = (
    "server", "redis", "rabbitmq", "rabbitmq-nodes", "rabbitmq-management", "epmd", "scheduler", "dashboard", "metrics",
)  # fmt: skip
PASSWORDS = ("redis", "rabbitmq")
OPTIONAL = (
    "redis",
    "rabbitmq",
    "dask",
    "trigger",
    "flow-workers",
    "metrics",
    *(f"flow-worker-{pool}" for pool in POOLS),
)
"""What `--without` takes."""
DRAIN_S = 5
"""How long a flow worker that is told to end lets its flow runs go on; `orca down --drain` waits before."""
_REDIS_MB = 256


@dataclass(frozen=True)
class Service:
    """A part, and how it is kept alive.

    Attributes
    ----------
    known : Known
    part : Part
    stop_s : float
        How long it may take to end before it is killed.
    autostart : bool
        False: it is started once the Prefect server has been told of the pools.
    """

    known: Known
    part: Part
    stop_s: float = 10.0
    autostart: bool = True

    @property
    def kind(self) -> str:
        """One of `orca.cluster.machine.standing.KINDS`."""
        return self.known.kind


class Plan:
    """All parts for a configuration, and what is left out and why.

    Parameters
    ----------
    settings : Config
    pools : WorkPools
    folder : Path
        Of what they write.
    ports, passwords : dict
        Of `PORTS` and `PASSWORDS`.
    without : collection of str
        Some of `OPTIONAL`.
    """

    def __init__(
        self,
        settings: Config,
        pools: WorkPools,
        folder: Path,
        ports: dict[str, int],
        passwords: dict[str, str],
        without: Collection[str] = (),
    ) -> None:
        self.settings, self.pools, self.folder = settings, pools, folder
        self.ports, self.passwords = ports, passwords
        self.left_out = self._left_out(without)
        self.api_url = self._api_url()
        self.services = [
            *([] if "redis" in self.left_out else [self._redis()]),
            *([] if "rabbitmq" in self.left_out else self._rabbitmq()),
            *([] if "server" in self.left_out else [self._server()]),
            *([] if "dask" in self.left_out else self._dask()),
            *([] if "trigger" in self.left_out else [self._trigger()]),
            *([] if "flow-workers" in self.left_out else self._flow_workers()),
            *([] if "metrics" in self.left_out else [self._metrics()]),
        ]

    def _left_out(self, without: Collection[str]) -> dict[str, str]:
        settings, queue = self.settings, self.settings.queue
        out = dict.fromkeys(without, "not wanted (--without)")
        elsewhere = {
            "server": ("prefect.api_url", settings.prefect.api_url),
            "redis": ("queue.result_backend_uri", queue.result_backend_uri),
            "rabbitmq": ("queue.broker_uri", queue.broker_uri),
            "dask": ("dask.address", settings.dask.address),
        }
        out |= {name: f"the configuration names one ({key})" for name, (key, value) in elsewhere.items() if value}
        for name, found in (("redis", shutil.which("redis-server")), ("rabbitmq", broker.find_program())):
            if found is None:
                out.setdefault(name, f"{name}-server is not installed here")
        if "rabbitmq" in out and queue.broker_uri is None:
            out.setdefault("trigger", "there is no RabbitMQ")
        if "flow-workers" in out:
            out.setdefault("trigger", "nothing here would run what it starts")
        return out

    def _api_url(self) -> str:
        if self.settings.prefect.api_url is not None:
            return self.settings.prefect.api_url.reveal()
        scheme = "https" if self.settings.network.tls else "http"
        return f"{scheme}://{self.settings.network.host}:{self.ports['server']}/api"

    def _redis(self) -> Service:
        """Redis for results: in memory only, since they are gone after two hours anyway."""
        host, tls, port = self.settings.network.host, self.settings.network.tls, self.ports["redis"]
        folder = self.folder / "redis"
        folder.mkdir(exist_ok=True)
        lines = [f"bind {host}", f"requirepass {self.passwords['redis']}", f'dir "{folder}"', 'save ""']
        lines += ["appendonly no", f"maxmemory {_REDIS_MB}mb", "maxmemory-policy noeviction"]
        lines += ["set-proc-title no"]  # its title is written over the environment, by which we know our processes
        query = ""
        if tls is None:
            lines += [f"port {port}"]
        else:
            files = {"ca-cert": tls / CA, "cert": tls / CERTIFICATE, "key": tls / KEY}
            lines += ["port 0", f"tls-port {port}", *(f'tls-{key}-file "{path}"' for key, path in files.items())]
            query = f"?{redis_query(tls)}"
        write_private(folder / "redis.conf", "\n".join(lines) + "\n")
        part = Part("redis", (str(shutil.which("redis-server")), str(folder / "redis.conf")), {})
        scheme = "rediss" if tls else "redis"
        uri = f"{scheme}://:{self.passwords['redis']}@{host}:{port}/0{query}"
        return Service(Known("redis", "redis", uri), part)

    def _rabbitmq(self) -> list[Service]:
        host, tls, password = self.settings.network.host, self.settings.network.tls, self.passwords["rabbitmq"]
        part = broker.broker_part(self.folder / "rabbitmq", host, self.ports, password, tls)
        uri = f"{'amqps' if tls else 'pyamqp'}://{broker.USER}:{password}@{host}:{self.ports['rabbitmq']}//"
        names = broker.name_server_part(self.ports["epmd"])
        return [Service(Known("epmd", "epmd"), names), Service(Known("rabbitmq", "rabbitmq", uri), part, stop_s=30.0)]

    def _server(self) -> Service:
        prefect, network = self.settings.prefect, self.settings.network
        argv = server.command(network.host, self.ports["server"], network.tls)
        keep_days = self.settings.retention.prefect_days
        environment = server.environment(prefect.home, self.api_url, prefect.database, keep_days)
        return Service(Known("server", "server", self.api_url), Part("server", tuple(argv), environment), stop_s=15.0)

    def _dask(self) -> list[Service]:
        scheme = "tls" if self.settings.network.tls else "tcp"
        address = f"{scheme}://{self.settings.network.host}:{self.ports['scheduler']}"
        scheduler = scheduler_part(self.settings, port=self.ports["scheduler"], dashboard_port=self.ports["dashboard"])
        found = [Service(Known(scheduler.name, "scheduler", address), scheduler)]
        for host in self.pools.hosts:
            for part in worker_parts(self._of_node(host), self.pools, host, address):
                worker = replace(part, environment={**part.environment, **self._client()})
                found.append(Service(Known(part.name, "workers", host=host), worker, stop_s=20.0))
        return found

    def _trigger(self) -> Service:
        """Started with the flow workers, once Prefect knows the deployments that it starts."""
        part = trigger_part(dask_environment(self.settings))
        return Service(Known(part.name, "trigger", host=self.pools.hosts[0]), part, stop_s=15.0, autostart=False)

    def _flow_workers(self) -> list[Service]:
        host = self.pools.hosts[0]
        environment = {
            **dask_environment(self.settings),
            **self._client(),
            NODE_VARIABLE: host,
            POOLS_VARIABLE: str(self.pools.path),
            "ORCA_WORKER_DRAIN_S": str(DRAIN_S),
        }
        found = []
        for pool, wanted in self.pools.pools.items():
            name = pool_name(self.settings.queue.prefix, pool)
            argv = [sys.executable, "-m", "prefect", "worker", "start", "--pool", name, "--name", f"{host}-{name}"]
            argv += ["--type", wanted.worker]  # without it a worker ends when the server is away while it starts
            part = Part(f"flow-worker-{pool}", tuple(argv), environment)
            if part.name in self.left_out:
                continue
            known = Known(part.name, "flow-workers", host=host, pool=name)
            found.append(Service(known, part, stop_s=DRAIN_S + 25.0, autostart=False))
        return found

    def _metrics(self) -> Service:
        scheme = "https" if self.settings.network.tls else "http"
        address = f"{scheme}://{self.settings.network.host}:{self.ports['metrics']}/metrics"
        return Service(Known("metrics", "metrics", address), metrics_part(self.ports["metrics"]))

    def _client(self) -> dict[str, str]:
        return server.client_environment(self.settings.prefect.home, self.api_url, self.settings.network.tls)

    def _of_node(self, host: str) -> Config:
        """The configuration of a node: our own, with scratch of its own where it only stands for another machine."""
        if self.pools.hosts == (this_host(),):
            return self.settings
        folder = self.folder / "nodes" / host
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / config.FILE_NAME
        write_private(path, yaml.safe_dump(_given(self.settings) | _scratch(self.settings, folder)))
        return config.load(path)


def _scratch(settings: Config, folder: Path) -> dict[str, object]:
    return {"paths": {**(_given(settings).get("paths") or {}), "scratch": str(folder / "scratch")}}


def _given(settings: Config) -> dict[str, dict[str, object]]:
    """What the user's file says, so that it means the same in a file elsewhere: with absolute paths."""
    if settings.file is None:
        return {}
    values = yaml.safe_load(settings.file.read_text()) or {}
    for key, value in settings.items().items():
        section, _, name = key.partition(".")
        if settings.line_of(key) is None or not isinstance(values.get(section), dict):
            continue
        if isinstance(value, Path) or section == "execs":
            values[section][name] = str(value)
        elif key == "alarms.command":
            values[section][name] = value
        elif key == "calibration.bad_antennas":
            values[section][name] = value.model_dump(mode="json", exclude_none=True) or None
    return values
