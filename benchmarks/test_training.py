"""One optimiser step of the recipes, side by side, on one thread; needs PyTorch."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch; run `pip install torch`")

BATCH, SIDE = 16, 192
TARGET = 1.15  # of the basic recipe's time
NOISE = 0.25  # of a ratio of two medians of five on a busy machine


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """32 images of noise with six boxes each, of the 80 classes of COCO."""
    folder = tmp_path_factory.mktemp("boxes")
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(2 * BATCH):
        cv2.imwrite(str(folder / f"{i}.png"), rng.integers(0, 255, (240, 320, 3), np.uint8))
        images.append({"id": i, "file_name": f"{i}.png", "width": 320, "height": 240})
        for x, y, w, h in rng.integers(30, 120, (6, 4)).tolist():
            ids = {"id": len(annotations) + 1, "image_id": i, "category_id": 1 + x % 80}
            annotations.append(ids | {"bbox": [x, y, w, h], "area": w * h, "iscrowd": 0})
    categories = [{"id": k + 1, "name": f"class {k}"} for k in range(80)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "data.json").write_text(json.dumps(content))
    return folder / "data.json", folder


@pytest.mark.parametrize("row", ["e", "f", "g", "h", "o"])
def test_a_step_of_a_recipe_against_the_basic_one(
    data: tuple[Path, Path], tmp_path: Path, benchmark: Any, row: str
) -> None:
    """Row c and another in turns, so that both meet the same disturbances; the medians' ratio."""
    from train.engine import Trainer
    from train.recipes import make_config

    def step_of(row: str) -> Callable[[], float]:
        given = {"data": str(data[0]), "images": str(data[1]), "out": str(tmp_path / row)}
        given |= {"cache": str(tmp_path), "resolution": str(SIDE), "batch": BATCH}
        trainer = Trainer(make_config([row], given | {"threads": 1, "workers": 0, "epochs": 1}))
        batch = next(trainer.batches())

        def step() -> float:
            start = time.perf_counter()
            trainer.train_step(batch)
            return time.perf_counter() - start

        return step

    basic, other = step_of("c"), step_of(row)
    times: list[tuple[float, float]] = []
    benchmark.pedantic(
        lambda: times.append((basic(), other())), rounds=5, warmup_rounds=1, iterations=1
    )
    low, high = np.median(np.array(times[1:]), axis=0).tolist()
    benchmark.extra_info |= {"basic_s": low, "row_s": high, "ratio": high / low}
    print(f"\nc {low:.3f} s, {row} {high:.3f} s, ratio {high / low:.3f} (target {TARGET})")
    assert high <= (TARGET + NOISE) * low
