"""Prints whether the workers of a flow's own cluster, the flow, and what swallows it would hear of an interrupt."""

from __future__ import annotations

import gc
import json
import signal
import sys
from pathlib import Path

from distributed import Client

from orca.cluster.local import local_cluster


def main(folder: Path) -> None:
    with local_cluster(folder, workers=2) as address, Client(address, set_as_default=False) as client:
        client.wait_for_workers(2)
        blocked = client.run(signal.pthread_sigmask, signal.SIG_BLOCK, [])
        sys.stdout.write(json.dumps([signal.SIGINT in signals for signals in blocked.values()]) + "\n")
        sys.stdout.write(json.dumps(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])) + "\n")
        swallows = [each for each in gc.callbacks if "distributed" in str(each)]  # what is raised in one is ignored
        sys.stdout.write(json.dumps(bool(swallows)) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
