"""A simulated night: 2400 blocks in the four work pools, 88 slots, and tasks that only sleep.

.venv/bin/python benchmarks/night.py [--blocks 2400] [--seconds 5 15]

Ten hours of 16 subbands with 15 blocks each. Half of the subbands are reduced, a quarter are imaged, an eighth are
split, and of an eighth the bandpass is made, as the pools of the telescope have slots for it. Each hour and pool is a
flow run, and all are asked for at once, as after a day without a cluster; Prefect's server, Redis and the flow workers
are those of `orca up`. The 88 slots are eight on each of eleven nodes. With a worker process a slot they would need 18
GB: here a node is one process with eight threads, which is not replaced after 20 tasks.

The ideal is the time of the pool that has most to do, the sum of its sleeps divided by its slots.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
from night_stack import Stack, night_stack

from orca.cluster.machine.questions import call_api
from orca.telescope import SUBBANDS

HOURS = 10
STAGES = {"reduction": "default", "imaging": "imaging", "split": "cosmology", "calibration": "bandpass"}
"""Flow and its pool."""
PATTERN = ["reduction", "imaging", "reduction", "split", "reduction", "imaging", "reduction", "calibration"]
"""What is done with a subband, by its number."""
POLL_S = 1.0
SAMPLES = 14
"""Lines of the table."""
RECORDED_S = 30.0
"""How long the server may take to record the last task runs."""
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
Night = dict[tuple[int, str], dict[str, float]]
"""Seconds of each block, by hour and stage."""


@dataclass(frozen=True)
class Sample:
    """What is seen at an instant; memory in 1e6 bytes."""

    seconds: float
    begun: int
    running: int
    server_mb: float
    scheduler_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=2400)
    parser.add_argument("--seconds", type=float, nargs=2, default=[5.0, 15.0], help="of the shortest and longest task")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))  # and the cluster with it
    night = plan(asked.blocks, *asked.seconds)
    with tempfile.TemporaryDirectory(prefix="orca-benchmark-") as name, night_stack(Path(name)) as stack:
        ideals = {stage: ideal_s(night, stage, slots(stack, stage)) for stage in STAGES}
        deployed = deploy()
        before = {part: cpu() for part, cpu in stack.cpu.items()}
        first = sample(stack, 0.0)
        begin = time.time()
        runs = request(deployed, night)
        samples = [first, *watch(stack, list(runs), begin, max(ideals.values()))]
        tasks = recorded(stack.url, list(runs), asked.blocks)
        used = {part: cpu() - before[part] for part, cpu in stack.cpu.items()}
        found = {UUID(run["id"]): run for run in ask(stack.url, "flow_runs/filter", _filter(list(runs)))}
        print(f"{asked.blocks} blocks of {asked.seconds[0]:g} to {asked.seconds[1]:g} s in {len(runs)} flow runs")
        report_pools(stack, night, ideals, runs, found, begin)
        report_memory(samples)
        report_cpu(used, asked.blocks, begin, found)
        report_left_behind(found, tasks, asked.blocks)


def plan(blocks: int, shortest_s: float, longest_s: float) -> Night:
    """Deal the blocks out to hours and stages; their seconds are spread evenly by multiples of the golden ratio."""
    night: Night = {}
    for number in range(blocks):
        hour, band = number * HOURS // blocks, number % len(SUBBANDS)
        name = f"{hour:02d}h {SUBBANDS[band].name} {number:04d}"
        seconds = shortest_s + (longest_s - shortest_s) * (number * 0.6180339887 % 1)
        night.setdefault((hour, PATTERN[band % len(PATTERN)]), {})[name] = round(seconds, 3)
    return night


def slots(stack: Stack, stage: str) -> int:
    """Tasks of a stage that the cluster runs at once."""
    return sum(stack.pools.slots(host).get(STAGES[stage], 0) for host in stack.pools.hosts)


def ideal_s(night: Night, stage: str, its_slots: int) -> float:
    """Seconds of a stage on slots that are never free."""
    return sum(sum(blocks.values()) for (_, its_stage), blocks in night.items() if its_stage == stage) / its_slots


def deploy() -> dict[str, UUID]:
    """Deploy the flows as `orca deploy` does; the deployments."""
    from prefect.client.orchestration import get_client

    from orca.cluster import deployments

    entries = [
        deployments.Deployment.model_validate(
            {
                "name": stage,
                "entrypoint": f"night_flows.{stage}",
                "description": "Of a simulated night.",
                "work_pool": {"name": pool},
            }
        )
        for stage, pool in STAGES.items()
    ]
    wanted = deployments.wanted(entries, "default")
    with get_client(sync_client=True) as client:
        deployments.apply(client, wanted)
        return {each.name: UUID(str(client.read_deployment_by_name(each.full_name).id)) for each in wanted}


def request(deployed: dict[str, UUID], night: Night) -> dict[UUID, str]:
    """Ask for all flow runs, hour after hour; the stage of each."""
    from prefect.client.orchestration import get_client

    runs = {}
    with get_client(sync_client=True) as client:
        for (hour, stage), blocks in night.items():
            run = client.create_flow_run_from_deployment(
                deployed[stage], name=f"hour {hour} {stage}", parameters={"hour": f"{hour:02d}", "blocks": blocks}
            )
            runs[UUID(str(run.id))] = stage
    return runs


def watch(stack: Stack, runs: list[UUID], begin: float, ideal: float) -> Iterator[Sample]:
    """Look now and then until all flow runs have ended."""
    step_s, last = max(2.0, ideal / SAMPLES), 0.0
    unfinished = _filter(runs, state={"type": {"not_any_": FINAL}})
    while (now := time.time() - begin) < 3 * ideal + 120:
        if now - last >= step_s:
            last = now
            yield sample(stack, now)
        if ask(stack.url, "flow_runs/count", unfinished) == 0:
            yield sample(stack, time.time() - begin)
            return
        time.sleep(POLL_S)
    raise SystemExit(f"flow runs have not ended after {now:.0f} s; the ideal is {ideal:.0f} s")


def sample(stack: Stack, seconds: float) -> Sample:
    """Look at the parts."""
    memory = {part: psutil.Process(pid).memory_info().rss / 1e6 for part, pid in stack.pids.items()}
    found = Sample(seconds, *stack.begun(), memory["server"], memory["scheduler"])
    print(found, file=sys.stderr, flush=True)
    return found


def recorded(url: str, runs: list[UUID], expected: int) -> Counter[str]:
    """Task runs by state, once the server has heard of all ends, or should have."""
    end = time.monotonic() + RECORDED_S
    while True:
        found = Counter[str]()
        for state in ("SCHEDULED", "PENDING", "RUNNING", "CANCELLING", "PAUSED", *FINAL):
            question = _filter(runs) | {"task_runs": {"state": {"type": {"any_": [state]}}}}
            if count := ask(url, "task_runs/count", question):
                found[state] = count
        if found["COMPLETED"] == expected or time.monotonic() > end:
            return +found
        time.sleep(POLL_S)


def ask(url: str, path: str, question: dict[str, Any]) -> Any:
    """Ask the Prefect server, patiently when it is busy."""
    end = time.monotonic() + RECORDED_S
    while True:
        try:
            return call_api(url, path, question)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(POLL_S)


def _filter(runs: list[UUID], **more: Any) -> dict[str, Any]:
    return {"flow_runs": {"id": {"any_": [str(run) for run in runs]}, **more}}


def report_pools(
    stack: Stack,
    night: Night,
    ideals: dict[str, float],
    runs: dict[UUID, str],
    found: dict[UUID, dict[str, Any]],
    begin: float,
) -> None:
    print(f"{'':12} {'blocks':>7} {'slots':>6} {'ideal s':>8} {'s':>8} {'ratio':>6}")
    whole = [(stage, [stage]) for stage in STAGES] + [("all", list(STAGES))]
    for title, stages in whole:
        count = sum(len(blocks) for (_, stage), blocks in night.items() if stage in stages)
        ideal = max(ideals[stage] for stage in stages)
        seconds = max(_time(found[run]["end_time"]) for run, stage in runs.items() if stage in stages) - begin
        available = sum(slots(stack, stage) for stage in stages)
        print(f"{title:12} {count:7d} {available:6d} {ideal:8.1f} {seconds:8.1f} {seconds / ideal:6.3f}")


def report_memory(samples: list[Sample]) -> None:
    print(f"\n{'s':>6} {'begun':>7} {'slots used':>11} {'Prefect server MB':>18} {'scheduler MB':>13}")
    for each in samples:
        numbers = f"{each.seconds:6.0f} {each.begun:7d} {each.running:11d}"
        print(f"{numbers} {each.server_mb:18.1f} {each.scheduler_mb:13.1f}")
    half, last = samples[len(samples) // 2], samples[-1]
    for part, grown in (
        ("Prefect server", last.server_mb - half.server_mb),
        ("scheduler", last.scheduler_mb - half.scheduler_mb),
    ):
        print(f"{part}: {grown:+.1f} MB in the last {last.begun - half.begun} tasks")


def report_cpu(used: dict[str, float], blocks: int, begin: float, found: dict[UUID, dict[str, Any]]) -> None:
    seconds = max(_time(run["end_time"]) for run in found.values()) - begin
    print(f"\n{'CPU':24} {'s':>8} {'ms a task':>10} {'% of a core':>12}")
    for part, cpu in [*used.items(), ("all", sum(used.values()))]:
        print(f"{part:24} {cpu:8.1f} {1000 * cpu / blocks:10.1f} {100 * cpu / seconds:12.1f}")


def report_left_behind(found: dict[UUID, dict[str, Any]], tasks: Counter[str], blocks: int) -> None:
    states = Counter(run["state_type"] for run in found.values())
    print(f"\nflow runs: {_counts(states)}; task runs: {_counts(tasks)}")
    if set(states) != {"COMPLETED"} or tasks != Counter({"COMPLETED": blocks}):
        raise SystemExit("something was left behind")


def _counts(states: Counter[str]) -> str:
    return ", ".join(f"{count} {state.lower()}" for state, count in states.items())


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


if __name__ == "__main__":
    main()
