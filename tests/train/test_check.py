import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from train.__main__ import main
from train.survey import survey
from train.weights import read_weights

Change = Callable[[dict[str, Any], Path], None]


@pytest.fixture
def data(shapes: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the set that a test may damage: set.json and its images in one folder."""
    json_path, images = shapes
    folder = tmp_path / "data"
    shutil.copytree(images, folder)
    shutil.copy(json_path, folder / "set.json")
    return folder


def run(folder: Path, *more: str) -> int:
    options = ["--data", str(folder / "set.json"), "--images", str(folder)]
    return main(["check", *options, "-o", str(folder.parent / "check"), "--samples", "6", *more])


def report(folder: Path) -> str:
    return (folder.parent / "check" / "check.md").read_text()


def change(folder: Path, edit: Change) -> None:
    content = json.loads((folder / "set.json").read_text())
    edit(content, folder)
    (folder / "set.json").write_text(json.dumps(content))


def row(text: str, start: str) -> list[str]:
    """The cells of the one table row whose first cell or second cell is `start`."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    (found,) = [cells for cells in rows if start in cells[:2]]
    return found


def test_sound_data_gives_0_and_a_report(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(data) == 0
    text = report(data)
    assert capsys.readouterr().out.startswith(text.partition("## Rules")[0])
    assert "**Sound:**" in text
    assert row(text, "images")[1] == "24 listed, 24 usable"
    assert row(text.partition("## Classes")[0], "objects")[1] == "36"
    assert int(row(text, "red")[1]) + int(row(text, "green")[1]) == 36
    assert row(text, "format")[1] == "COCO json"
    # 32 to 47 pixels of 96 are 107 to 157 of 320
    assert int(row(text, "64-127")[1]) + int(row(text, "128-255")[1]) == 36
    assert re.search(r"0-320 +36 +1\.00", text)  # the recall of the anchors


def missing(content: dict[str, Any], folder: Path) -> None:
    (folder / "3.png").unlink()
    (folder / "5.png").unlink()


def truncated_header(content: dict[str, Any], folder: Path) -> None:
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:20])


def other_size(content: dict[str, Any], folder: Path) -> None:
    content["images"][3]["width"] += 1


def empty_box(content: dict[str, Any], folder: Path) -> None:
    content["annotations"][0]["bbox"] = [10, 10, 5, -5]


def outside_box(content: dict[str, Any], folder: Path) -> None:
    content["annotations"][0]["bbox"] = [96, 10, 5, 5]


@pytest.mark.parametrize(
    ("edit", "found", "number", "first"),
    [
        (missing, "images missing", 2, "3.png: it is not in"),
        (truncated_header, "images damaged", 1, "3.png: the PNG header is incomplete"),
        (other_size, "images of another size than the annotations say", 1, "3.png: it has 96x96"),
        (empty_box, "boxes without width or height", 1, "0.png, annotation 1"),
        (outside_box, "boxes wholly outside their image", 1, "0.png, annotation 1"),
    ],
)
def test_lost_data_is_counted_and_gives_3(
    data: Path, edit: Change, found: str, number: int, first: str
) -> None:
    change(data, edit)
    assert run(data) == 3
    text = report(data)
    assert f"**Not sound:** {found}: {number}." in text
    cells = row(text, found)
    assert cells[0] == "problem" and cells[2] == str(number)
    assert cells[3].startswith(first)


def clipped_box(content: dict[str, Any], folder: Path) -> None:
    content["annotations"][0]["bbox"] = [90, 10, 20, 5]


def repeated_box(content: dict[str, Any], folder: Path) -> None:
    content["annotations"].append(content["annotations"][0] | {"id": 99})


def no_objects(content: dict[str, Any], folder: Path) -> None:
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] > 3]


def unlisted(content: dict[str, Any], folder: Path) -> None:
    shutil.copy(folder / "0.png", folder / "other.png")


@pytest.mark.parametrize(
    ("edit", "found", "number", "first"),
    [
        (clipped_box, "boxes that reach beyond their image, clipped", 1, "0.png, annotation 1"),
        (repeated_box, "boxes that repeat another one", 1, "0.png"),
        (no_objects, "images without objects", 3, "0.png; 1.png; 2.png"),
        (unlisted, "images in the folder that no annotation file lists", 1, "other.png"),
        (no_objects, "classes with fewer than 20 boxes", 2, "red (14); green (18)"),
    ],
)
def test_what_loses_nothing_is_noted(
    data: Path, edit: Change, found: str, number: int, first: str
) -> None:
    change(data, edit)
    assert run(data) == 0
    assert row(report(data), found) == ["note", found, str(number), first]


def unknown_class(content: dict[str, Any], folder: Path) -> None:
    content["annotations"][0]["category_id"] = 9


def no_boxes(content: dict[str, Any], folder: Path) -> None:
    content["annotations"] = []


def no_images(content: dict[str, Any], folder: Path) -> None:
    for path in folder.glob("*.png"):
        path.unlink()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (unknown_class, "category_id 9, which the file does not list"),
        (no_boxes, "no box to learn from"),
        (no_images, "no image of .* (images missing: 24; the first, 0.png: it is not in"),
    ],
)
def test_data_that_cannot_be_used_gives_1_and_a_sentence(
    data: Path, edit: Change, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(data, edit)
    assert run(data) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message.split(" .* ")[0] in error and message.split(" .* ")[-1] in error


def many_faults(content: dict[str, Any], folder: Path) -> None:
    for annotation in content["annotations"][:8]:
        annotation["category_id"] = 9
    content["annotations"][8]["bbox"] = [1, 2, 3]
    content["images"][5]["id"] = 1


def test_all_faults_of_both_sets_are_listed_in_the_terminal_and_the_report(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(data / "set.json", data / "val.json")
    change(data, many_faults)
    (data / "val.json").write_text((data / "set.json").read_text().replace('"red"', '"green"'))
    assert run(data, "--val", str(data / "val.json")) == 1
    out, err = capsys.readouterr()
    text = report(data)
    assert out.strip() and text.startswith(out.strip())
    train, val = out.split("## ")[1:]
    for part in (train, val):
        assert "**annotations of an unknown class: 8**\n\n* annotation 1 has category_id 9" in part
        assert part.count("has category_id 9") == 5 and "* and 3 more" in part
        assert "**boxes that are not four finite numbers: 1**" in part
        assert "**images whose id occurs twice: 1**" in part
    assert "categories whose name occurs twice: 1" in val
    assert "categories whose name occurs twice" not in train
    assert err.startswith("error: ") and "set.json: id 1 occurs twice in images" in err


def test_one_sentence_is_not_said_twice(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(data, "--data", "nowhere.json") == 1
    out, err = capsys.readouterr()
    assert out == "" and "there is nothing at nowhere.json" in err
    assert "there is nothing at nowhere.json" in report(data)


def test_training_set_given_as_validation_set_is_refused(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(data, "--val", f"{data}/../data/set.json") == 1
    assert "training and validation are both given" in capsys.readouterr().err


def test_validation_images_elsewhere_are_the_cause_that_is_named(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = "<size><width>96</width><height>96</height></size>"
    box = "<bndbox><xmin>9</xmin><ymin>9</ymin><xmax>50</xmax><ymax>50</ymax></bndbox>"
    objects = f"<object><name>red</name>{box}</object><object><name>red</name></object>"
    (data.parent / "val").mkdir()
    text = f"<annotation>{size}{objects}</annotation>"
    (data.parent / "val" / "elsewhere.xml").write_text(text)
    assert run(data, "--val", str(data.parent / "val")) == 1
    error = capsys.readouterr().err
    assert "(images missing: 1; the first, elsewhere.xml: it is not in" in error
    assert "bndbox" not in error and "--val-images" in error


def test_yolo_split_val_is_checked_against_the_split_train(data: Path) -> None:
    for split, names in (("train", "012"), ("val", "34")):
        for name in names:
            (data / "yolo" / "images" / split).mkdir(parents=True, exist_ok=True)
            (data / "yolo" / "labels" / split).mkdir(parents=True, exist_ok=True)
            shutil.copy(data / f"{name}.png", data / "yolo" / "images" / split)
            label = data / "yolo" / "labels" / split / f"{name}.txt"
            label.write_text("0 0.5 0.5 0.4 0.4\n")
    settings = data / "yolo" / "data.yaml"
    settings.write_text("train: ../images/train\nval: images/val\nnames: [red]\n")
    given = ["--data", str(settings), "--val", str(settings), "--images", str(data / "yolo")]
    assert run(data, *given) == 0
    train, val = report(data).partition("## Classes")[0].split("## Validation")
    assert row(train, "images")[1] == "3 listed, 3 usable"
    assert row(val, "images")[1] == "2 listed, 2 usable"
    assert row(train, "format")[1] == "YOLO txt, split train"
    assert row(val, "format")[1] == "YOLO txt, split val"
    assert "is not there" in row(train, "places of images that the YAML file misnames")[3]


def test_damage_behind_the_header_is_found_by_decoding(data: Path) -> None:
    whole = (data / "3.png").read_bytes()
    (data / "3.png").write_bytes(whole[: len(whole) // 2])
    json_path = str(data / "set.json")
    assert not any(survey(json_path, str(data), decode=False).problems.values())
    problems = survey(json_path, str(data), decode=True).problems
    assert [name[:5] for name in problems["images damaged"]] == ["3.png"]
    assert run(data, "--samples", "24") == 3  # also when it turns up on the sheet
    assert row(report(data), "images")[1] == "24 listed, 23 usable"


def test_images_shared_with_validation_are_found_by_bytes_and_by_name(
    data: Path, tmp_path: Path
) -> None:
    content = json.loads((data / "set.json").read_text())
    val = tmp_path / "val"
    val.mkdir()
    shutil.copy(data / "3.png", val / "twin.png")
    shutil.copy(data / "4.png", val / "4.png")
    rng = np.random.default_rng(9)
    cv2.imwrite(str(val / "5.png"), rng.integers(0, 256, (96, 96, 3), np.uint8))
    content["images"] = [
        content["images"][0] | {"id": k, "file_name": name}
        for k, name in enumerate(("twin.png", "4.png", "5.png"))
    ]
    content["annotations"] = [{"image_id": 0, "category_id": 7, "bbox": [1, 1, 9, 9]}]
    content["categories"] = [{"id": 7, "name": "green"}, {"id": 8, "name": "violet"}]
    (val / "val.json").write_text(json.dumps(content))

    assert run(data, "--val", str(val / "val.json"), "--val-images", str(val)) == 3

    text = report(data)
    shared = row(text, "images that are also in the validation set, byte for byte")
    assert shared[2:] == ["2", "3.png = twin.png; 4.png"]
    assert row(text, "file names that are also in the validation set")[2:] == ["2", "4.png; 5.png"]
    assert row(text, "classes that training does not have")[3] == "violet"
    assert row(text, "classes of training without a box here")[3] == "red"
    assert row(text, "green")[2:4] == ["0", "1"]


def test_report_says_which_classes_the_starting_weights_know(data: Path) -> None:
    def rename(content: dict[str, Any], folder: Path) -> None:
        known = read_weights("default").names
        assert known
        content["categories"][0]["name"] = known[1].upper()

    change(data, rename)
    assert run(data) == 0
    text = report(data)
    known = read_weights("default").names
    assert known
    assert row(text, known[1].upper())[3] == known[1]
    assert row(text, "green")[3] == "new"
    assert "1 of 2 classes are known" in text


@pytest.mark.parametrize("kind", ["voc", "yolo"])
def test_other_formats_are_checked_alike(data: Path, kind: str) -> None:
    labels = data.parent / kind
    labels.mkdir()
    if kind == "yolo":
        (labels / "classes.txt").write_text("red\n")
        (labels / "0.txt").write_text("0 0.5 0.5 0.4 0.4\n0 2 2 0.1 0.1\n")
    else:
        box = "<bndbox><xmin>9</xmin><ymin>9</ymin><xmax>50</xmax><ymax>50</ymax></bndbox>"
        one = f"<object><name>red</name>{box}</object>"
        size = "<size><width>96</width><height>96</height></size>"
        text = f"<annotation>{size}{one}<object><name>red</name></object></annotation>"
        (labels / "0.xml").write_text(text)
    assert run(data, "--data", str(labels)) == 3
    text = report(data)
    lost = (
        "boxes wholly outside their image" if kind == "yolo" else "objects without a whole <bndbox>"
    )
    assert row(text, lost)[2] == "1"
    assert row(text, "red")[1] == "1"


def test_samples_must_be_a_positive_number(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(data, "--samples", "0") == 1
    assert "samples must be 1 or more" in capsys.readouterr().err
