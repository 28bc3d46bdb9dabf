from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rdlite.errors import ModelError, OptionError
from tests.train.teacher import CHANNELS, options
from train.checkpoint import load_checkpoint
from train.config import TrainConfig
from train.engine import Trainer
from train.mimic import SETTLE, MimicLoss
from train.teacher import Lesson, Teacher, TeacherSettings


def config(path: Path, **changed: str) -> TrainConfig:
    return TrainConfig(
        data="d", images="i", out="o", resolution="128:0.5,192:1", **options(path, **changed)
    )


@pytest.mark.parametrize("side", [128, 192, 320])
def test_a_teacher_of_fixed_size_runs_at_any_side_and_batch(teacher_file: Path, side: int) -> None:
    teacher = Teacher(
        TeacherSettings.from_config(config(teacher_file)), sides=[side], device=torch.device("cpu")
    )
    images = torch.zeros(3, side, side, 3, dtype=torch.uint8)
    images[1, :16, 16:32] = torch.tensor([110, 2, 3], dtype=torch.uint8)  # one cell of stride 16
    lesson = teacher(images)
    assert teacher.channels == [CHANNELS] * 3
    assert [f.shape for f in lesson.features] == [
        (3, CHANNELS, side // s, side // s) for s in (16, 32, 64)
    ]
    # Channels 0 1 2 3 are shuffled to 0 2 1 3; blue is (110 - 100) / 10 there, -10 elsewhere.
    assert lesson.features[0][1, :, 0, 1].tolist() == pytest.approx([1, 3, 2, 1])
    assert lesson.features[0][0, :, 0, 1].tolist() == pytest.approx([-10, 0, 0, 1])
    assert lesson.scores[0][1, 0, 1].item() == pytest.approx(1 / (1 + np.exp(-2)))
    assert lesson.scores[0][1, 1, 0].item() == pytest.approx(0.5)


def test_a_teacher_that_wants_red_first_gets_it(teacher_file: Path) -> None:
    def lesson(color: str, mean: str, images: torch.Tensor) -> Lesson:
        chosen = config(teacher_file, mimic_color=color, mimic_mean=mean)
        settings = TeacherSettings.from_config(chosen)
        return Teacher(settings, sides=[128], device=torch.device("cpu"))(images)

    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (1, 128, 128, 3), dtype=torch.uint8, generator=generator)
    as_given = lesson("bgr", "30,20,10", images)
    assert torch.equal(as_given.features[0], lesson("rgb", "30,20,10", images.flip(-1)).features[0])
    assert not torch.equal(as_given.features[0], lesson("rgb", "30,20,10", images).features[0])


def test_cells_count_by_the_teacher_s_score_and_channels_are_standardised() -> None:
    loss = MimicLoss([1], 256, config(Path("t"), mimic_scores="a"))
    loss.weight = 1.0
    torch.nn.init.zeros_(loss.project[0].weight)
    torch.nn.init.zeros_(loss.project[0].bias)
    feature = torch.tensor([[[[8.0, 2.0], [2.0, 0.0]]]])  # mean 3, variance 9: z = 5/3, -1/3, -1
    score = torch.tensor([[[0.5, 0.0], [0.0, 0.25]]])
    trunk = torch.zeros(1, 256, 2, 2)
    value = loss([trunk], Lesson([feature], [score]), 128)
    assert value.item() == pytest.approx((0.5 * 25 / 9 + 0.25 * 1) / 0.75)


def test_statistics_are_kept_by_resolution_and_stand_still_after_a_while() -> None:
    loss = MimicLoss([1], 256, config(Path("t"), mimic_scores="a"))
    score, trunk = torch.ones(1, 2, 2), torch.zeros(1, 256, 2, 2)

    def show(value: float, side: int) -> None:
        loss([trunk], Lesson([torch.full((1, 1, 2, 2), value)], [score]), side)

    for value in (1.0, 3.0):
        show(value, 128)
    show(50.0, 192)
    assert loss.mean_128_0.item() == 2.0 and loss.mean_192_0.item() == 50.0
    for _ in range(SETTLE):
        show(2.0, 128)
    show(1000.0, 128)
    assert loss.mean_128_0.item() == pytest.approx(2.0)


def test_a_run_draws_nearer_to_its_teacher_and_resumes_with_its_statistics(
    settings, teacher_file: Path
) -> None:
    common = options(teacher_file, mimic_std="50,50,50") | {
        "resolution": "128",
        "mimic_weight": 10.0,
        "lr": 1e-2,
        "epochs": 28,
    }
    trainer = Trainer(settings("run", **common))
    # Alone, the projections would draw near too.
    trainer.objective.mimic.project.requires_grad_(False)
    trainer.fit()
    assert trainer.history[-1]["mimic"] < 0.8 * trainer.history[0]["mimic"]
    again = Trainer(settings("run", **common))
    mean = again.objective.mimic.get_buffer("mean_128_0")
    assert torch.equal(mean, load_checkpoint(trainer.out)["objective"]["mimic.mean_128_0"])
    assert mean.abs().sum() > 0


def test_a_run_from_a_checkpoint_takes_over_its_projections_if_the_teacher_is_the_same(
    settings, teacher_file: Path
) -> None:
    common = options(teacher_file) | {"epochs": 1, "resolution": "128"}
    first = Trainer(settings("first", **common))
    first.fit()

    def begin(name: str, **changed: object) -> dict[str, torch.Tensor]:
        given = common | {"init": str(first.out / "checkpoint.pt"), "resolution": "128:0.5,192:1"}
        return Trainer(settings(name, **(given | changed))).objective.mimic.state_dict()

    learned, same = first.objective.mimic.state_dict(), begin("same")
    other = begin("other", mimic_color="rgb")
    assert learned["batches_128"] == same["batches_128"] > same["batches_192"] == 0
    for name in ("project.0.weight", "mean_128_0"):
        assert torch.equal(learned[name], same[name])
        assert not torch.equal(learned[name], other[name])


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"mimic_scores": "score16"}, "3 in mimic_features and 1 in mimic_scores"),
        ({"mimic_std": "1,0,1"}, "mimic_std must be above 0"),
        ({"mimic_scores": "cells16,cells32,cells64"}, "no probabilities"),
        ({"mimic_color": "red"}, "mimic_color must be one of bgr, rgb"),
        ({"mimic_mean": "1,2"}, "mimic_mean must be three numbers"),
        ({"mimic_features": "nothing,feature32,feature64"}, "no tensor 'nothing'"),
        ({"mimic_scores": "score32,score32,score64"}, "tensors of the same level"),
        ({"mimic": "absent.onnx"}, "no file absent.onnx"),
    ],
)
def test_what_cannot_be_imitated_is_refused_by_name(
    teacher_file: Path, changed: dict[str, str], reason: str
) -> None:
    with pytest.raises((OptionError, ModelError), match=reason):
        settings = TeacherSettings.from_config(config(teacher_file, **changed))
        Teacher(settings, sides=[128], device=torch.device("cpu"))


def test_tensors_of_other_strides_are_refused_with_both_grids(settings, teacher_file: Path) -> None:
    wrong = options(
        teacher_file,
        mimic_features="feature32,feature32,feature64",
        mimic_scores="score32,score32,score64",
    )
    trainer = Trainer(settings("run", **wrong | {"resolution": "128"}))
    with pytest.raises(OptionError, match=r"level 1 has a grid of \(4, 4\) .* the ODM \(8, 8\)"):
        trainer.fit()
