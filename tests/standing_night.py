"""A miniature night on `orca up --cluster`: recorded, reduced, calibrated, imaged, split, made into spectra."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from night_plan import STAGES, Plan, Size
from same_data import is_whole, manifest_paths, manifests, strangers

from orca import naming
from orca.cluster.machine.questions import call_api
from orca.events.state import read_state

FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
PATIENCE_S = 600.0


class Night(Plan):
    """A planned night, and the cluster on which it comes true; see `standing`."""

    @property
    def url(self) -> str:
        """Address of Prefect's API."""
        return self.stack.address("server")

    @contextmanager
    def standing(self) -> Iterator[None]:
        """Run the cluster, and `orca watch`; whatever is left of either in the end is an error."""
        _ = self.waiting
        self.settings.paths.raw.mkdir(parents=True, exist_ok=True)
        told = self.stack.up()
        try:
            assert told.returncode == 0, told.stdout + told.stderr
            watch = self.stack.site.start("watch", self.settings.paths.raw, "--poll", "1")
            try:
                yield
            finally:
                watch.terminate()
                watch.wait(60)
        finally:
            down = self.stack.down()
        assert down.returncode == 0, down.stdout + down.stderr
        assert self.stack.processes() == [], "processes that nobody ended"

    def record(self, pause_s: float) -> dict[Path, float]:
        """Let all files appear where the recorder has them, those of an integration at once; when each came."""
        came = {}
        for number, path in enumerate(self.waiting):
            target = self.settings.paths.raw / path.relative_to(self.folder / "waiting")
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
            came[target] = time.time()
            if (number + 1) % len(self.size.subbands) == 0:
                time.sleep(pause_s)
        return came

    def observe(self, pause_s: float) -> dict[Path, float]:
        """`record`, then ask for the calibration and the spectra of the day."""
        came = self.record(pause_s)
        self.submit("calibration")
        self.submit("dynspec")
        return came

    def submit(self, stage: str) -> None:
        """Ask for a stage by a message, with `orca submit run`."""
        words = [w for name, value in self.requests()[stage].items() for w in ("-p", f"{name}={json.dumps(value)}")]
        told = self.stack.site.run("submit", "run", DEPLOYMENTS[stage], *words)
        assert told.returncode == 0, told.stdout + told.stderr

    # ---- what became of it ----

    def ask(self, path: str, **question: Any) -> Any:
        """Ask Prefect's API."""
        return call_api(self.url, path, question or None, patience_s=30)

    def unfinished(self, what: str = "flow_runs") -> int:
        """Flow runs, or task runs, that have not ended, but for those of a schedule's future."""
        states: dict[str, Any] = {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}}
        if what == "flow_runs":
            soon = (datetime.now(UTC) + timedelta(seconds=30)).isoformat()
            states = {"state": {"type": {"not_any_": list(FINAL)}}, "expected_start_time": {"before_": soon}}
        return int(self.ask(f"{what}/count", **{what: states}))

    def is_quiet(self) -> bool:
        """Whether nothing is under way: no message, no file that waits for its block, no flow run."""
        try:
            status, trigger = self.stack.status(), read_state(self.settings)
            waits = trigger is None or any(trigger[f"waiting_{what}"] for what in ("files", "blocks", "runs"))
            return (
                bool(status["healthy"]) and not any(status["queues"].values()) and not waits and not self.unfinished()
            )
        except (OSError, ValueError):
            return False

    def wait_until_quiet(self, calm_s: float = 3.0, look_s: float = 0.5) -> None:
        """Until nothing has been under way for a while; looked at so often."""
        end, since = time.monotonic() + PATIENCE_S, None
        while since is None or time.monotonic() - since < calm_s:
            assert time.monotonic() < end, self.stack.site.run("status").stdout
            since = (since or time.monotonic()) if self.is_quiet() else None
            time.sleep(look_s)

    def missing(self) -> list[str]:
        """Stages that lack a product, or have one that is not whole."""
        found = []
        for stage in STAGES:
            whole = [path for path in manifest_paths(self.root(stage)).values() if is_whole(path)]
            inputs = {each.path for made in manifests(self.root(stage)).values() for each in made.inputs}
            lacks = stage == "averaged" and not {str(p.resolve()) for p in self.recorded} <= inputs
            if len(whole) < self.expected(stage) or lacks:
                found.append(stage)
        return found

    def count(self, stage: str) -> int:
        """How many products a stage has; raises AssertionError where one is there twice."""
        return len(manifest_paths(self.root(stage)))

    def recover(self, rounds: int = 4) -> list[str]:
        """Let all end; then ask for the catch-up, which else comes every ten minutes, and again for what is missing.

        The catch-up asks for reductions alone. For the other stages nobody asks again: a message of theirs that was
        taken has had its flow run, and that its tries. They are asked for as a person would, who sees what is missing
        in `orca runs ls --state failed`; what is there already is skipped.

        Returns
        -------
        list of str
            Stages that were asked for by hand, those of all rounds.
        """
        asked = []
        for _ in range(rounds):
            self.stack.site.run("events", "flush")
            self.wait_until_quiet()
            if not (missing := self.missing()):
                break
            if "averaged" in missing:
                self._await([self._run("catch-up", {})])
            stages = [stage for stage in missing if stage != "averaged"]
            if "calibration" in stages and "images" in stages:
                stages.remove("images")  # they need it, and its end asks for them
            for stage in stages:
                asked.append(stage)
                self.submit(stage)
        return asked

    def left_behind(self) -> list[str]:
        """What should not be there: runs that say that they run, dead letters, files that no manifest knows."""
        end = time.monotonic() + PATIENCE_S
        while (running := (self.unfinished(), self.unfinished("task_runs"))) != (0, 0) and time.monotonic() < end:
            time.sleep(1)
        found = [f"{n} {what} have not ended" for n, what in zip(running, ("flow runs", "task runs"), strict=True) if n]
        dead = self.stack.site.run("queues", "dead", "ls", "--json")
        found += [f"dead letter: {letter['what']}: {letter['reason']}" for letter in json.loads(dead.stdout)]
        return found + [path for stage in STAGES for path in strangers(self.root(stage))]

    def undisturbed(self, root: Path) -> None:
        """Make all of it again from the same recordings, elsewhere, with nobody disturbing."""
        asked = self.requests()
        asked["dynspec"]["again"] = True  # not from the cache
        images = asked.pop("images")
        runs = [self._run(stage, {**given, "out": str(root / stage)}) for stage, given in asked.items()]
        self._await(runs)
        made = {
            name.removesuffix(naming.MANIFEST_SUFFIX): path
            for name, path in manifest_paths(root / "calibration").items()
        }
        delay = next(path for name, path in made.items() if name.endswith(".delay"))
        runs = []
        for band in self.size.subbands:
            bandpass = next(path for name, path in made.items() if name.startswith(f"bandpass_concat.{band}_"))
            sets = [str(path) for path in self.imaged if path.parts[-4] == band]
            tables = {"delay": _table(delay), "bandpass": _table(bandpass)}
            out = str(root / "images")
            runs.append(self._run("images", {**images, **tables, "measurement_sets": sets, "out": out}))
        self._await(runs)

    def _run(self, stage: str, parameters: dict[str, Any]) -> str:
        known = self.ask(f"deployments/name/{DEPLOYMENTS[stage]}/{DEPLOYMENTS[stage]}")
        return str(self.ask(f"deployments/{known['id']}/create_flow_run", parameters=parameters)["id"])

    def _await(self, runs: Iterable[str]) -> None:
        end = time.monotonic() + PATIENCE_S
        for run in runs:
            while (state := self.ask(f"flow_runs/{run}")["state"])["type"] not in FINAL:
                assert time.monotonic() < end, f"a flow run is still {state['name']}"
                time.sleep(0.3)
            assert state["type"] == "COMPLETED", state


def _table(manifest: Path) -> str:
    return str(manifest).removesuffix(naming.MANIFEST_SUFFIX)


DEPLOYMENTS = {
    "averaged": "reduction",
    "cosmology": "cosmology",
    "calibration": "nightly-calibration",
    "images": "imaging",
    "dynspec": "spectrum",
    "catch-up": "catch-up",
}
"""Flow and deployment of a stage have one name."""


def forget_environment() -> None:
    """Take out of this process's environment what would lead it to another cluster; for programs that are no tests."""
    for name in [name for name in os.environ if name.startswith(("PREFECT_", "ORCA_", "DASK_"))]:
        del os.environ[name]
    os.environ |= {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}


__all__ = ["STAGES", "Night", "Size", "forget_environment"]
