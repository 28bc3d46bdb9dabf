import io
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rdlite.evaluate.cocofile import read_coco
from rdlite.evaluate.dataset import DataError
from tests.annotated import HEIGHT, WIDTH, boxes, write_all, write_image, yolo_set
from train.coco import load_coco
from train.config import TrainConfig
from train.data import open_dataset
from train.formats import read_annotations
from train.validation import write_validation


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    return yolo_set(tmp_path)


def test_yolo_boxes_become_pixels_in_the_order_of_the_names(yolo: Path) -> None:
    content = read_annotations(yolo / "data.yaml", yolo)
    assert content["categories"] == [{"id": 0, "name": "dog"}, {"id": 1, "name": "cat"}]
    (_, first, one, _), (_, second, other, _) = boxes(content)
    assert (first, second) == ("cat", "dog")
    assert one == pytest.approx([40, 15, 20, 20]) and other == pytest.approx([0, 0, 20, 10])
    images = [(i["file_name"], i["width"], i["height"]) for i in content["images"]]
    assert images == [("images/train/a.png", 100, 50), ("images/train/b.png", 100, 50)]
    assert load_coco(yolo, yolo).images[1].targets.boxes.shape == (0, 4)  # no txt: no objects


def test_yolo_split_is_picked_by_name(yolo: Path) -> None:
    content = read_annotations(f"{yolo / 'data.yaml'}:val", yolo / "images")
    assert boxes(content) == [("val/c.png", "dog", [0, 0, WIDTH, HEIGHT], 0)]
    with pytest.raises(DataError, match=r"no images for the split 'test'.* has: .*yaml:val"):
        read_annotations(f"{yolo / 'data.yaml'}:test", yolo)


def test_yolo_validation_takes_the_split_val_unless_another_is_named(yolo: Path) -> None:
    for data in (yolo, yolo / "data.yaml"):
        content = read_annotations(data, yolo, default_split="val")
        assert [image["file_name"] for image in content["images"]] == ["images/val/c.png"]
    named = read_annotations(f"{yolo / 'data.yaml'}:train", yolo, default_split="val")
    assert len(named["images"]) == 2


@pytest.mark.parametrize("data", ["labels", "labels/train"])
def test_yolo_labels_are_laid_out_as_the_images(yolo: Path, data: str) -> None:
    content = read_annotations(yolo / data, yolo / data.replace("labels", "images"))
    assert {Path(i["file_name"]).name for i in content["images"]} >= {"a.png", "b.png"}
    assert len(content["annotations"]) == (3 if data == "labels" else 2)


def test_yolo_run_is_measured_on_the_split_val_of_the_file_it_trains_on(yolo: Path) -> None:
    data, images = str(yolo / "data.yaml"), str(yolo)
    dataset = open_dataset(data, images, cache=yolo / "cache", progress=False)
    config = TrainConfig(data=data, images=images, val=data, out=images)
    written, _ = write_validation(config, dataset) or ("", "")
    assert boxes(read_coco(written)) == [("images/val/c.png", "dog", [0, 0, WIDTH, HEIGHT], 0)]
    with pytest.raises(DataError, match="are both given the split 'train' of"):
        write_validation(replace(config, val=f"{data}:train"), dataset)


def test_yolo_labels_beside_the_images_with_classes_txt(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    write_all(tmp_path, {"a.txt": "0 0.5 0.5 1 1", "classes.txt": "zebra\n", "README.txt": "hello"})
    content = read_annotations(tmp_path, tmp_path)
    assert boxes(content) == [("a.jpg", "zebra", [0, 0, WIDTH, HEIGHT], 0)]
    assert content["left_out"] == {}


def test_yolo_images_of_other_folders_are_not_taken_for_empty_ones(yolo: Path) -> None:
    with tarfile.open(yolo / "all.tar", "w") as tar:
        tar.add(yolo / "images" / "train", "train")
        tar.add(yolo / "images" / "val", "val")
    (yolo / "labels" / "val" / "c.txt").unlink()
    content = read_annotations(yolo / "labels", yolo / "all.tar")
    assert [i["file_name"] for i in content["images"]] == ["train/a.png", "train/b.png"]


def test_yolo_list_of_images_and_names_by_number(yolo: Path) -> None:
    write_all(
        yolo,
        {
            "list.txt": "./images/val/c.png\n",
            "data.yaml": "path: .\ntrain: [list.txt, images/train]\nnames: {1: cat, 0: dog}\n",
        },
    )
    content = read_annotations(yolo, yolo)
    assert [Path(i["file_name"]).name for i in content["images"]] == ["c.png", "a.png", "b.png"]
    assert [c["name"] for c in content["categories"]] == ["dog", "cat"]


def test_yolo_export_that_points_one_folder_too_high_is_understood(yolo: Path) -> None:
    write_all(yolo, {"data.yaml": "train: ../images/train\nnames: [dog, cat]\n"})
    content = read_annotations(yolo / "data.yaml", yolo)
    assert len(content["annotations"]) == 2
    said = f"../images/train is not there, {yolo / 'images' / 'train'} is taken"
    assert list(content["notes"].values()) == [[said]]
    dataset = open_dataset(yolo, yolo, cache=yolo / "cache", progress=False)
    assert dataset.summary().endswith(f"misnames: {said}")


def test_yolo_outlines_become_their_bounding_boxes_and_a_sixth_number_the_score(
    yolo: Path,
) -> None:
    lines = "0 0.1 0.2 0.5 0.2 0.3 0.8\n1 0.5 0.5 0.2 0.4 0.25\n"
    write_all(yolo, {"labels/train/a.txt": lines})
    coco = load_coco(yolo, yolo)
    np.testing.assert_allclose(
        coco.images[0].targets.boxes, [[10, 10, 50, 40], [40, 15, 60, 35]], atol=1e-4
    )
    assert coco.images[0].targets.score.tolist() == [1, 0.25]


def test_yolo_key_points_are_left_aside(yolo: Path) -> None:
    write_all(
        yolo,
        {
            "data.yaml": "train: images/train\nnames: [dog, cat]\nkpt_shape: [2, 3]\n",
            "labels/train/a.txt": "0 0.5 0.5 0.2 0.4 0.1 0.1 2 0.9 0.9 2\n",
        },
    )
    ((_, _, box, _),) = boxes(read_annotations(yolo, yolo))
    assert box == pytest.approx([40, 15, 20, 20])


def test_yolo_takes_the_size_after_the_exif_rotation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    data = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT)).save(data, "JPEG", exif=exif)
    (tmp_path / "a.jpg").write_bytes(data.getvalue())
    write_all(tmp_path, {"a.txt": "0 0.5 0.5 1 1", "classes.txt": "x"})
    assert load_coco(tmp_path, tmp_path).images[0].size == (HEIGHT, WIDTH)
    dataset = open_dataset(tmp_path, tmp_path, cache=tmp_path / "cache", progress=False)
    assert dataset.cache.failed == {}


def test_yolo_counts_labels_without_image_and_images_without_header(yolo: Path) -> None:
    (yolo / "images" / "train" / "bad.png").write_bytes(b"")
    write_all(yolo, {"labels/train/gone.txt": "0 0.5 0.5 1 1"})
    left_out = read_annotations(yolo, yolo)["left_out"]
    assert left_out["label files without an image"] == ["gone.txt"]
    (fault,) = left_out["images whose size cannot be read"]
    assert fault.startswith("images/train/bad.png: ")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 0.5 0.5 1 1", "class 2 has no name; names go from 0 to 1"),
        ("0.5 0.5 0.5 1 1", "class 0.5 has no name"),
        ("0 0.5 nan 1 1", "not finite"),
        ("0 0.5 0.5 1", "it has 4 numbers"),
        ("dog 0.5 0.5 1 1", "'dog' is not a number; .*correct it"),
        ("0 0.5 0.5 1 abc", "'abc' is not a number; .*correct it"),
    ],
)
def test_yolo_line_that_is_wrong_is_named(yolo: Path, line: str, message: str) -> None:
    write_all(yolo, {"labels/train/a.txt": f"0 0.5 0.5 1 1\n{line}\n{line}\n"})
    with pytest.raises(DataError, match=rf"a\.txt, line 2: .*{message}.*\(2 faults; lines .*: 2\)"):
        read_annotations(yolo, yolo)


def test_yolo_faults_of_all_lines_files_and_kinds_are_told_at_once(yolo: Path) -> None:
    write_all(
        yolo,
        {
            "data.yaml": "train: images/train\nnames: [dog, dog]\n",
            "labels/train/a.txt": "7 0.5 0.5 1 1\n0 x 0.5 1 1\n\n0 1\n0 0.5 0.5 1 1\n",
            "labels/train/b.txt": "0 0.5 0.5 inf 1\n0 0.5 0.5 1\n",
        },
    )
    with pytest.raises(DataError) as caught:
        read_annotations(yolo, yolo)
    places = {kind: [case.partition(":")[0] for case in cases] for kind, cases in
              caught.value.faults.items()}  # fmt: skip
    assert places == {
        "lines of a class without a name": ["labels/train/a.txt, line 1"],
        "lines with a word that is not a number": ["labels/train/a.txt, line 2"],
        "lines with too few or too many numbers": [
            "labels/train/a.txt, line 4",
            "labels/train/b.txt, line 2",
        ],
        "lines with a number that is not finite": ["labels/train/b.txt, line 1"],
        "categories whose name occurs twice": [
            "name 'dog' occurs twice in categories; make it unique"
        ],
    }


def test_yolo_places_are_named_as_seen_from_the_set(
    yolo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_all(yolo, {"labels/train/a.txt": "7 0.5 0.5 1 1\n"})
    monkeypatch.chdir(yolo)
    with pytest.raises(DataError, match=r"^data\.yaml: labels/train/a\.txt, line 1: class 7"):
        read_annotations("data.yaml", "images")


def test_yolo_label_file_that_is_no_text_is_a_fault_among_others(yolo: Path) -> None:
    write_all(yolo, {"labels/train/a.txt": "7 0.5 0.5 1 1\n"})
    (yolo / "labels" / "train" / "b.txt").write_bytes(b"\xff\xfe0")
    with pytest.raises(DataError, match=r"2 faults; .*label files that cannot be read: 1"):
        read_annotations(yolo, yolo)


def test_yolo_boxes_that_are_dropped_or_clipped_are_named_by_file_and_line(yolo: Path) -> None:
    lines = "0 0.5 0.5 0.2 0.4\n0 0.5 0.5 0 0.4\n\n0 3 3 0.1 0.1\n0 0.5 0.5 2 2\n"
    write_all(yolo, {"labels/train/a.txt": lines})
    coco = load_coco(yolo, yolo)
    assert coco.empty_boxes == ("labels/train/a.txt, line 2",)
    assert coco.outside_boxes == ("labels/train/a.txt, line 4",)
    assert coco.clipped_boxes == ("labels/train/a.txt, line 5",)


def test_yolo_empty_list_of_classes_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    write_all(tmp_path, {"a.txt": "0 0.5 0.5 1 1", "classes.txt": "\n"})
    with pytest.raises(DataError, match=r"classes\.txt is empty"):
        read_annotations(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [a\n", "not YAML"),
        ("[1, 2]", "not a mapping"),
        ("train: images/train\n", 'no "names"'),
        ("train: images/train\nnames: [a, a]\n", "name 'a' occurs twice"),
        ("train: images/train\nnames: [a, '']\n", "empty name"),
        ("train: images/train\nnames: [a]\nnc: 2\n", "nc: 2 but names 1"),
        ("train: nowhere\nnames: [dog, cat]\n", "names nowhere, which is not at"),
        (
            "train: labels/train\nnames: [dog, cat]\n",
            "labels/train of the split 'train' holds no images",
        ),
    ],
)
def test_yolo_settings_that_are_wrong_are_named(yolo: Path, text: str, message: str) -> None:
    write_all(yolo, {"data.yaml": text})
    with pytest.raises(DataError, match=message):
        read_annotations(yolo / "data.yaml", yolo)


def test_yolo_images_outside_the_given_folder_are_named(yolo: Path) -> None:
    with pytest.raises(DataError, match=r"is not in .*labels; give the folder"):
        read_annotations(yolo, yolo / "labels")


def test_yolo_labels_without_names_or_images_are_refused(yolo: Path, tmp_path: Path) -> None:
    (yolo / "data.yaml").unlink()
    with pytest.raises(DataError, match=r"no classes\.txt or data\.yaml"):
        read_annotations(yolo / "labels" / "train", yolo / "images" / "train")
    write_all(yolo, {"classes.txt": "dog\ncat\n"})
    with pytest.raises(DataError, match="no label file"):
        read_annotations(yolo / "labels" / "train", yolo / "images")
