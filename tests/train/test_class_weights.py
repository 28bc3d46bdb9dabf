from __future__ import annotations

import json
from pathlib import Path

import pytest

from rdlite.errors import OptionError
from rdlite.evaluate.dataset import DataError
from rdlite.image import load
from train.__main__ import main
from train.class_weights import class_weights, count_boxes, plot_class_weights
from train.coco import load_coco


def coco_file(folder: Path, *annotations: tuple[int, list[float], int]) -> Path:
    """One 100-pixel image with boxes (class, bbox, iscrowd) of the classes 1 to 3."""
    path = folder / "set.json"
    content = {
        "images": [{"id": 1, "file_name": "1.png", "width": 100, "height": 100}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": category, "bbox": bbox, "iscrowd": crowd}
            for i, (category, bbox, crowd) in enumerate(annotations)
        ],
        "categories": [{"id": k, "name": name} for k, name in enumerate("xyz", start=1)],
    }
    path.write_text(json.dumps(content))
    return path


def test_weights_by_hand() -> None:
    # r = 1, 16, 256; r^0.75 = 1, 8, 64; w = 9 (r^0.75 - 1) / 63 + 1
    assert class_weights([256, 16, 1]).tolist() == [1.0, 1.0, 2.0, 10.0]
    # r^0.5 = 1, 4, 16; w = 4 (r^0.5 - 1) / 15 + 1
    weights = class_weights([16, 256, 1], gamma=0.5, largest=5).tolist()
    assert weights == pytest.approx([1.0, 1.8, 1.0, 5.0], rel=1e-6)


def test_of_coco_person_weighs_1_and_hair_drier_10() -> None:
    people, toothbrushes, hair_driers = 273_468, 2_000, 209
    _, first, middle, last = class_weights([people, toothbrushes, hair_driers]).tolist()
    assert (first, last) == (1.0, 10.0)
    assert 1 < middle < 3  # 9 ((273468 / 2000)^0.75 - 1) / ((273468 / 209)^0.75 - 1) + 1 = 2.62
    assert middle == pytest.approx(2.62, abs=0.01)


def test_a_class_without_boxes_weighs_most_and_leaves_the_others_as_they_are() -> None:
    assert class_weights([256, 0, 16, 1]).tolist() == [1.0, 1.0, 10.0, 2.0, 10.0]
    assert class_weights([7, 0, 7]).tolist() == [1.0, 1.0, 10.0, 1.0]


def test_equally_frequent_classes_weigh_1() -> None:
    assert class_weights([5, 5]).tolist() == [1.0, 1.0, 1.0]
    assert class_weights([5]).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("options", [{"gamma": 0}, {"largest": 0.5}, {"gamma": float("nan")}])
def test_impossible_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(OptionError, match="gamma above 0"):
        class_weights([1, 2], **options)


def test_a_set_without_any_box_is_refused() -> None:
    with pytest.raises(DataError, match="none of the 3 classes"):
        class_weights([0, 0, 0])


def test_only_boxes_that_are_learned_are_counted(tmp_path: Path) -> None:
    box, outside = [10, 10, 20, 20], [200, 0, 10, 10]
    path = coco_file(tmp_path, (1, box, 0), (1, box, 0), (1, box, 1), (3, box, 0), (3, outside, 0))
    assert count_boxes(load_coco(path).images, 3).tolist() == [2, 0, 1]


def test_no_class_weighs_more_than_it_is_rarer() -> None:
    assert class_weights([1000, 500]).tolist() == [1, 1, 2]
    assert class_weights([1000, 990]).max() < 1.02


def test_the_command_prints_a_table_and_draws_a_chart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    box, chart = [10, 10, 20, 20], tmp_path / "new" / "weights.png"
    path = coco_file(tmp_path, (3, box, 0), *[(1, box, 0)] * 16)
    assert main(["class-weights", "--data", str(path), "-o", str(chart)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[1:4] == [["x", "16", "1.00"], ["z", "1", "10.00"], ["y", "0", "10.00"]]
    assert " ".join(rows[4]).startswith("1 of 3 classes have no boxes")
    assert load(chart).std() > 0


def test_another_kind_of_chart_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = coco_file(tmp_path, (1, [0, 0, 9, 9], 0))
    assert main(["class-weights", "--data", str(path), "-o", str(tmp_path / "chart.csv")]) == 1
    assert "ends in .png" in capsys.readouterr().err


def test_a_single_class_can_be_drawn(tmp_path: Path) -> None:
    counts = count_boxes(load_coco(coco_file(tmp_path, (2, [0, 0, 9, 9], 0))).images, 3)
    plot_class_weights(counts, class_weights(counts)[1:].numpy(), tmp_path / "c.png", names="xyz")
    assert (tmp_path / "c.png").stat().st_size > 1000
