"""What a Measurement Set must have to be worked on. Imports nothing heavy: flows pass it to their tasks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Acceptance:
    """What a Measurement Set must have to be worth an hour.

    Attributes
    ----------
    settle_s : float
        A file that changes within this time is still being written.
    min_fill_level, max_zero_share : float
        Lowest share of packets that arrived, highest share of samples that are zero.
    """

    settle_s: float = 5.0
    min_fill_level: float = 0.5
    max_zero_share: float = 0.9
