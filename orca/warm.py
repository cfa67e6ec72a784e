"""What astropy reads when it is first asked where something is, which takes a second.

Imported by the process from which isolated children are forked (`orca.isolation.preload`), so that none of them waits.
"""

from __future__ import annotations

from orca.geometry import altaz_rad

altaz_rad(0.0, 0.0, 5.0e9)
