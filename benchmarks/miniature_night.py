"""A miniature night from end to end, undisturbed: what all but the science costs, and seconds from file to product.

.venv/bin/python benchmarks/miniature_night.py [--antennas 128] [--channels 192] [--integrations 24] [--pause 10.03]

On `orca up --cluster` with two nodes four subbands are recorded, and reduced, split, calibrated, imaged and made into
spectra, as messages and people ask for it.

How it is counted: every process of `orca up` and below it is looked at several times a second (cpu_account.py), between
the first file and the end of the last flow run; imports of tasks and flows are in it, the start of the cluster is not,
and neither are `orca watch` and what people type. Science is what the
manifests say (`cpu_seconds`: the isolated kernels, and the programs such as WSClean and AOFlagger). What is left of the
Dask workers is their own: Dask, Prefect's task engine, manifests, checks, pictures, and what of the spectra no
manifest tells; so the share of what is not science is rather too high than too low.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from cpu_account import Account

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from same_data import manifests
from standing_night import STAGES, Night, Size, forget_environment

from orca.cluster.machine.standing import run_folder

CLASSES = {
    "server": "Prefect server",
    "scheduler": "Dask scheduler",
    "workers": "Dask workers' own",
    "flow-workers": "flow workers and flows",
    "trigger": "trigger",
    "rabbitmq": "RabbitMQ",
    "epmd": "RabbitMQ",
    "redis": "Redis",
}
OTHERS = "supervisor and others"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--antennas", type=int, default=128)
    parser.add_argument("--channels", type=int, default=192)
    parser.add_argument("--integrations", type=int, default=24, help="of each of four subbands")
    parser.add_argument("--pause", type=float, default=10.031, help="seconds between two integrations")
    parser.add_argument("--pixels", type=int, default=1024, help="of an image's side")
    parser.add_argument("--scale", type=float, default=0.12, help="of a pixel, deg")
    asked = parser.parse_args()
    forget_environment()
    size = Size(
        antennas=asked.antennas,
        channels=asked.channels,
        integrations=asked.integrations,
        pixels=asked.pixels,
        scale_deg=asked.scale,
        aged=False,
        wait_s=300.0,  # as in deployments/triggers.yaml: less, and a block is reduced each time that it has grown
    )
    with tempfile.TemporaryDirectory(prefix="orca-benchmark-") as name:
        night = Night(Path(name) / "night", size)
        with night.standing():
            begin = time.time()
            with Account(run_folder(night.settings)) as account:
                came = night.observe(asked.pause)
                night.wait_until_quiet(look_s=5.0)  # questions cost as well
            seconds = time.time() - begin
            spent = by_class(account.spent())
            missing = night.missing()
            report_cpu(night, spent, seconds)
            report_latency(night, {str(path.resolve()): at for path, at in came.items()})
    if missing:
        raise SystemExit(f"not all is there: {', '.join(missing)}")


def by_class(spent: dict[str, float]) -> dict[str, float]:
    """CPU seconds of each class; those of small parts together."""
    found = dict.fromkeys([*CLASSES.values(), OTHERS], 0.0)
    for kind, seconds in spent.items():
        found[CLASSES.get(kind, OTHERS)] += seconds
    return found


def report_cpu(night: Night, spent: dict[str, float], seconds: float) -> None:
    made = {stage: list(manifests(night.root(stage)).values()) for stage in STAGES}
    science = {stage: sum(each.cpu_seconds for each in found) for stage, found in made.items()}
    total = sum(spent.values())
    spent = {**spent, "Dask workers' own": spent["Dask workers' own"] - sum(science.values())}
    asked = night.size
    print(f"{len(night.recorded)} files of {asked.antennas} antennas and {asked.channels} channels, {seconds:.0f} s")
    print(f"\n{'CPU':26} {'products':>9} {'s':>9} {'% of all':>9}")
    for stage, cpu in science.items():
        print(f"{'science: ' + stage:26} {len(made[stage]):9d} {cpu:9.1f} {100 * cpu / total:9.1f}")
    for what, cpu in spent.items():
        print(f"{what:26} {'':9} {cpu:9.1f} {100 * cpu / total:9.1f}")
    rest = sum(spent.values())
    print(f"{'all that is no science':26} {'':9} {rest:9.1f} {100 * rest / total:9.1f}")
    print(f"{'all':26} {'':9} {total:9.1f} {100.0:9.1f}")


def report_latency(night: Night, came: dict[str, float]) -> None:
    """Seconds from a file's appearance to the end of its product."""
    print(f"\n{'recorded file to product':26} {'files':>9} {'median s':>9} {'90 % s':>9}")
    for stage in ("averaged", "cosmology", "images"):
        took = [
            datetime.fromisoformat(made.finished).timestamp() - came[entry.path]
            for made in manifests(night.root(stage)).values()
            for entry in made.inputs
            if entry.path in came
        ]
        if len(took) > 1:
            print(
                f"{stage:26} {len(took):9d} {statistics.median(took):9.1f} {statistics.quantiles(took, n=10)[-1]:9.1f}"
            )


if __name__ == "__main__":
    main()
