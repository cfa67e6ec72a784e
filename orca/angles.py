"""Angles as people write them."""

from __future__ import annotations

import re
from typing import Any

_SEXAGESIMAL = re.compile(r"\s*([+-]?)(\d{1,3}):([0-5]?\d):([0-5]?\d(?:\.\d*)?)\s*")


def angle_deg(text: Any, *, hours: bool) -> float:
    """Degrees of "19:59:28.4" (hours or degrees, minutes, seconds) or of plain degrees.

    Raises
    ------
    ValueError
        It is neither.
    """
    if found := _SEXAGESIMAL.fullmatch(str(text)):
        sign, whole, minutes, seconds = found.groups()
        angle = int(whole) + int(minutes) / 60 + float(seconds) / 3600
        return (-1 if sign == "-" else 1) * angle * (15 if hours else 1)
    try:
        return float(text)
    except (TypeError, ValueError):
        example = '"19:59:28.4" (hours) or 299.868' if hours else '"+40:44:02" or 40.734'
        raise ValueError(f"{str(text)[:40]!r} is no angle: give {example} (degrees)") from None
