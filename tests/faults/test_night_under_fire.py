"""A miniature night while everything is killed with kill -9: in the end each product is there, once."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from kill_hand import VICTIMS, Hand, table
from same_data import differences
from standing_night import STAGES, Night

SEED = 1
TIMEOUT_S = 900
"""Longer than that of other tests: each wait in here has its own deadline, and says what it waited for."""


@pytest.mark.timeout(TIMEOUT_S)
def test_whatever_is_killed_each_product_is_there_once_whole_and_the_same_as_undisturbed(tmp_path: Path) -> None:
    night = Night(tmp_path / "night")
    with night.standing():
        hand = Hand(night.settings, seed=SEED, pause_s=(1.0, 3.0))
        recorder = threading.Thread(target=night.observe, args=(1.5,))
        recorder.start()
        kills = hand.strike(count=len(VICTIMS))
        recorder.join()
        print(table(kills))  # noqa: T201 - for whoever reads what a failed test said
        assert len({kill.what for kill in kills}) > len(VICTIMS) // 2
        assert [kill for kill in kills if kill.recovery_s is None] == []

        asked = night.recover()
        print(f"asked for again by hand: {asked or 'nothing'}")  # noqa: T201
        assert night.missing() == []
        assert {stage: night.count(stage) for stage in STAGES} == {stage: night.expected(stage) for stage in STAGES}
        assert night.left_behind() == []

        night.undisturbed(night.folder / "undisturbed")
        found = {stage: differences(night.root(stage), night.folder / "undisturbed" / stage) for stage in STAGES}
        assert [text for texts in found.values() for text in texts] == []
