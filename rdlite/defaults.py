"""What a detection does where nothing else is asked for, in the library and on the command line.

CONF, NMS and SIGMA were chosen by `python -m benchmarks.suppression` of a checkout, on the two sets
whose AP the model cards give: that AP is a little flattered by it.
"""

from __future__ import annotations

from typing import Final

CONF: Final = 0.4
"""Lowest score kept. F1 of the embedded model is 54.6 there on dev-voc and at best, at 0.43, 54.8;
on dev-coco 11.0 and 12.1, at 0.07, where a user would see little but false boxes."""

IOU: Final = 0.5
"""Overlap from which "hard" and "linear" suppression act."""

NMS: Final = "gaussian"
"""What overlapping boxes of a class do to each other."""

SIGMA: Final = 0.35
"""Width of gaussian suppression. At the usual 0.5 more boxes outlive the one that stands for the
same object: the embedded model's best F1 is 54.5 there and 54.8 here on dev-voc, 11.6 and 12.1 on
dev-coco, its AP 28.6 and 9.7 with both."""

MAX_DET: Final = 100
"""Most objects in one picture."""
