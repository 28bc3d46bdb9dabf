"""Small annotated sets, results for them, and what pycocotools says about both."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

# `tiny_model` of conftest.py sees cells of 16x16 pixels in 96x64 images.
CELL = 16
COLOURS = {1: (250, 20, 20), 2: (20, 250, 20), 3: (20, 20, 250)}
NAMES = {1: "person", 2: "bicycle", 3: "car"}
Object = tuple[int, int, int]
"""Category id, column and row of a cell."""

SCENES: list[list[Object]] = [
    [(1, 1, 1), (3, 4, 2)],
    [(2, 0, 0), (2, 4, 3)],
    [],
    [(1, 5, 0)],
]


def picture(objects: list[Object]) -> np.ndarray:
    image = np.full((64, 96, 3), 90, np.uint8)
    for category, column, row in objects:
        corner = slice(row * CELL, (row + 1) * CELL), slice(column * CELL, (column + 1) * CELL)
        image[corner] = COLOURS[category]
    return image


def annotation(image: int, placed: Object, **extra: Any) -> dict[str, Any]:
    category, column, row = placed
    box = [column * CELL, row * CELL, CELL, CELL]
    return {"image_id": image, "category_id": category, "bbox": box, **extra}


def write_set(folder: Path, scenes: list[list[Object]], **changes: Any) -> Path:
    """Writes a set whose image k (0.png, 1.png, ...) shows and annotates `scenes[k]`."""
    for k, objects in enumerate(scenes):
        cv2.imwrite(str(folder / f"{k}.png"), picture(objects))
    value = {
        "images": [
            {"id": k, "file_name": f"{k}.png", "width": 96, "height": 64}
            for k in range(len(scenes))
        ],
        "annotations": [annotation(k, one) for k, objects in enumerate(scenes) for one in objects],
        "categories": [{"id": k, "name": name} for k, name in NAMES.items()],
    }
    path = folder / "set.json"
    path.write_text(json.dumps(value | changes))
    return path


def random_set(seed: int, images: int = 20, classes: int = 4) -> dict[str, Any]:
    """Annotations with crowds, areas other than the box's, images and a class without objects."""
    rng = np.random.default_rng(seed)
    annotations = []
    for image in range(1, images + 1):
        for _ in range(rng.integers(0, 6)):
            width, height = np.round(np.exp(rng.uniform(2, 5.2, 2)), 1).tolist()
            x, y = np.round(rng.uniform(0, 300, 2), 1).tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": 10 * int(rng.integers(1, classes)),  # the last has none
                    "bbox": [x, y, width, height],
                    "area": round(width * height * float(rng.uniform(0.4, 1)), 1),
                    "iscrowd": int(rng.random() < 0.15),
                }
            )
    return {
        "images": [
            {"id": k, "file_name": f"{k}.png", "width": 640, "height": 480}
            for k in range(1, images + 1)
        ],
        "annotations": annotations,
        "categories": [{"id": 10 * k, "name": f"class {k}"} for k in range(1, classes + 1)],
    }


def random_results(content: dict[str, Any], seed: int, noise: float = 0.1) -> list[dict[str, Any]]:
    """COCO results: objects moved, missed, doubled and mistaken, and boxes on none; with ties."""
    rng = np.random.default_rng(seed)
    ids = [one["id"] for one in content["categories"]]
    found = []
    for one in content["annotations"]:
        for _ in range(rng.integers(0, 3)):
            box = np.array(one["bbox"]) + rng.normal(0, noise, 4) * one["bbox"][2]
            wrong = rng.random() < 0.2
            category = int(rng.choice(ids)) if wrong else one["category_id"]
            found.append((one["image_id"], category, box, rng.uniform(0.02, 1)))
    for _ in range(3 * len(content["images"])):
        box = np.concatenate([rng.uniform(0, 300, 2), rng.uniform(10, 200, 2)])
        image = int(rng.choice([one["id"] for one in content["images"]]))
        found.append((image, int(rng.choice(ids)), box, rng.uniform(0.02, 0.6)))
    return [
        {
            "image_id": image,
            "category_id": category,
            "bbox": np.round([*box[:2], *np.maximum(box[2:], 1)], 2).tolist(),
            "score": round(float(score), 2),
        }
        for image, category, box, score in found
    ]


def coco_eval(content: dict[str, Any], results: list[dict[str, Any]], **params: Any) -> Any:
    """The evaluation of pycocotools, accumulated."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = content
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes([dict(one) for one in results]), "bbox")
        for name, value in params.items():
            setattr(run.params, name, value)
        run.evaluate()
        run.accumulate()
        if not params:
            run.summarize()
    return run
