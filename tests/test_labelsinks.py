"""Label files: read back by those who read them, whatever the images are called."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdlite.errors import OptionError
from rdlite.results import Detections
from rdlite.sinks import VocSink, YoloSink
from tests.samples import BOXES, NAMES, SIZE, detections, found

SINKS = pytest.mark.parametrize(("sink", "ending"), [(YoloSink, ".txt"), (VocSink, ".xml")])
YOLO_NAMES = {"classes.txt", "data.yaml"}


def names(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} - YOLO_NAMES


def photos(folder: Path, *names: str, size: tuple[int, int] = SIZE) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / name), np.zeros((size[1], size[0], 3), np.uint8))
    return folder


def written(sink: Any, folder: Path, *images: str, **options: Any) -> Any:
    with sink(folder) as labels:
        for image in images:
            labels.write(found(), image=image, **options)
    return labels


@SINKS
def test_labels_lie_as_the_images_and_frames_do(sink: Any, ending: str, tmp_path: Path) -> None:
    with sink(tmp_path / "labels") as labels:
        labels.write(found(), image="/data/photos/a b.jpg", place="a b.jpg")
        labels.write(found(), image="./ß/漢 字.tar.webp")
        labels.write(found(), image="/data/clip.mp4", place="x/clip.mp4", frame=123, time=4.1)
        labels.write(found(0), image="x/clip.mp4", frame=1_234_567)
        labels.write(found(0), image="no ending")
    expected = ["a b", "ß/漢 字.tar", "x/clip.mp4/000123", "x/clip.mp4/1234567", "no ending"]
    assert names(tmp_path / "labels") == {f"{name}{ending}" for name in expected}
    assert labels.warnings() == []


@SINKS
def test_images_of_one_stem_have_their_own_labels(sink: Any, ending: str, tmp_path: Path) -> None:
    images = ("b/a.jpg", "b/a.png", "b/a.png.gif", "b/a.png", "b/a.PNG", "b/A.jpg")
    labels = written(sink, tmp_path / "labels", *images)
    expected = ["b/a", "b/a.png", "b/a.png.gif", "b/a.png-2", "b/a.PNG", "b/A"]
    assert names(tmp_path / "labels") == {f"{name}{ending}" for name in expected}
    (sentence,) = labels.warnings()
    first = (
        f"the first is b/a.png{ending}: trainers read b/a{ending} for b/a.png, which is not about "
        "it; rename such images, and detect again"
    )
    assert sentence == (
        f"4 labels are not called like their images, as those names are taken; {first}"
    )
    (sentence,) = written(sink, tmp_path / "one", *images[:2]).warnings()
    assert sentence == f"1 label is not called like its image, as that name is taken; {first}"


def test_an_image_that_is_called_classes_does_not_replace_the_names(tmp_path: Path) -> None:
    labels = written(YoloSink, tmp_path / "labels", "classes.jpg")
    assert (tmp_path / "labels" / "classes.txt").read_text() == "person\ntraffic light\n"
    assert names(tmp_path / "labels") == {"classes.jpg.txt"}
    assert "classes.jpg.txt" in labels.warnings()[0]


OUTSIDE = ["../a.jpg", "a/../../b.jpg", "/a.jpg", "a\0b.jpg", "..", ".", "", "/", None]
OUTSIDE += ["C:/a.jpg", "C:\\a.jpg", "a\\..\\..\\b.jpg", "\\\\server\\share\\a.jpg"]
ODD = ["new\nline.jpg", "\udcff.jpg", "a:b?.jpg", "..jpg", ".jpg", "\\xff.jpg", "x" * 251 + ".jpg"]


@SINKS
@pytest.mark.parametrize("name", ODD)
def test_odd_names_are_kept(sink: Any, ending: str, name: str, tmp_path: Path) -> None:
    labels = written(sink, tmp_path / "labels", name)
    stem = os.path.splitext(name)[0] if name not in ("..jpg", ".jpg") else Path(name).stem
    assert names(tmp_path / "labels") == {f"{stem}{ending}"}
    assert labels.warnings() == []


@SINKS
@pytest.mark.parametrize("name", OUTSIDE)
def test_names_do_not_lead_out_of_the_folder(
    sink: Any, ending: str, name: str | None, tmp_path: Path
) -> None:
    with sink(tmp_path / "labels") as labels:
        labels.write(found(), image="a.jpg")
        with pytest.raises(OptionError, match=r"relative path|no name of an image"):
            labels.write(found(), image=name)
        with pytest.raises(OptionError, match=r"relative path|no name of an image"):
            labels.write(found(), image=name, frame=1)
    assert names(tmp_path / "labels") == {f"a{ending}"}
    assert [path.name for path in tmp_path.iterdir()] == ["labels"]


@SINKS
@given(name=st.text(st.characters(codec="utf-8"), max_size=60))
def test_no_name_leads_out_of_the_folder(
    sink: Any, ending: str, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    refused = False
    with sink(folder / "labels") as labels:
        try:
            labels.write(found(0), image=name)
        except OptionError:
            refused = True
    assert [path.name for path in folder.iterdir()] == ["labels"]
    assert len(names(folder / "labels")) == (not refused)


@SINKS
def test_a_folder_that_is_called_like_a_label_gets_another_name(
    sink: Any, ending: str, tmp_path: Path
) -> None:
    with sink(tmp_path / "labels") as labels:
        labels.write(found(), image="a.jpg")
        labels.write(found(), image=f"a{ending}/b.jpg")
    assert (tmp_path / "labels" / f"a{ending}").is_file()
    assert (tmp_path / "labels" / f"a{ending}_" / f"b{ending}").is_file()


def test_yolo_is_the_centre_and_size_in_fractions_without_scores(tmp_path: Path) -> None:
    written(YoloSink, tmp_path / "labels", "a.jpg")
    assert (tmp_path / "labels" / "a.txt").read_text() == (
        "1 0.202500 0.500000 0.205000 0.500000\n0 0.025000 0.031250 0.050000 0.062500\n"
    )


def test_an_image_without_objects_has_an_empty_yolo_file(tmp_path: Path) -> None:
    with YoloSink(tmp_path / "labels") as labels:
        labels.write(found(0), image="a.jpg")
    assert (tmp_path / "labels" / "a.txt").read_bytes() == b""


def test_yolo_class_names_are_yaml_whatever_they_are(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    odd = ("no", "1", "a: b", '"', "ß 漢 😀", "two\nlines", "#", "-", "null")
    with YoloSink(tmp_path / "labels") as labels:
        labels.write(Detections.empty(names=odd, category_ids=range(9)), image="a.jpg")
    data = yaml.safe_load((tmp_path / "labels" / "data.yaml").read_text("utf-8"))
    assert data == {"nc": 9, "names": list(odd)}
    assert (tmp_path / "labels" / "classes.txt").read_text("utf-8").splitlines()[5:7] == [
        "two lines",
        "#",
    ]


def test_supervision_reads_yolo(tmp_path: Path) -> None:
    dataset = pytest.importorskip("supervision").DetectionDataset
    images = photos(tmp_path / "photos", "a.png", "empty.png")
    with YoloSink(tmp_path / "labels") as labels:
        labels.write(found(), image="a.png")
        labels.write(found(0), image="empty.png")
    folders = (str(images), str(tmp_path / "labels"), str(tmp_path / "labels" / "data.yaml"))
    read = dataset.from_yolo(*folders)
    assert read.classes == list(NAMES)
    theirs = read.annotations[str(images / "a.png")]
    np.testing.assert_allclose(theirs.xyxy, BOXES, atol=1e-4)
    assert theirs.class_id.tolist() == [1, 0]
    assert len(read.annotations[str(images / "empty.png")]) == 0


@given(expected=detections())
def test_yolo_is_as_exact_as_six_digits_are(expected: Detections) -> None:
    rows = [[float(v) for v in line.split()] for line in expected.to_yolo().splitlines()]
    table = np.array(rows).reshape(-1, 6)
    scale = np.tile(expected.image_size, 2)
    centre, size = np.split(table[:, 1:5] * scale, 2, axis=1)
    boxes = np.hstack([centre - size / 2, centre + size / 2])
    np.testing.assert_allclose(boxes, expected.xyxy, atol=1e-6 * max(scale) + 1e-3)
    assert ((table[:, 1:] >= 0) & (table[:, 1:] <= 1)).all()


def test_voc_holds_the_names_and_an_image_without_objects(tmp_path: Path) -> None:
    with VocSink(tmp_path / "labels") as labels:
        labels.write(found(0), image="/data/a\x01\udcff\r.jpg", place="x/b.jpg")
        labels.write(found(1), image="/data/x/clip.mp4", place="x/clip.mp4", frame=7)
    image = ElementTree.parse(tmp_path / "labels" / "x" / "b.xml").getroot()
    frame = ElementTree.parse(tmp_path / "labels" / "x" / "clip.mp4" / "000007.xml").getroot()
    assert image.findtext("filename") == r"a\u0001\udcff\u000d.jpg"
    assert image.findall("object") == []
    assert frame.findtext("filename") == "clip.mp4/000007"
    assert frame.findtext("object/name") == "traffic light"


def test_supervision_reads_voc(tmp_path: Path) -> None:
    dataset = pytest.importorskip("supervision").DetectionDataset
    images = photos(tmp_path / "photos", "a.png", "empty.png")
    with VocSink(tmp_path / "labels") as labels:
        labels.write(found(), image="a.png")
        labels.write(found(0), image="empty.png")
    read = dataset.from_pascal_voc(str(images), str(tmp_path / "labels"))
    theirs = read.annotations[str(images / "a.png")]
    np.testing.assert_array_equal(theirs.xyxy, np.round(BOXES))
    assert [read.classes[index] for index in theirs.class_id] == found().class_names
    assert len(read.annotations[str(images / "empty.png")]) == 0


@SINKS
def test_training_reads_the_labels(sink: Any, ending: str, tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    from train.formats import read_annotations

    images = photos(tmp_path / "photos", "a.png", "more/b.png", "more/empty.png")
    with sink(tmp_path / "labels") as labels:
        labels.write(found(), image="a.png")
        labels.write(found(1), image="more/b.png")
        labels.write(found(0), image="more/empty.png")
    content = read_annotations(tmp_path / "labels", images)
    assert sorted(image["file_name"] for image in content["images"]) == sorted(
        ["a.png", "more/b.png", "more/empty.png"]
    )
    boxes = sorted(entry["bbox"] for entry in content["annotations"])
    expected = [[0, 0, 5, 5]] + [[10, 20, 20.5 if sink is YoloSink else 20, 40]] * 2
    np.testing.assert_allclose(boxes, expected, atol=1e-3)
