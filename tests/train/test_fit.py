from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from rdlite import Detector
from rdlite.errors import OptionError, RdliteError
from train.__main__ import main
from train.checkpoint import load_checkpoint
from train.config import TrainConfig
from train.engine import Trainer
from train.export import export_onnx
from train.fit import run_config
from train.model import RefineDetLite


def test_a_run_ends_with_a_model_its_card_and_its_ap_on_images_it_never_saw(
    settings, capsys: pytest.CaptureFixture[str]
) -> None:
    run = settings("run", epochs=1, holdout=0.25, resolution="96")
    given = {k.replace("_", "-"): v for k, v in run.to_dict().items() if v is not None}
    assert main(["fit", *(f"--{k}={v}" for k, v in given.items())]) == 0

    out = Path(run.out)
    spec = Detector(out / "model.onnx").spec
    assert spec.names == ("red", "green")
    assert spec.input_size == (96, 96)  # what the run ended with
    held = json.loads((out / "val.json").read_text())
    assert len(held["images"]) == 6 and held["annotations"]
    trained = Trainer(run).dataset
    seen = {image.file_name for image in trained.images}
    assert len(seen) == 18
    assert not seen & {image["file_name"] for image in held["images"]}
    assert json.loads((out / "results.json").read_text())["val"]["images"] == 6
    assert "| val | 6 |" in (out / "model.md").read_text()
    printed = capsys.readouterr().out
    assert "18 images" in printed and "model.onnx" in printed


def test_a_killed_run_goes_on_with_the_settings_it_had(settings, tmp_path: Path) -> None:
    run = settings("run", epochs=2, resolution="96")
    Trainer(run).fit()
    assert run_config([], {"out": run.out}) == Trainer(run).config
    assert main(["fit", "--out", run.out]) == 0  # only the export was left to do
    assert (Path(run.out) / "model.onnx").exists()
    assert load_checkpoint(run.out)["step"] == 6
    with pytest.raises(OptionError, match=r"holds a run with other settings \(lr: 0.001 there"):
        Trainer(run_config([], {"out": run.out, "lr": 0.5}))


def test_choices_are_kept_when_a_run_goes_on(settings) -> None:
    run = settings("run", epochs=0, batch=0, lr=0, resolution="auto")
    chosen = Trainer(run).config
    assert (chosen.batch, chosen.lr, chosen.resolution) == (6, 1e-3, "192:0.55,256:0.82,320:1")
    assert chosen.epochs > 100
    assert run_config([], {"out": run.out}) == chosen


def test_without_images_to_hold_out_a_run_says_that_there_is_no_ap(
    settings, capsys: pytest.CaptureFixture[str]
) -> None:
    run = settings("run", epochs=1, resolution="96")
    assert (
        main(
            [
                "fit",
                "--out",
                run.out,
                "--data",
                run.data,
                "--images",
                run.images,
                "--cache",
                run.cache,
                "--width",
                "16",
                "--batch",
                "8",
                "--epochs",
                "0.1",
                "--resolution",
                "96",
                "--workers",
                "0",
                "--threads",
                "1",
                "--holdout",
                "0",
            ]
        )
        == 0
    )
    assert "no AP" in capsys.readouterr().out
    assert json.loads((Path(run.out) / "results.json").read_text()) == {}


def test_a_validation_set_of_its_own_is_measured_under_soft_nms(settings) -> None:
    run = settings("run", epochs=0.1, resolution="96", soft_nms=True)
    arguments = run.to_dict() | {"val": str(shutil.copy(run.data, f"{run.out}.json"))}
    given = {k.replace("_", "-"): v for k, v in arguments.items() if v is not None}
    assert main(["fit", *(f"--{k}={v}" for k, v in given.items())]) == 0
    assert "gaussian soft-NMS" in (Path(run.out) / "model.md").read_text()
    assert json.loads((Path(run.out) / "results.json").read_text())["val"]["images"] == 24


def test_a_frozen_backbone_stays_bit_for_bit_as_it_was(settings, tmp_path: Path) -> None:
    torch.manual_seed(0)
    start = tmp_path / "start.onnx"
    export_onnx(
        RefineDetLite(2, width=16).eval(),
        start,
        names=["red", "cat"],
        category_ids=[1, 2],
        provenance={},
        half=False,
    )
    trainer = Trainer(settings("run", init=str(start), freeze="backbone", epochs=1))
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    trainer.fit()
    for name, value in trainer.model.state_dict().items():
        if name.startswith("backbone."):
            assert torch.equal(value, before[name]), name
    assert not torch.equal(trainer.model.arm_loc[0].weight, before["arm_loc.0.weight"])


@pytest.mark.usefixtures("default_model")
def test_the_embedded_model_can_start_a_run_on_other_classes(settings, capsys) -> None:
    trainer = Trainer(settings("run", init="default", width=72))
    assert "2 are new to it (red, green)" in capsys.readouterr().out
    assert trainer.model.num_classes == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"val": "/nowhere.json"}, "nowhere.json"),
        ({"val_images": "/"}, "none of the 24 images .*; give the folder"),
    ],
)
def test_a_validation_set_that_cannot_be_used_is_refused_before_the_training(
    settings, change: dict, reason: str
) -> None:
    run = settings("run", epochs=1)
    with pytest.raises(RdliteError, match=reason):
        other = str(shutil.copy(run.data, f"{run.out}.json"))
        Trainer(replace(run, **({"val": other} | change)))


def test_the_training_set_is_refused_as_validation_set(settings) -> None:
    run = settings("run", epochs=1)
    with pytest.raises(RdliteError, match="training and validation are both given"):
        Trainer(replace(run, val=run.data))


def test_a_validation_set_without_a_class_of_the_training_is_refused(
    settings, tmp_path: Path
) -> None:
    run = settings("run", epochs=1)
    content = json.loads(Path(run.data).read_text())
    for category in content["categories"]:
        category["name"] = f"other {category['name']}"
    (tmp_path / "other.json").write_text(json.dumps(content))
    with pytest.raises(RdliteError, match=r"none of the 2 classes .*other red, other green"):
        Trainer(replace(run, val=str(tmp_path / "other.json")))


def test_freezing_random_weights_is_refused(settings) -> None:
    with pytest.raises(OptionError, match="give --init"):
        settings("run", freeze="backbone")


def test_a_run_that_saved_nothing_begins_anew_with_what_it_is_told(settings) -> None:
    run = settings("run", lr=0.5)
    Trainer(run)  # writes its settings and goes no further
    told = {"out": run.out, "data": run.data, "images": run.images, "lr": 1e-3}
    assert run_config([], told).lr == 1e-3
    assert run_config([], {"out": run.out}).lr == 0.5


@pytest.fixture
def own(settings, tmp_path: Path):
    """Change a copy of the shapes, and return the settings of a run on it."""

    def act(change: Callable[[dict, Path], None], **options: object) -> TrainConfig:
        run = settings("run", **options)
        images, data = tmp_path / "images", tmp_path / "own.json"
        shutil.copytree(run.images, images, dirs_exist_ok=True)
        content = json.loads(Path(run.data).read_text())
        change(content, images)
        data.write_text(json.dumps(content))
        return replace(run, data=str(data), images=str(images))

    return act


def test_few_images_change_sides_when_a_set_grows_or_its_boxes_become_regions(
    own, settings
) -> None:
    before = Trainer(settings("before", holdout=0.25)).dataset.held_out

    def grow(content: dict, images: Path) -> None:
        for one in content["annotations"]:
            one["score"] = 0.2 if f"{one['image_id'] - 1}.png" in sorted(before)[:1] else 0.8
        for number in range(24, 28):
            shutil.copy(images / "0.png", images / f"{number}.png")
            entry = content["images"][0] | {"id": number + 1, "file_name": f"{number}.png"}
            content["images"].append(entry)

    after = Trainer(own(grow, holdout=0.25, min_score=0.5)).dataset.held_out
    assert len(before) == 6 and len(before & after) >= 4


def test_what_is_a_region_in_training_is_one_in_the_measuring(own) -> None:
    def score(content: dict, images: Path) -> None:
        for number, one in enumerate(content["annotations"]):
            one |= {"score": (0.4, 0.6)[number % 2], "iscrowd": number % 2}

    run = own(score, holdout=0.25, min_score=0.5)
    Trainer(run)
    measured = json.loads(Path(run.out, "val.json").read_text())["annotations"]
    assert {(one["score"], one["iscrowd"], one["ignore"]) for one in measured} == {
        (0.4, 1, 1),
        (0.6, 0, 0),
    }


@pytest.mark.parametrize(("resolution", "side"), [("96", 512), ("640", 1024)])
def test_pictures_are_kept_as_large_as_the_resolution_asks_for(
    own, resolution: str, side: int
) -> None:
    def enlarge(content: dict, images: Path) -> None:
        cv2.imwrite(str(images / "0.png"), np.zeros((1600, 1600, 3), np.uint8))
        content["images"][0] |= {"width": 1600, "height": 1600}

    cache = Trainer(own(enlarge, resolution=resolution)).dataset.cache
    assert cache[0].shape == (side, side, 3)
