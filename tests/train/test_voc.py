import tarfile
from pathlib import Path

import pytest

from rdlite.evaluate.dataset import DataError
from tests.annotated import HEIGHT, WIDTH, boxes, voc_object, write_all, write_image, xml
from train.coco import load_coco
from train.data import open_dataset
from train.formats import read_annotations


def test_voc_corners_count_from_one_and_include_the_last_pixel(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    write_all(tmp_path, {"a.xml": xml(voc_object("cat", 1, 1, WIDTH, HEIGHT))})
    content = read_annotations(tmp_path, tmp_path)
    assert boxes(content) == [("a.png", "cat", [0, 0, WIDTH, HEIGHT], 0)]
    assert content["left_out"] == {}


def test_voc_difficult_objects_are_ignore_regions_and_parts_are_no_objects(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    objects = (
        voc_object("person", 11, 1, 20, 10, more=f"<difficult>1</difficult>{part}"),
        voc_object("bird", 1, 1, 5, 5, more="<difficult>0</difficult>"),
    )
    write_all(tmp_path, {"a.xml": xml(*objects)})
    coco = load_coco(tmp_path, tmp_path)
    assert coco.names == ("bird", "person")  # alphabetical, whatever the order of the files
    assert coco.images[0].targets.labels.tolist() == [2, 1]
    assert coco.images[0].targets.ignore.tolist() == [True, False]
    assert coco.images[0].targets.boxes.tolist() == [[10, 0, 20, 10], [0, 0, 5, 5]]


def test_voc_development_kit_is_read_by_split(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_image(tmp_path / "JPEGImages" / f"{name}.jpg")
        write_all(
            tmp_path, {f"Annotations/{name}.xml": xml(voc_object("cat", 1, 1, 9, 9), filename=name)}
        )
    write_all(tmp_path, {"ImageSets/Main/train.txt": "a\nc  1\ngone -1\n"})
    content = read_annotations(f"{tmp_path}:train", tmp_path / "JPEGImages")
    assert [image["file_name"] for image in content["images"]] == ["a.jpg", "c.jpg"]
    assert content["left_out"] == {"names in the split without an XML file": ["gone"]}
    whole = read_annotations(tmp_path, tmp_path)
    assert [image["file_name"] for image in whole["images"]][:1] == ["JPEGImages/a.jpg"]
    assert len(whole["images"]) == 3
    with pytest.raises(DataError, match=r"no list .*lists there: train"):
        read_annotations(f"{tmp_path}:test", tmp_path)


def test_voc_images_are_found_in_tar_shards(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        tar.add(tmp_path / "a.png", "a.png")
    write_all(tmp_path, {"xml/a.xml": xml(voc_object("cat", 1, 1, 9, 9))})
    content = read_annotations(tmp_path / "xml", tmp_path / "s.tar")
    assert [image["file_name"] for image in content["images"]] == ["a.png"]


def test_voc_image_is_named_by_the_xml_file_and_else_by_what_it_says(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "odd name.png"):
        write_image(tmp_path / "images" / name)
    one = voc_object("cat", 1, 1, 9, 9)
    write_all(
        tmp_path / "xml",
        {
            "a.xml": xml(one, filename="copied.jpg"),
            "b.xml": xml(one, filename="C:\\photos\\b.jpg"),
            "c.xml": xml(one, filename="odd name.png"),
        },
    )
    content = read_annotations(tmp_path / "xml", tmp_path / "images")
    assert [i["file_name"] for i in content["images"]] == ["a.png", "b.png", "odd name.png"]


def test_voc_takes_a_missing_size_from_the_image(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    size = "<width>0</width><height>0</height>"
    write_all(tmp_path, {"a.xml": xml(voc_object("cat", 1, 1, 9, 9), size=size)})
    assert load_coco(tmp_path, tmp_path).images[0].size == (WIDTH, HEIGHT)


def test_voc_counts_what_it_cannot_use(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "b.jpg"):
        write_image(tmp_path / name)
    (tmp_path / "d.png").write_bytes(b"not an image")
    one = voc_object("cat", 1, 1, 9, 9)
    write_all(
        tmp_path,
        {
            "a.xml": xml(one, "<object><name>dog</name></object>"),
            "b.xml": xml(one),
            "c.xml": xml(one, size=""),
            "d.xml": xml(one, size=""),
            "gone.xml": xml(one, filename="gone.jpg"),
        },
    )
    coco = load_coco(tmp_path, tmp_path)
    assert [image.file_name for image in coco.images] == ["a.png", "gone.jpg"]
    assert coco.left_out == {
        "objects without a whole <bndbox>": ["a.xml, object 2: dog"],
        "XML files that fit several images": ["b.xml: b.jpg, b.png"],
        "XML files without image and size": ["c.xml"],
        "images whose size cannot be read": [coco.left_out["images whose size cannot be read"][0]],
    }
    assert coco.left_out["images whose size cannot be read"][0].startswith("d.png")
    dataset = open_dataset(tmp_path, tmp_path, cache=tmp_path / "cache", progress=False)
    assert list(dataset.cache.failed) == ["gone.jpg"]
    assert "1 XML files without image and size" in dataset.summary()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation>", "not readable XML"),
        ("<html/>", "holds <html>"),
        (xml("<object><name> </name></object>"), "has no <name>"),
        (xml(voc_object("cat", 1, 1, 9, float("nan"))), "'nan' where a finite number"),
        (xml(voc_object("cat", 1, 1, 9, 9)).replace("9", "nine"), "'nine' where a finite"),
    ],
)
def test_voc_file_that_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    write_image(tmp_path / "a.png")
    write_all(tmp_path, {"a.xml": text, "b.xml": text})
    with pytest.raises(DataError, match=rf"a\.xml.*{message}.*\(2 faults; .*: 2\)"):
        read_annotations(tmp_path, tmp_path)


def test_voc_faults_of_all_files_and_kinds_are_told_at_once(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    wrong = (
        "<object><name/></object>",
        voc_object("cat", 1, 1, 9, float("inf")),
        voc_object("dog", 1, float("nan"), 9, 9),
    )
    write_all(
        tmp_path,
        {"a.xml": xml(*wrong), "deep/b.xml": "<html/>", "deep/c.xml": "<", "d.xml": xml(wrong[0])},
    )
    with pytest.raises(DataError) as caught:
        read_annotations(tmp_path, tmp_path)
    faults = {kind: [case.partition(" h")[0] for case in cases] for kind, cases in
              caught.value.faults.items()}  # fmt: skip
    assert faults == {
        "objects without a name": ["a.xml, object 1", "d.xml, object 1"],
        "texts where a finite number belongs": ["a.xml, object 2", "a.xml, object 3"],
        "XML files of another kind": ["deep/b.xml"],
        "files that are not readable XML": [faults["files that are not readable XML"][0]],
    }
    assert faults["files that are not readable XML"][0].startswith("deep/c.xml is not readable")


def test_voc_boxes_that_are_dropped_or_clipped_are_named_by_file_and_object(
    tmp_path: Path,
) -> None:
    write_image(tmp_path / "a.png")
    good = voc_object("cat", 1, 1, 9, 9)
    empty, outside = voc_object("cat", 9, 9, 3, 20), voc_object("cat", 120, 1, 140, 9)
    clipped = voc_object("cat", 1, 1, 9, 70)
    write_all(tmp_path, {"x/a.xml": xml(good, empty, outside, clipped)})
    coco = load_coco(tmp_path, tmp_path)
    assert coco.empty_boxes == ("x/a.xml, object 2",)
    assert coco.outside_boxes == ("x/a.xml, object 3",)
    assert coco.clipped_boxes == ("x/a.xml, object 4",)


def test_voc_set_without_images_says_why(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    write_all(tmp_path, {"xml/a.xml": xml(voc_object("cat", 1, 1, 9, 9), size="")})
    with pytest.raises(DataError, match=r"no image is left; XML files without image and size: 1;"):
        read_annotations(tmp_path / "xml", tmp_path / "images")


def test_voc_files_of_one_image_are_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    one = xml(voc_object("cat", 1, 1, 9, 9), filename="a.png")
    write_all(tmp_path, {"a.xml": one, "other.xml": one})
    with pytest.raises(DataError, match=r"file_name 'a\.png' occurs twice"):
        read_annotations(tmp_path, tmp_path)
