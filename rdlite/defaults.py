"""What a detection does where nothing else is asked for, in the library and on the command line."""

from __future__ import annotations

from typing import Final

CONF: Final = 0.25
"""Lowest score kept."""

IOU: Final = 0.5
"""Overlap from which "hard" and "linear" suppression act."""

NMS: Final = "gaussian"
"""What overlapping boxes of a class do to each other."""

MAX_DET: Final = 100
"""Most objects in one picture."""
