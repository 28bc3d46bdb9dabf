from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from rdlite.errors import ModelError, OptionError
from tests.train.teacher import options
from train.config import TrainConfig
from train.distil import LEAST_SCORE, SEEN, Seen, objects_seen, taught_labels
from train.engine import Trainer
from train.teacher import Teacher, TeacherSettings

BOX = [0.2, 0.2, 0.6, 0.6]
ELSEWHERE = [0.7, 0.7, 0.9, 0.9]
NAMES = {
    "distil": 0.5,
    "distil_scores": "score16,score32,score64",
    "distil_boxes": "box16,box32,box64",
}


def labels(label: int, box: list[float], scores: list[float], share: float = 0.5) -> list[float]:
    """The label of one anchor in the second image, where a teacher sees one object at BOX."""
    seen = Seen(torch.tensor([[ELSEWHERE], [BOX]]), torch.tensor([[[0.9, 0.9]], [scores]]))
    anchor = torch.tensor([label]), torch.tensor([box]), torch.tensor([1])
    return taught_labels(*anchor, seen, share)[0].tolist()


def test_a_positive_s_label_is_shared_as_far_as_the_teacher_is_sure() -> None:
    # squares 0.64 and 0.16: four fifths and one fifth of 0.5 x 0.8
    assert labels(1, BOX, [0.8, 0.4]) == pytest.approx([0, 0.6 + 0.32, 0.08])
    assert labels(2, BOX, [0.8, 0.4]) == pytest.approx([0, 0.32, 0.6 + 0.08])
    assert labels(1, BOX, [0.0, 0.06]) == pytest.approx([0, 0.97, 0.03])


def test_of_several_boxes_on_an_object_the_surest_is_heard() -> None:
    near = [0.2, 0.2, 0.6, 0.59]
    seen = Seen(torch.tensor([[BOX, near]]), torch.tensor([[[0.0, 0.06], [0.9, 0.0]]]))
    soft = taught_labels(torch.tensor([1]), torch.tensor([BOX]), torch.tensor([0]), seen, 0.5)
    assert soft[0].tolist() == [0, 1, 0]


def test_a_negative_on_something_that_the_teacher_sees_is_an_object_as_far_as_it_is_sure() -> None:
    assert labels(0, BOX, [0.8, 0.4]) == pytest.approx([0.5 + 0.1, 0.5 * 0.64, 0.5 * 0.16])


@pytest.mark.parametrize(
    ("box", "scores", "share"),
    [
        (ELSEWHERE, [0.8, 0.4], 0.5),
        ([0.2, 0.2, 0.3, 0.6], [0.8, 0.4], 0.5),  # IoU 1/4
        (BOX, [0.0, 0.0], 0.5),
        (BOX, [0.8, 0.4], 0.0),
    ],
)
def test_elsewhere_the_annotation_stands(
    box: list[float], scores: list[float], share: float
) -> None:
    assert labels(2, box, scores, share) == [0, 0, 1]
    assert labels(0, box, scores, share) == [1, 0, 0]


def test_labels_are_distributions() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(3, 20, 2, generator=generator)
    boxes = torch.cat([corners, corners + torch.rand(3, 20, 2, generator=generator)], dim=2)
    scores = torch.rand(3, 20, 5, generator=generator)
    image = torch.randint(0, 3, (50,), generator=generator)
    anchors = boxes[image, torch.randint(0, 20, (50,), generator=generator)]
    soft = taught_labels(
        torch.randint(0, 6, (50,), generator=generator), anchors, image, Seen(boxes, scores), 0.7
    )
    assert soft.shape == (50, 6) and (soft >= 0).all()
    assert torch.allclose(soft.sum(dim=1), torch.ones(50))


def test_boxes_are_expectations_of_their_distances() -> None:
    bins = torch.full((1, 4, 4 * 3), -1e4)  # two cells a side, three bins
    for side, (one, other) in enumerate([(0, 0), (0, 1), (1, 1), (1, 2)]):
        bins[0, 3, 3 * side + one] = bins[0, 3, 3 * side + other] = 0.0
    scores = torch.tensor([[[0.0, LEAST_SCORE / 2], [0.5, 0], [0, 0.2], [0.1, 0.9]]])
    seen = objects_seen([scores], [bins], 64)
    # the last cell, centre 0.75 of 1, is the surest: distances 0, 1/2, 1, 3/2 cells of 1/2
    assert seen.boxes[0, 0].tolist() == pytest.approx([0.75, 0.5, 1.25, 1.5])
    assert seen.scores[0].amax(dim=1).tolist() == pytest.approx([0.9, 0.5, 0.2, 0])


def test_the_last_cell_may_reach_over_the_edge() -> None:
    # 224 pixels at stride 64: four cells, the last centre at 224 of 224
    bins = torch.full((1, 16, 4 * 2), -1e4)
    bins[..., 1::2] = 0.0
    seen = objects_seen([torch.linspace(0.1, 0.9, 16)[None, :, None]], [bins], 224)
    assert seen.boxes[0, 0].tolist() == pytest.approx([160 / 224, 160 / 224, 288 / 224, 288 / 224])


@pytest.mark.parametrize(
    "given",
    [
        {"distil_boxes": "box64,box32,box16"},
        {"distil_boxes": "score16,score32,score64"},
        {"distil_scores": "feature16,feature32,feature64"},
    ],
)
def test_tensors_that_do_not_belong_together_are_refused(
    teacher_file: Path, given: dict[str, str]
) -> None:
    config = TrainConfig(
        data="d", images="i", out="o", resolution="128", **options(teacher_file), **(NAMES | given)
    )
    settings = TeacherSettings.from_config(config)
    with pytest.raises(ModelError, match="as level 1"):
        Teacher(settings, sides=[128], device=torch.device("cpu"))


@pytest.mark.parametrize("side", [128, 320])
def test_a_teacher_s_objects_come_with_its_lesson(teacher_file: Path, side: int) -> None:
    config = TrainConfig(
        data="d", images="i", out="o", resolution=str(side), **options(teacher_file), **NAMES
    )
    settings = TeacherSettings.from_config(config)
    teacher = Teacher(settings, sides=[side], device=torch.device("cpu"))
    images = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    images[1, :64, 64:128] = torch.tensor([130, 0, 0], dtype=torch.uint8)
    seen = teacher(images).seen
    assert seen is not None and teacher.classes == 2
    cells = sum((side // stride) ** 2 for stride in (16, 32, 64))
    assert seen.boxes.shape == (2, min(SEEN, cells), 4)
    surest = seen.scores[1, :, 0] > 0.9  # of all levels, inside the blue square
    assert surest.sum() == 16 + 4 + 1
    centres = (seen.boxes[1, surest, :2] + seen.boxes[1, surest, 2:]) / 2
    assert (centres[:, 0] * side > 64).all() and (centres[:, 1] * side < 64).all()
    widths = (seen.boxes[1, surest, 2] - seen.boxes[1, surest, 0]) * side
    assert np.unique(widths.round().tolist()).tolist() == [32, 64, 128]


def test_a_run_learns_from_soft_labels(
    settings, teacher_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A network that has learned nothing places its boxes where the teacher has none.
    monkeypatch.setattr("train.distil.SAME_OBJECT", 0.1)
    taught = options(teacher_file) | NAMES | {"resolution": "128"}

    def first_loss(name: str, **changed: object) -> float:
        trainer = Trainer(settings(name, **(taught | changed)))
        return trainer.train_step(next(iter(trainer.batches())))["odm_cls"]

    with_teacher, without = (
        first_loss("a"),
        first_loss("b", distil=0.0, distil_scores="", distil_boxes=""),
    )
    assert math.isfinite(with_teacher) and with_teacher != without


def test_a_teacher_of_other_classes_is_refused(
    settings, teacher_file: Path, tmp_path: Path
) -> None:
    content = json.loads(Path(settings("a").data).read_text())
    content["categories"].append({"id": 3, "name": "blue"})
    (tmp_path / "more.json").write_text(json.dumps(content))
    given = {**options(teacher_file), **NAMES, "resolution": "128"}
    with pytest.raises(OptionError, match=r"scores 2 classes, .* has 3"):
        Trainer(settings("a", data=str(tmp_path / "more.json"), **given))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"distil_boxes": "box16"}, "3 in distil_scores and 1 in distil_boxes"),
        ({"mimic": None}, "needs a teacher"),
        ({"iou_guided": True}, "both make soft labels"),
        ({"distil": 0.0}, "need a share"),
    ],
)
def test_what_cannot_be_distilled_is_refused(
    teacher_file: Path, changed: dict[str, object], words: str
) -> None:
    given = {"data": "d", "images": "i", "out": "o", **options(teacher_file), **NAMES, **changed}
    with pytest.raises(OptionError, match=words):
        TeacherSettings.from_config(TrainConfig(**given))
