from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from rdlite.errors import ModelError, OptionError
from train.checkpoint import load_checkpoint
from train.config import TrainConfig
from train.engine import Trainer
from train.mimic import SETTLE, Lesson, MimicLoss, Teacher, TeacherSettings

CHANNELS = 4
NATIVE = 320


@pytest.fixture(scope="module")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector as exporters write them: batch 1, side 320 and a channel shuffle in constants.

    Its features at strides 16, 32, 64 are averages of the (scaled) blue, green and red of the cell
    and one channel of ones, shuffled; its scores are sigmoids of blue and green, flattened.
    """
    nodes, constants, outputs = [], [], []

    def constant(name: str, value: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(value, name))
        return name

    kernel = np.zeros((CHANNELS, 3, 1, 1), np.float32)
    kernel[[0, 1, 2], [0, 1, 2]] = 1
    bias = constant("bias", np.array([0, 0, 0, 1], np.float32))
    nodes.append(helper.make_node("Conv", ["image", constant("kernel", kernel), bias], ["colours"]))
    for stride in (16, 32, 64):
        grid, s = NATIVE // stride, str(stride)
        pair = constant(f"pair{s}", np.array([1, 2, CHANNELS // 2, grid, grid]))
        back = constant(f"back{s}", np.array([1, CHANNELS, grid, grid]))
        flat = constant(f"flat{s}", np.array([1, 2, -1]))
        nodes += [
            helper.make_node(
                "AveragePool",
                ["colours"],
                [f"cells{s}"],
                kernel_shape=[stride] * 2,
                strides=[stride] * 2,
            ),
            helper.make_node("Reshape", [f"cells{s}", pair], [f"p{s}"]),
            helper.make_node("Transpose", [f"p{s}"], [f"t{s}"], perm=[0, 2, 1, 3, 4]),
            helper.make_node("Reshape", [f"t{s}", back], [f"feature{s}"]),
            helper.make_node(
                "Slice",
                [
                    f"cells{s}",
                    constant(f"a{s}", np.array([0])),
                    constant(f"b{s}", np.array([2])),
                    constant(f"c{s}", np.array([1])),
                ],
                [f"first{s}"],
            ),
            helper.make_node("Sigmoid", [f"first{s}"], [f"sigmoid{s}"]),
            helper.make_node("Reshape", [f"sigmoid{s}", flat], [f"r{s}"]),
            helper.make_node("Transpose", [f"r{s}"], [f"score{s}"], perm=[0, 2, 1]),
        ]
        outputs.append(helper.make_tensor_value_info(f"score{s}", TensorProto.FLOAT, None))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, NATIVE, NATIVE])
    graph = helper.make_graph(nodes, "teacher", [image], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path = tmp_path_factory.mktemp("teacher") / "teacher.onnx"
    onnx.save(model, path)
    return path


def options(path: Path, **changed: str) -> dict[str, str]:
    return {
        "mimic": str(path),
        "mimic_features": "feature16,feature32,feature64",
        "mimic_scores": "score16, score32, score64",
        "mimic_mean": "100,0,0",
        "mimic_std": "10,1,1",
        **changed,
    }


def config(path: Path, **changed: str) -> TrainConfig:
    return TrainConfig(
        data="d", images="i", out="o", resolution="128:0.5,192:1", **options(path, **changed)
    )


@pytest.mark.parametrize("side", [128, 192, 320])
def test_a_teacher_of_fixed_size_runs_at_any_side_and_batch(teacher_file: Path, side: int) -> None:
    teacher = Teacher(TeacherSettings.from_config(config(teacher_file)), device=torch.device("cpu"))
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


def test_cells_count_by_the_teacher_s_score_and_channels_are_standardised() -> None:
    loss = MimicLoss([1], config(Path("t"), mimic_scores="a"))
    loss.weight = 1.0
    torch.nn.init.zeros_(loss.project[0].weight)
    torch.nn.init.zeros_(loss.project[0].bias)
    feature = torch.tensor([[[[8.0, 2.0], [2.0, 0.0]]]])  # mean 3, variance 9: z = 5/3, -1/3, -1
    score = torch.tensor([[[0.5, 0.0], [0.0, 0.25]]])
    trunk = torch.zeros(1, 256, 2, 2)
    value = loss([trunk], Lesson([feature], [score]), 128)
    assert value.item() == pytest.approx((0.5 * 25 / 9 + 0.25 * 1) / 0.75)


def test_statistics_are_kept_by_resolution_and_stand_still_after_a_while() -> None:
    loss = MimicLoss([1], config(Path("t"), mimic_scores="a"))
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
    trainer.fit()
    assert trainer.history[-1]["mimic"] < 0.7 * trainer.history[0]["mimic"]
    again = Trainer(settings("run", **common))
    mean = again.objective.mimic.get_buffer("mean_128_0")
    assert torch.equal(mean, load_checkpoint(trainer.out)["objective"]["mimic.mean_128_0"])
    assert mean.abs().sum() > 0


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"mimic_scores": "score16"}, "3 in mimic_features and 1 in mimic_scores"),
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
        Teacher(settings, device=torch.device("cpu"))


def test_tensors_of_other_strides_are_refused_with_both_grids(settings, teacher_file: Path) -> None:
    wrong = options(
        teacher_file,
        mimic_features="feature32,feature32,feature64",
        mimic_scores="score32,score32,score64",
    )
    trainer = Trainer(settings("run", **wrong | {"resolution": "128"}))
    with pytest.raises(OptionError, match=r"level 1 has a grid of \(4, 4\) .* the ODM \(8, 8\)"):
        trainer.fit()
