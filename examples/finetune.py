"""Teach the embedded model two classes of your own: a generated set, the commands, the result.

python examples/finetune.py my-run

Put your COCO json (or VOC or YOLO folder) in place of the generated one, and leave out the
options after --init: the length is then chosen by the size of your data.
"""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

from rdlite import Detector
from rdlite.evaluate import evaluate

CHECKOUT = Path(__file__).resolve().parents[1]  # `python -m train` runs from there


def make_images(folder: Path, count: int = 24) -> Path:
    """Write pictures of red disks and yellow squares on noise, and their boxes as COCO json."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for number in range(count):
        picture = rng.integers(60, 150, (240, 320, 3), np.uint8)
        for category in (1, 2):
            side = int(rng.integers(90, 140))
            x = int(rng.integers(0, 160 - side)) + 160 * (category == 1 + number % 2)
            y = int(rng.integers(0, 240 - side))
            if category == 1:
                cv2.circle(picture, (x + side // 2, y + side // 2), side // 2, (40, 40, 220), -1)
            else:
                cv2.rectangle(picture, (x, y), (x + side, y + side), (40, 220, 220), -1)
            box = {"bbox": [x, y, side, side], "area": side * side, "iscrowd": 0}
            ids = {"id": len(annotations) + 1, "image_id": number, "category_id": category}
            annotations.append(ids | box)
        cv2.imwrite(str(folder / f"{number}.png"), picture)
        images.append({"id": number, "file_name": f"{number}.png", "width": 320, "height": 240})
    categories = [{"id": 1, "name": "disk"}, {"id": 2, "name": "square"}]
    data = folder / "data.json"
    content = {"images": images, "annotations": annotations, "categories": categories}
    data.write_text(json.dumps(content))
    return data


def train(*arguments: str | Path) -> None:
    """Run `python -m train` with these arguments."""
    subprocess.run([sys.executable, "-m", "train", *map(str, arguments)], cwd=CHECKOUT, check=True)


if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
    sys.exit(__doc__)
run = Path(sys.argv[1]).resolve()
images = run / "images"
data = make_images(images)
train("check", "--data", data, "--images", images, "-o", run / "check")
train(
    *("fit", "--data", data, "--images", images, "--out", run, "--cache", run / "cache"),
    *("--init", "default", "--freeze", "backbone"),
    *("--epochs", "40", "--batch", "8", "--lr", "4e-3", "--resolution", "192:0.75,320:1"),
)

detector = Detector(run / "model.onnx")
print(detector.names)
print(f"AP50 on the training images: {evaluate(detector, data, images).ap50:.2f}")
