"""A miniature night under fire: kill -9 to a part of the cluster every few seconds, then what is left of it.

.venv/bin/python benchmarks/night_under_fire.py [--minutes 5] [--seed 1] [--kill server --kill flow-run] [--keep DIR]

On `orca up --cluster` with two nodes a simulated night is recorded, reduced, split, calibrated, imaged and made into
spectra, while a hand kills in turn what it is allowed to (all of it by default). Afterwards the catch-up is asked for,
and by hand what nobody else asks for again; then each product has to be there once and whole, with the data of a night
that nobody disturbed, and no run, dead letter or process may be left. Printed is what was killed when, and how long it
took until it answered again. The test tests/faults/test_night_under_fire.py does the same in short.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from kill_hand import VICTIMS, Hand, Kill, table
from same_data import differences
from standing_night import STAGES, Night, Size, forget_environment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0, help="of fire")
    parser.add_argument("--seed", type=int, default=1, help="of the hand")
    parser.add_argument("--kill", action="append", choices=VICTIMS, help="only this, may be repeated")
    parser.add_argument("--pause", type=float, nargs=2, default=[2.0, 6.0], help="seconds between two kills")
    parser.add_argument("--antennas", type=int, default=24)
    parser.add_argument("--channels", type=int, default=48)
    parser.add_argument("--integrations", type=int, default=24, help="of each of four subbands")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="do all in this new folder, and leave it there")
    asked = parser.parse_args()
    forget_environment()
    size = Size(antennas=asked.antennas, channels=asked.channels, integrations=asked.integrations)
    with tempfile.TemporaryDirectory(prefix="orca-benchmark-") as name:
        night = Night((asked.keep or Path(name)).absolute() / "night", size)
        with night.standing():
            hand = Hand(night.settings, asked.seed, tuple(asked.pause), asked.kill or VICTIMS)
            pause_s = 0.8 * 60 * asked.minutes / size.integrations
            recorder = threading.Thread(target=night.observe, args=(pause_s,))
            recorder.start()
            kills = hand.strike(seconds=60 * asked.minutes)
            recorder.join()
            print(table(kills))
            report(kills)
            begin = time.monotonic()
            by_hand = night.recover()
            print(f"\nall of it was there {time.monotonic() - begin:.0f} s after the last part was back")
            print(f"asked for again by hand: {', '.join(by_hand) or 'nothing'}")
            night.undisturbed(night.folder / "undisturbed")
            wrong = judge(night, kills)
    print("nothing was left running")
    if wrong:
        raise SystemExit("\n".join(wrong))


def report(kills: list[Kill]) -> None:
    """How often each was killed, and how long it was missed."""
    print(f"\n{'killed':12} {'times':>6} {'median s':>9} {'longest s':>10}")
    for what in dict.fromkeys(kill.what for kill in kills):
        back = [kill.recovery_s for kill in kills if kill.what == what and kill.recovery_s is not None]
        count = sum(kill.what == what for kill in kills)
        longest = f"{statistics.median(back):9.1f} {max(back):10.1f}" if back else "never back"
        print(f"{what:12} {count:6d} {longest}")


def judge(night: Night, kills: list[Kill]) -> list[str]:
    """What is wrong with the night; empty if nothing is."""
    wrong = [f"{kill.what} {kill.name} did not come back" for kill in kills if kill.recovery_s is None]
    wrong += night.left_behind()
    print(f"\n{'stage':12} {'products':>9} {'expected':>9} {'other data':>11}")
    for stage in STAGES:
        found = differences(night.root(stage), night.folder / "undisturbed" / stage)
        print(f"{stage:12} {night.count(stage):9d} {night.expected(stage):9d} {len(found):11d}")
        wrong += found
        if night.count(stage) != night.expected(stage):
            wrong.append(f"{stage}: {night.count(stage)} products, expected {night.expected(stage)}")
    return wrong + [f"{stage}: not whole" for stage in night.missing()]


if __name__ == "__main__":
    main()
