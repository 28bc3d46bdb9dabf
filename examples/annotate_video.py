"""Write a copy of a video with people and vehicles boxed, its sound kept.

python examples/annotate_video.py clip.mp4 annotated.mp4
"""

import sys

from rdlite import Detector

if len(sys.argv) != 3:
    sys.exit(__doc__)
source, target = sys.argv[1:]
detector = Detector(classes=["person", "bicycle", "car", "motorcycle", "bus", "truck"])
summary = detector.annotate_video(source, target, stride=2, overwrite=True)
print(f"{summary.frames} frames, {summary.detections}")
for sentence in summary.warnings:  # damaged packets, a truncated file, streams left out
    print(sentence)
