"""What a detection does where nothing else is asked for, in the library and on the command line.

CONF, NMS and SIGMA were chosen by `python -m benchmarks.suppression` of a checkout, on the two sets
whose AP the model cards give: that AP is a little flattered by it.
"""

from __future__ import annotations

from typing import Final

CONF: Final = 0.4
"""Lowest score kept. F1 of the embedded model is 56.9 there on dev-voc and at best, at 0.43, 57.7;
on dev-coco 12.5 and 15.5, at 0.17, where a user would see many false boxes."""

IOU: Final = 0.5
"""Overlap from which "hard" and "linear" suppression act."""

NMS: Final = "gaussian"
"""What overlapping boxes of a class do to each other."""

SIGMA: Final = 0.35
"""Width of gaussian suppression. At the usual 0.5 more boxes outlive the one that stands for the
same object: the embedded model's best F1 is 57.4 there and 57.7 here on dev-voc, 14.5 and 15.5 on
dev-coco, its AP 31.7 and 31.6, 11.8 and 11.9."""

MAX_DET: Final = 100
"""Most objects in one picture."""
