"""A home, a configuration and a Prefect server of their own for tests that call the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from warm_orca import WarmOrca

ORCA = Path(sys.executable).with_name("orca")
WARM = WarmOrca()
PATIENCE_S = 240.0


@dataclass
class Site:
    """Where `orca` runs: nothing of the user's is seen or touched."""

    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self.folder / "orca"

    @property
    def scratch(self) -> Path:
        return self.data / "scratch"

    def environment(self, **settings: Any) -> dict[str, str]:
        """Environment with a configuration of the given sections, over those of the site."""
        merged = {**self.settings, **settings}
        config = self.folder / f"orca-conf-{abs(hash(json.dumps(merged, sort_keys=True, default=str)))}.yml"
        config.write_text(yaml.safe_dump(merged))
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        return {**kept, "HOME": str(self.folder), "ORCA_CONF": str(config), "DO_NOT_TRACK": "1"}

    def command(self, *words: Any) -> list[str]:
        return [str(ORCA), *map(str, words)]

    def run(
        self, *words: Any, cwd: Path | None = None, alone: bool = False, **settings: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run `orca` to its end; a stage of the pipeline in a process that has imported it, unless `alone`."""
        command, environment = self.command(*words), self.environment(**settings)
        if words[0] != "run" or alone:
            return subprocess.run(
                command,
                env=environment,
                cwd=cwd or self.folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=False,
            )
        out, err = self.folder / "stdout", self.folder / "stderr"
        status = WARM.run(command[1:], environment, cwd or self.folder, out, err, PATIENCE_S)
        return subprocess.CompletedProcess(command, status, out.read_text(), err.read_text())

    def start(self, *words: Any, **settings: Any) -> subprocess.Popen[str]:
        """Start `orca` and return at once."""
        log = (self.folder / "background.log").open("w")
        return subprocess.Popen(
            self.command(*words),
            env=self.environment(**settings),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def leftovers(self) -> list[str]:
        """Scratch folders of units, and hidden temporaries."""
        folders = [str(path) for path in self.scratch.glob("orca-*")]
        # os.walk does not mind folders that are removed meanwhile
        hidden = [
            str(Path(folder, name))
            for folder, subfolders, files in os.walk(self.folder)
            for name in (*subfolders, *files)
            if name.startswith(".orca-")
        ]
        return folders + hidden


def outcomes(result: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """What `--json` printed, by unit."""
    assert result.stdout, result.stderr
    return {entry["unit"]: entry for entry in json.loads(result.stdout)}


def script(path: Path, text: str) -> Path:
    """An executable shell script."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path
