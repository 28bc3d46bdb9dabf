"""A RefineDetLite as teacher of another: what it says is what the detector of its file says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rdlite import Detector
from rdlite.errors import ModelError, OptionError
from rdlite.session import Session
from train.__main__ import main
from train.anchors import ANCHORS_PER_CELL
from train.config import TrainConfig
from train.distil import SEEN
from train.engine import Trainer
from train.own_teacher import OwnTeacher
from train.report import export_with_card
from train.trained import load_trained

CPU = torch.device("cpu")


def told(**options: object) -> TrainConfig:
    return TrainConfig(**({"data": "d", "images": "i", "out": "o"} | options))


@pytest.fixture(scope="module")
def teacher() -> OwnTeacher:
    return OwnTeacher(told(mimic="default", distil=0.5), device=CPU)


@pytest.fixture(scope="module")
def street() -> np.ndarray:
    """A picture at the network's size, so that nothing is resized on the way."""
    import cv2

    from tests.conftest import street_frame

    return cv2.resize(street_frame(), (320, 320))


@pytest.mark.parametrize("side", [192, 320])
def test_its_features_have_the_grids_of_every_level(teacher: OwnTeacher, side: int) -> None:
    lesson = teacher(torch.zeros(2, side, side, 3, dtype=torch.uint8))
    grids = [-(-side // stride) for stride in (16, 32, 64, 128)]
    assert [f.shape for f in lesson.features] == [(2, 256, grid, grid) for grid in grids]
    assert [s.shape for s in lesson.scores] == [(2, grid, grid) for grid in grids]
    assert teacher.channels == [256] * 4
    assert all(not f.requires_grad and f.dtype == torch.float32 for f in lesson.features)


def test_a_cell_has_the_best_score_of_its_anchors(teacher: OwnTeacher, street: np.ndarray) -> None:
    lesson = teacher(torch.from_numpy(street[None]))
    logits = Session("default").run(street[None])[3].astype(np.float64)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    best = (odds / odds.sum(axis=1, keepdims=True))[:, 1:].max(axis=1)
    start = 0
    for level in lesson.scores:
        end = start + ANCHORS_PER_CELL * level.numel()
        wanted = best[start:end].reshape(*level.shape[1:], ANCHORS_PER_CELL).max(axis=2)
        assert np.abs(level[0].numpy() - wanted).max() < 0.06  # bfloat16 against float32
        start = end
    assert start == len(best) and best.max() > 0.3


def test_its_objects_are_those_that_the_detector_finds(
    teacher: OwnTeacher, street: np.ndarray
) -> None:
    found = Detector(nms="hard", conf=0.5)(street)
    assert len(found) > 0
    seen = teacher(torch.from_numpy(street[None])).seen
    assert seen is not None and seen.boxes.shape == (1, SEEN, 4)
    for box in found:
        off = (seen.boxes[0].numpy().clip(0, 1) * 320 - box.xyxy).__abs__().max(axis=1)
        nearest = int(off.argmin())
        assert off[nearest] < 6
        assert seen.scores[0, nearest, box.class_id].item() == pytest.approx(
            box.confidence, abs=0.1
        )


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_it_computes_as_precisely_as_the_run(
    teacher: OwnTeacher, street: np.ndarray, precision: str
) -> None:
    images = torch.from_numpy(street[None])
    exact = load_trained("default").model
    with torch.no_grad():
        _, wanted = exact.trunks(images.permute(0, 3, 1, 2).float())
    config = told(mimic="default", precision=precision)
    found = OwnTeacher(config, device=CPU)(images).features[0]
    same = torch.allclose(found, wanted[0], rtol=1e-4, atol=1e-4)
    assert same == (precision == "fp32")


def test_the_network_itself_is_drawn_towards_it(settings) -> None:
    """Projections alone would draw near too: they are held here, and so are the statistics."""
    run = Trainer(settings("run", resolution="128", mimic="default"))
    model, mimic = run.objective.model, run.objective.mimic
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 128, 128, 3), dtype=torch.uint8, generator=generator)
    lesson, x = run.teacher(images), images.permute(0, 3, 1, 2).float()
    mimic([trunk.detach() for trunk in model.trunks(x)[1]], lesson, 128)
    mimic.eval()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    distances = []
    for _ in range(12):
        distance = mimic(model.trunks(x)[1], lesson, 128)
        distances.append(distance.item())
        optimizer.zero_grad()
        distance.backward()
        optimizer.step()
    assert distances[-1] < 0.9 * distances[0]


def test_a_run_leaves_its_teacher_as_it_is(settings) -> None:
    run = Trainer(settings("run", epochs=1, resolution="128", mimic="default"))
    before = {n: t.clone() for n, t in run.teacher._model.state_dict().items()}
    run.fit()
    after = run.teacher._model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_a_narrower_network_begins_from_the_wider_one_and_learns_from_it(
    shapes: tuple[Path, Path], settings, tmp_path: Path
) -> None:
    data, images = map(str, shapes)
    anchors = {"anchor_sizes": "20,60,120,200,290"}
    first = Trainer(settings("wide", width=32, epochs=1, resolution="128", **anchors))
    first.fit()
    out = tmp_path / "narrow"
    command = ["fit", "--data", data, "--images", images, "--holdout", "0", "--out", str(out)]
    teacher = ["--init", str(first.out), "--mimic", str(first.out), "--distil", "0.5"]
    quick = ["--width", "16", "--batch", "8", "--epochs", "1", "--resolution", "128"]
    quick += ["--anchor-sizes", anchors["anchor_sizes"], "--workers", "0", "--threads", "1"]
    assert main([*command, *teacher, *quick, "--cache", str(tmp_path / "cache")]) == 0
    narrow = load_trained(out)
    assert narrow.names == ["red", "green"]
    recipe = narrow.provenance["recipe"]
    assert (recipe["mimic"], recipe["init"]) == ("wide/checkpoint.pt",) * 2
    assert "mimic_color" not in recipe and recipe["mimic_weight"] == 2.0


def test_objects_are_read_by_its_own_anchors(settings, street: np.ndarray) -> None:
    """A detector file with other anchors, and what it says through the run time."""
    other = {"anchor_sizes": "20,60,120,200,290", "anchor_ratios": "0.5,1,2"}
    run = Trainer(settings("other", epochs=0.1, resolution="128", **other))
    run.fit()
    export_with_card(str(run.out), f"{run.out}.onnx", [], classes=None, note="", half=False)
    small = np.ascontiguousarray(street[:128, :128])
    config = told(mimic=f"{run.out}.onnx", distil=0.5, precision="fp32")
    seen = OwnTeacher(config, device=CPU)(torch.from_numpy(small[None])).seen
    found = Detector(f"{run.out}.onnx", nms="hard", conf=0.01, iou=1.0, max_det=5)(small)
    assert len(found) > 0
    inside = seen.boxes[0].numpy().clip(0, 1) * 128
    for box in found:
        assert np.abs(inside - box.xyxy).max(axis=1).min() < 0.1


def test_its_labels_are_taken_only_for_the_same_classes(settings) -> None:
    with pytest.raises(OptionError, match=r"class 1 of default is person, that of .* is red;"):
        Trainer(settings("run", resolution="128", mimic="default", distil=0.5))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"mimic_scores": "a,b,c"}, "mimic_scores describes another detector"),
        ({"mimic_mean": "1,2,3"}, "give --mimic-features"),
        ({"distil": 0.5, "distil_boxes": "a"}, "distil_boxes describes another detector"),
    ],
)
def test_what_it_does_not_need_is_refused(settings, changed: dict, reason: str) -> None:
    with pytest.raises(OptionError, match=reason):
        settings("run", mimic="default", **changed)


def test_what_is_no_teacher_is_refused_with_what_is_wanted(
    teacher_file: Path, tmp_path: Path, settings
) -> None:
    (tmp_path / "notes.md").touch()
    (tmp_path / "empty").mkdir()
    wanted = {
        str(teacher_file): r"; another detector than RefineDetLite needs --mimic-features$",
        str(tmp_path / "absent.onnx"): r"no weights at .*absent\.onnx",
        str(tmp_path / "notes.md"): r"notes\.md is no weights file; wanted one of kind",
        str(tmp_path / "empty"): r"no weights at .*empty.checkpoint\.pt",
        "int8": r"holds int8 weights; give the model it was made from$",
    }
    for name, reason in wanted.items():
        with pytest.raises(ModelError, match=f"^mimic: .*{reason}"):
            Trainer(settings("run", resolution="128", mimic=name))


@pytest.mark.parametrize("name", ["mimic", "init", "val"])
def test_a_path_that_is_empty_is_no_missing_one(settings, name: str) -> None:
    with pytest.raises(OptionError, match=rf"^{name} is empty; is a variable"):
        settings("run", **{name: ""})
