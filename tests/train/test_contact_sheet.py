import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from train.augment import AugmentConfig, Targets
from train.coco import load_coco
from train.contact_sheet import choose_images, draw_sample, drawable, write_contact_sheet
from train.data import open_dataset


@pytest.fixture
def data(shapes: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the set that a test may change: set.json and its images in one folder."""
    shutil.copytree(shapes[1], tmp_path / "data")
    shutil.copy(shapes[0], tmp_path / "data" / "set.json")
    return tmp_path / "data"


def test_contact_sheet_shows_what_training_sees(data: Path, tmp_path: Path) -> None:
    coco = load_coco(data / "set.json")
    path = tmp_path / "sheet.png"
    sheet = write_contact_sheet(coco, data, path, readable=[4], samples=3, seed=5, resolution=128)
    assert sheet.shown == ["4.png"]
    content = json.loads((data / "set.json").read_text())
    content["images"] = content["images"][4:5]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] == 5]
    (data / "one.json").write_text(json.dumps(content))
    dataset = open_dataset(
        data / "one.json", data, cache=tmp_path / "c", seed=5, config=AugmentConfig()
    )
    drawn = draw_sample(*dataset.sample(0, epoch=0, resolution=128), coco.names)
    picture = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)  # noqa: TID251
    x = (picture.shape[1] - 128) // 2
    assert any((picture[y : y + 128, x : x + 128] == drawn).all() for y in range(90))


def test_contact_sheet_is_the_same_for_the_same_seed(data: Path, tmp_path: Path) -> None:
    coco = load_coco(data / "set.json")
    pictures = []
    for seed in (1, 1, 2):
        path = tmp_path / "sheet.png"
        write_contact_sheet(coco, data, path, readable=range(24), samples=4, seed=seed)
        pictures.append(path.read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "sheet.png"]


def test_rare_classes_are_on_the_sheet_and_empty_images_come_last(data: Path) -> None:
    content = json.loads((data / "set.json").read_text())
    last = [a for a in content["annotations"] if a["category_id"] == 2][-1]
    content["annotations"] = [
        a
        for a in content["annotations"]
        if a is last or (a["category_id"] == 1 and a["image_id"] != 1)
    ]
    (data / "set.json").write_text(json.dumps(content))
    coco = load_coco(data / "set.json")
    for seed in range(5):
        chosen = choose_images(coco, range(24), 3, np.random.default_rng(seed))
        labels = [label for k in chosen for label in coco.images[k].targets.labels.tolist()]
        assert len(set(chosen)) == 3 and {1, 2} == set(labels)
    everything = choose_images(coco, range(24), 99, np.random.default_rng(0))
    assert sorted(everything) == list(range(24))
    assert len(coco.images[everything[-1]].targets.labels) == 0


def test_text_that_the_font_cannot_draw_is_escaped() -> None:
    assert drawable("Grüße/кот 1.jpg") == "Grüße/кот 1.jpg"
    assert drawable("猫.jpg") == "\\u732b.jpg"


def test_objects_are_outlined_and_ignore_regions_hatched() -> None:
    image = np.full((200, 200, 3), 128, np.uint8)
    boxes = np.array([[0.1, 0.3, 0.4, 0.6], [0.5, 0.3, 0.9, 0.7]], np.float32)
    targets = Targets(
        boxes, np.array([1, 1]), np.array([False, True]), np.array([1, 1], np.float32)
    )
    drawn = draw_sample(image, targets, ["a"])
    changed = (drawn != 128).any(axis=2)
    assert changed[60, 20:80].all() and changed[60:120, 20].all()  # the outline
    assert not changed[64:116, 24:76].any()  # nothing inside
    assert 0.05 < changed[64:136, 104:176].mean() < 0.4  # lines that leave the image visible
    grey = drawn[64:136, 104:176]
    assert (grey.max(axis=2) == grey.min(axis=2)).all()
    assert not changed[150:].any()
    assert (image == 128).all()
