"""Export detectors of other packages at 320x320, with random weights, to be timed beside ours.

They need an environment of their own:

python -m venv others && others/bin/pip install torch==2.13.0 easydetect ultralytics onnx onnxscript
others/bin/python benchmarks/table/export_others.py FOLDER
python -m benchmarks.table --others FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

SIDE = 320


def export_easydetect(folder: Path) -> None:
    """ed-n, a real-time DETR, as its package exports it: with boxes decoded, no suppression."""
    from easydetect.exporter import export_onnx
    from easydetect.nn import EDNet

    network = EDNet("n", pretrained_backbone=False)
    export_onnx(network, {}, imgsz=SIDE, out_dir=folder, fname="ed-n")


def export_ultralytics(name: str, folder: Path) -> None:
    """A YOLO as its package exports it: with boxes decoded; YOLO26 needs no suppression."""
    from ultralytics import YOLO

    path = YOLO(f"{name}.yaml").export(format="onnx", imgsz=SIDE, simplify=False)
    Path(path).replace(folder / f"{name}.onnx")


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    export_easydetect(target)
    for model in ("yolo11n", "yolo26n"):
        export_ultralytics(model, target)
