"""A flow on a Dask cluster that talks TLS; prints what became of its tasks. Run by test_flow_over_tls.py."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from some_cluster import some_cluster

from orca import config
from orca.cluster import server
from orca.cluster.security import make_certificates


@dataclass(frozen=True)
class Ended:
    skipped: bool


def main(folder: Path) -> None:
    home = folder / "prefect"
    own, _ = server.ensure(home)
    os.environ.update(server.client_environment(home, own.url))  # the workers get it from here
    make_certificates(folder / "tls", ["127.0.0.1"])
    try:
        with some_cluster(folder / "orca", network={"tls": str(folder / "tls")}) as cluster:
            os.environ["ORCA_CONF"] = str(folder / "orca" / "orca-conf.yml")
            server.wait_until_healthy(own)
            sys.stdout.write(json.dumps(statuses(config.load().dask.address == cluster.address)) + "\n")
    finally:
        server.stop(home)


def statuses(configured: bool) -> list[str]:
    assert configured
    from prefect import flow, task

    from orca.cluster.gather import gather
    from orca.cluster.runner import PoolTaskRunner

    @task(name="unit", persist_result=False)
    def unit(number: int) -> Ended:
        return Ended(skipped=number > 1)

    @flow(name="over TLS", task_runner=PoolTaskRunner("default"))
    def run() -> list[str]:
        return [outcome.status for outcome in gather(unit, {str(i): {"number": i} for i in range(3)})]

    return list(run())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
