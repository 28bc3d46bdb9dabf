"""Annotated image sets in the formats of Pascal VOC and YOLO, made in tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

WIDTH, HEIGHT = 100, 50


def write_image(path: Path, seed: int = 0) -> None:
    """Write noise of the size above in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())


SIZE = f"<width>{WIDTH}</width><height>{HEIGHT}</height>"


def xml(*objects: str, filename: str = "", size: str = SIZE) -> str:
    """A Pascal VOC annotation."""
    return (
        f"<annotation><filename>{filename}</filename><size>{size}</size>"
        f"{''.join(objects)}</annotation>"
    )


def voc_object(name: str, *corners: float, more: str = "") -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    box = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return f"<object><name>{name}</name>{more}<bndbox>{box}</bndbox></object>"


def write_all(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def boxes(content: dict[str, Any]) -> list[tuple[str, str, list[float], int]]:
    """(file, class, bbox, iscrowd) of each annotation."""
    files = {image["id"]: image["file_name"] for image in content["images"]}
    names = {category["id"]: category["name"] for category in content["categories"]}
    return [
        (files[a["image_id"]], names[a["category_id"]], a["bbox"], a["iscrowd"])
        for a in content["annotations"]
    ]


def yolo_set(folder: Path) -> Path:
    """Write a YOLO set: images a and b (without objects) to train on, c to validate on."""
    for split, name in (("train", "a"), ("train", "b"), ("val", "c")):
        write_image(folder / "images" / split / f"{name}.png")
    return write_all(
        folder,
        {
            "data.yaml": "train: images/train\nval: images/val\nnames: [dog, cat]\n",
            "labels/train/a.txt": "1 0.5 0.5 0.2 0.4\n\n0 0.1 0.1 0.2 0.2\n",
            "labels/val/c.txt": "0 0.5 0.5 1 1\n",
        },
    )


COCO_SIZE = (60, 40)
"""Width and height of the images of `coco_content`."""


def coco_content(count: int) -> dict[str, Any]:
    """Images "0.png" and on, with a dog of score 0.5 and a cat in each; odd cats are crowds."""
    width, height = COCO_SIZE
    annotations = [
        {"image_id": 10 + k, "category_id": 7, "bbox": [5, 5, 20, 10], "score": 0.5, "id": 2 * k}
        for k in range(count)
    ] + [
        {"image_id": 10 + k, "category_id": 3, "bbox": [30, 20, 20, 15], "iscrowd": k % 2}
        for k in range(count)
    ]
    return {
        "images": [
            {"id": 10 + k, "file_name": f"{k}.png", "width": width, "height": height}
            for k in range(count)
        ],
        "annotations": annotations,
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
    }


def write_json(folder: Path, value: Any) -> Path:
    """Write set.json."""
    path = folder / "set.json"
    path.write_text(json.dumps(value))
    return path
