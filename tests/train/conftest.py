"""What the tests of training share; all of them need torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch; run `pip install torch`")
torch.set_num_threads(1)  # two would wait for each other when something else runs

COLOURS = {"red": (40, 40, 220), "green": (40, 220, 40)}
SIDE = 96


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A COCO set of 24 images, each with one or two coloured squares: (json, folder)."""
    folder = tmp_path_factory.mktemp("shapes")
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(24):
        picture = rng.integers(90, 160, (SIDE, SIDE, 3), np.uint8)
        for category in rng.permutation(2)[: 1 + i % 2].tolist():
            side = int(rng.integers(32, 48))
            x, y = int(rng.integers(0, 46)) + category, int(rng.integers(0, SIDE - 48))
            picture[y : y + side, x : x + side] = list(COLOURS.values())[category]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i + 1,
                    "category_id": category + 1,
                    "bbox": [x, y, side, side],
                    "area": side * side,
                    "iscrowd": 0,
                }
            )
        cv2.imwrite(str(folder / f"{i}.png"), picture)
        images.append({"id": i + 1, "file_name": f"{i}.png", "width": SIDE, "height": SIDE})
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(COLOURS)]
    path = folder / "shapes.json"
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return path, folder


@pytest.fixture
def break_off() -> Callable[[Any], None]:
    """Train until the first checkpoint, as a run does that is killed there."""

    class Killed(Exception):
        pass

    def act(run: Any) -> None:
        save = run.save

        def save_and_die() -> None:
            save()
            raise Killed

        run.save = save_and_die
        with pytest.raises(Killed):
            run.fit()

    return act


@pytest.fixture
def launch(tmp_path: Path) -> Callable[..., None]:
    """Run a command with the settings of a run, in processes started by torchrun.

    They start in a folder with `train` alone: in the checkout, its `rdlite` without built kernels
    would stand before an installed one.
    """
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (checkout / "train").symlink_to(Path(__file__).parents[2] / "train")

    def act(command: str, run: Any, *, processes: int) -> None:
        given = {k.replace("_", "-"): v for k, v in run.to_dict().items() if v is not None}
        options = [f"--{k}={v}" for k, v in given.items()]
        launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        done = subprocess.run(
            [sys.executable, "-m", *launcher, "-m", "train", command, *options],
            cwd=checkout,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return act


@pytest.fixture
def quick(tmp_path: Path) -> Callable[..., Callable[..., Any]]:
    """Settings of a kind of run that take seconds, by the name of its folder."""
    common = {"width": 16, "batch": 8, "epochs": 4, "warmup": 2, "workers": 0, "threads": 1}

    def of(kind: type, **fixed: object) -> Callable[..., Any]:
        fixed = common | {"cache": str(tmp_path / "cache")} | fixed
        return lambda name, **options: kind(**(fixed | {"out": str(tmp_path / name)} | options))

    return of


@pytest.fixture
def settings(shapes: tuple[Path, Path], quick: Callable[..., Any]) -> Callable[..., Any]:
    """Settings of a run on `shapes`."""
    from train.config import TrainConfig

    data, images = map(str, shapes)
    return quick(TrainConfig, data=data, images=images, holdout=0.0, resolution="96:0.5,128:1")


@pytest.fixture(scope="session")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small detector to imitate; see `tests.train.teacher`."""
    from tests.train.teacher import save_teacher

    path = tmp_path_factory.mktemp("teacher") / "teacher.onnx"
    save_teacher(path)
    return path
