"""What a detection does where nothing else is asked for, in the library and on the command line."""

from __future__ import annotations

from typing import Final

CONF: Final = 0.4
"""Lowest score kept. F1 of the embedded model is 53.4 there on dev-voc, 11.4 on dev-coco; at best
54.0 and 11.6, at 0.25 49.9 and 9.6."""

IOU: Final = 0.5
"""Overlap from which "hard" and "linear" suppression act."""

NMS: Final = "gaussian"
"""What overlapping boxes of a class do to each other."""

SIGMA: Final = 0.35
"""Width of gaussian suppression. At the usual 0.5 more boxes outlive the one that stands for the
same object: the embedded model's best F1 is 53.7 there and 54.0 here on dev-voc, 11.5 and 11.6 on
dev-coco, its AP 27.7 and 27.6, 9.1 and 9.1. Weights trained for less gained a whole point of F1."""

MAX_DET: Final = 100
"""Most objects in one picture."""
