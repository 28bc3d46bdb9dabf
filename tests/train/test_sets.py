from __future__ import annotations

import json
from pathlib import Path

import pytest

from rdlite.errors import OptionError
from rdlite.evaluate.dataset import DataError
from train.sets import open_sets

Shapes = tuple[Path, Path]
KNOWN = ("red", "green")


def write_yolo(shapes: Shapes, folder: Path) -> Path:
    """The same boxes as label files, under a data.yaml with the split "val"."""
    truth = json.loads(shapes[0].read_text())
    side = truth["images"][0]["width"]
    lines: dict[int, list[str]] = {image["id"]: [] for image in truth["images"]}
    for one in truth["annotations"]:
        x, y, w, h = (v / side for v in one["bbox"])
        lines[one["image_id"]].append(f"{one['category_id'] - 1} {x + w / 2} {y + h / 2} {w} {h}")
    for place in ("images", "labels"):
        (folder / place).mkdir(parents=True)
    for image in truth["images"]:
        name = Path(image["file_name"])
        (folder / "images" / name).write_bytes((shapes[1] / name).read_bytes())
        (folder / "labels" / f"{name.stem}.txt").write_text("\n".join(lines[image["id"]]))
    path = folder / "data.yaml"
    path.write_text("val: images\nnames: [red, green]\n")
    return path


def test_a_coco_file_is_taken_as_it_is(shapes: Shapes, tmp_path: Path) -> None:
    [one] = open_sets([(str(shapes[0]), str(shapes[1]))], KNOWN, tmp_path)
    assert one == ("shapes", shapes[0], str(shapes[1]))


def test_other_formats_become_coco(
    shapes: Shapes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_yolo(shapes, tmp_path / "yolo")
    (tmp_path / "yolo" / "labels" / "stray.txt").write_text("")
    [one] = open_sets([(f"{path}:val", str(tmp_path / "yolo"))], KNOWN, tmp_path)
    assert one.name == "data-val"
    ours = json.loads(one.annotations.read_text())["annotations"]
    truth = json.loads(shapes[0].read_text())["annotations"]
    boxes = sorted([round(v, 6) for v in a["bbox"]] for a in ours)
    assert boxes == sorted(a["bbox"] for a in truth) and len(boxes) == 36
    assert "data-val: not counted: 1 label files without an image: " in capsys.readouterr().out


def test_sets_of_one_name_are_refused(shapes: Shapes, tmp_path: Path) -> None:
    pair = (str(shapes[0]), str(shapes[1]))
    with pytest.raises(OptionError, match="told apart by name, got shapes, shapes"):
        open_sets([pair, pair], KNOWN, tmp_path)


def test_a_set_without_its_images_is_refused(shapes: Shapes, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of the 24 images of .*shapes\.json .*0\.png"):
        open_sets([(str(shapes[0]), str(tmp_path))], KNOWN, tmp_path)


def test_a_set_that_annotates_no_known_class_is_refused(shapes: Shapes, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="it has red, green, the model cat"):
        open_sets([(str(shapes[0]), str(shapes[1]))], ["cat"], tmp_path)
