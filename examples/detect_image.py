"""Find objects in one image and save a copy with the boxes drawn.

python examples/detect_image.py street.jpg boxes.png
"""

import sys

import cv2

from rdlite import Detector
from rdlite.annotate import draw
from rdlite.image import load

if len(sys.argv) != 3:
    sys.exit(__doc__)
source, target = sys.argv[1:]
image = load(source)
detections = Detector(conf=0.3)(image)
for box in detections:
    x1, y1, x2, y2 = (round(side) for side in box.xyxy)
    print(f"{box.name:15} {box.confidence:.2f}  ({x1}, {y1}) to ({x2}, {y2})")
if not cv2.imwrite(target, draw(image, detections)):
    sys.exit(f"{target} could not be written")
