"""A product in the making: what its manifest will say, gathered while it is made."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orca import __version__
from orca.process import ProgramRecord
from orca.products import Fingerprint, Manifest, fingerprint


@dataclass(frozen=True)
class Draft:
    """Inputs and options of a product, taken before it is made, and when that began."""

    product: str
    kind: str
    inputs: tuple[Fingerprint, ...]
    options: dict[str, Any]
    started: datetime
    clock: float

    def manifest(
        self,
        *,
        programs: Sequence[ProgramRecord] = (),
        software: Mapping[str, str] | None = None,
        cpu_seconds: float = 0.0,
        peak_memory_bytes: int = 0,
        quality: Mapping[str, float | int | str | None] | None = None,
    ) -> Manifest:
        """The manifest of the finished product; `cpu_seconds` and memory are those besides the programs'."""
        return Manifest(
            product=self.product,
            kind=self.kind,
            inputs=self.inputs,
            options=self.options,
            software={"orca": __version__, **(software or {})},
            programs=tuple(asdict(program) for program in programs),
            started=self.started.isoformat(timespec="seconds"),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=time.monotonic() - self.clock,
            cpu_seconds=cpu_seconds + sum(program.cpu_seconds for program in programs),
            peak_memory_bytes=max([peak_memory_bytes, *(program.peak_memory_bytes for program in programs)]),
            read_bytes=sum(i.size for i in self.inputs) + sum(program.read_bytes for program in programs),
            written_bytes=sum(program.written_bytes for program in programs),
            quality=dict(quality or {}),
            host=platform.node(),
        )


def draft(product: str, kind: str, inputs: Iterable[Path], options: Mapping[str, Any]) -> Draft:
    """Begin a product: take the fingerprints of its inputs before anything is read.

    Raises
    ------
    MissingDataError
        An input is not there.
    """
    prints = tuple(fingerprint(Path(path)) for path in inputs)
    return Draft(product, kind, prints, dict(options), datetime.now(UTC), time.monotonic())
