from pathlib import Path

import numpy as np
import pytest

from rdlite.evaluate.cocofile import read_coco
from rdlite.evaluate.dataset import DataError
from tests.annotated import voc_object, write_all, write_image, xml, yolo_set
from train.coco import load_coco
from train.data import open_dataset
from train.formats import (
    COCO,
    VOC,
    YOLO,
    format_of,
    read_annotations,
    refuse_same,
    rules,
    write_coco,
)


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    return yolo_set(tmp_path)


def test_formats_are_told_apart_by_their_files(yolo: Path, tmp_path: Path) -> None:
    assert format_of(yolo) == format_of(f"{yolo / 'data.yaml'}:val") == YOLO
    assert format_of(yolo / "labels") == YOLO
    write_coco({}, tmp_path / "set.json")
    assert format_of(tmp_path / "set.json") == COCO
    assert format_of(write_all(tmp_path / "voc", {"deep/a.xml": xml()})) == VOC
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="holds no annotations"):
        format_of(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["nothere.json", "VOC2O12:train", "labels", "dta.yaml"])
def test_path_where_nothing_is_gets_told_so(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"nothing at .*{name}; give a COCO json .* VOC .* YOLO"):
        load_coco(tmp_path / name, tmp_path)


@pytest.mark.parametrize(
    ("data", "val"),
    [
        ("data.yaml", "data.yaml:train"),
        (".", "data.yaml:train"),
        ("data.yaml:val", "data.yaml"),
        ("labels/train", "labels/../labels/train"),
        ("set.json", "set.json"),
        ("voc", "voc/Annotations"),
    ],
)
def test_training_set_is_no_validation_set(yolo: Path, data: str, val: str) -> None:
    write_coco({}, yolo / "set.json")
    write_all(yolo, {"voc/Annotations/a.xml": xml()} if "voc" in val else {})
    with pytest.raises(DataError, match="training and validation are both given"):
        refuse_same(f"{yolo}/{data}", f"{yolo}/{val}")


@pytest.mark.parametrize("val", ["data.yaml", ".", "data.yaml:test", "labels/val", "other.json"])
def test_other_splits_and_files_are_validation_sets(yolo: Path, val: str) -> None:
    write_coco({}, yolo / "other.json")
    refuse_same(f"{yolo}/data.yaml", f"{yolo}/{val}")


def test_images_are_asked_for_where_a_format_needs_them(yolo: Path) -> None:
    with pytest.raises(DataError, match="needs the images as well"):
        load_coco(yolo)


def test_written_coco_file_holds_the_same_set(yolo: Path, tmp_path: Path) -> None:
    content = read_annotations(yolo, yolo)
    path = tmp_path / "new.json"
    write_coco(content, path)
    assert read_coco(path) == content
    assert load_coco(path).sha256() == load_coco(yolo, yolo).sha256()


def test_the_three_formats_give_the_same_samples(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        write_image(tmp_path / "images" / f"{name}.png", seed)
    write_all(
        tmp_path,
        {
            "voc/a.xml": xml(voc_object("cat", 41, 16, 60, 35)),
            "voc/b.xml": xml(voc_object("dog", 1, 1, 20, 10)),
            "yolo/a.txt": "0 0.5 0.5 0.2 0.4",
            "yolo/b.txt": "1 0.1 0.1 0.2 0.2",
            "yolo/classes.txt": "cat\ndog\n",
        },
    )
    write_coco(read_annotations(tmp_path / "voc", tmp_path / "images"), tmp_path / "set.json")
    samples = [
        open_dataset(
            tmp_path / data, tmp_path / "images", cache=tmp_path / "cache", progress=False
        ).sample(1, epoch=0, resolution=320)
        for data in ("set.json", "voc", "yolo")
    ]
    for image, targets in samples[1:]:
        np.testing.assert_array_equal(image, samples[0][0])
        np.testing.assert_allclose(targets.boxes, samples[0][1].boxes, atol=1e-6)
        assert targets.labels.tolist() == samples[0][1].labels.tolist()


def test_cache_follows_a_size_that_was_corrected_in_a_folder(tmp_path: Path) -> None:
    for name in "ab":
        write_image(tmp_path / f"{name}.png")
    one = voc_object("cat", 1, 1, 9, 9)
    wrong = xml(one, size="<width>7</width><height>9</height>")
    write_all(tmp_path, {"voc/a.xml": wrong, "voc/b.xml": xml(one)})
    options = {"cache": tmp_path / "cache", "progress": False}
    assert list(open_dataset(tmp_path / "voc", tmp_path, **options).cache.failed) == ["a.png"]
    write_all(tmp_path, {"voc/a.xml": xml(one)})
    assert open_dataset(tmp_path / "voc", tmp_path, **options).cache.failed == {}


def test_rules_say_what_happens_and_the_exit_code() -> None:
    lines = rules().splitlines()
    assert "exit code" in lines[0]
    assert {line.split("|")[3].strip() for line in lines[2:]} == {"0", "1", "3"}
