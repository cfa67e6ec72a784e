"""Prints whether the workers of a flow's own cluster would hear of an interrupt at the terminal."""

from __future__ import annotations

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


if __name__ == "__main__":
    main(Path(sys.argv[1]))
