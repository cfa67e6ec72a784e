"""The night at a glance: what was expected, recorded, made and lost, by names and manifests on disk alone."""

from orca.night.account import Account, take_account
from orca.night.cell import Cell, Counts, Places

__all__ = ["Account", "Cell", "Counts", "Places", "take_account"]
