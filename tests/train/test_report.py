from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from rdlite.session import Session
from train.__main__ import main
from train.anchors import AnchorShapes, make_anchors
from train.engine import Trainer
from train.provenance import _used
from train.report import _exported
from train.trained import load_trained
from train.weights import architecture_of, read_weights

Printed = pytest.CaptureFixture[str]
Shapes = tuple[Path, Path]


def trained(settings: Callable[..., Any], **options: Any) -> Path:
    """The folder of a short run on `shapes`."""
    run = settings("run", **{"epochs": 0.1, "resolution": "96"} | options)
    Trainer(run).fit()
    return Path(run.out)


def rename(truth: Path, folder: Path, **names: str) -> Path:
    """A copy of a set with other class names."""
    content = json.loads(truth.read_text())
    for category in content["categories"]:
        category["name"] = names.get(category["name"], category["name"])
    path = folder / "renamed.json"
    path.write_text(json.dumps(content))
    return path


def test_export_and_eval_say_what_must_be_known_of_the_numbers(
    settings: Callable[..., Any], shapes: Shapes, tmp_path: Path, capsys: Printed
) -> None:
    run = trained(settings)
    truth = rename(shapes[0], tmp_path, red="Red", green="drone")
    output = run / "model.onnx"
    sets = ["--set", str(truth), str(shapes[1])]
    notes = (
        "24 images: AP is uncertain",
        "not counted: classes unknown to the model: drone",
        "spelled differently, taken as one: Red = red",
    )
    assert main(["export", str(run), "-o", str(output), *sets]) == 0
    printed, card = capsys.readouterr().out, output.with_suffix(".md").read_text()
    for note in notes:
        assert f"  {note}\n" in printed
        assert f"* renamed: {note}\n" in card
    assert "| width | 16 |" in card and "| init | random weights |" in card
    assert "mimic" not in card and "None" not in card
    assert card.count("| minutes |") == 1

    assert main(["eval", str(run), "-o", str(tmp_path), *sets]) == 0
    printed = capsys.readouterr().out
    assert f"measuring {output}, which is newer than the run's checkpoint\n" in printed
    for note in notes:
        assert f"\n{note}\n" in printed
    assert json.loads((tmp_path / "results.json").read_text())["renamed"]["images"] == 24


def test_settings_without_effect_are_left_out() -> None:
    config = {"epochs": 3.0, "minutes": None, "mimic": None, "mimic_weight": 2.0, "holdout": 0.1}
    assert _used(config) == {"epochs": 3.0, "holdout": 0.1}
    config |= {"minutes": 5.0, "mimic": "t.onnx", "mimic_scores": "", "val": "dev.json"}
    assert _used(config) == {"minutes": 5.0, "mimic": "t.onnx", "mimic_weight": 2.0}
    unused = {"mimic": None, "mimic_features": "a,b,c", "mimic_color": "rgb"}
    assert _used({"epochs": 3.0} | unused) == {"epochs": 3.0}
    config |= {"mimic_color": "bgr"}
    assert "mimic_color" not in _used(config)  # of a RefineDetLite nothing but its file is told
    assert "mimic_color" in _used(config | {"mimic_features": "a,b,c"})


def test_a_file_without_a_history_does_not_keep_the_curves_of_another(tmp_path: Path) -> None:
    model, curves = tmp_path / "a.onnx", tmp_path / "a-curves.png"
    curves.write_bytes(b"of the model that was here before")
    assert main(["export", "random", "--width", "16", "-o", str(model)]) == 0
    assert not curves.exists()
    assert "curves" not in model.with_suffix(".md").read_text(encoding="utf-8")


def test_the_model_of_a_run_that_went_on_is_not_measured(tmp_path: Path) -> None:
    assert _exported(str(tmp_path)) is None
    for name, time in (("model.onnx", 100), ("checkpoint.pt", 200)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time, time))
        assert _exported(str(tmp_path)) is None
    os.utime(tmp_path / "model.onnx", (300, 300))
    assert _exported(str(tmp_path)) == tmp_path / "model.onnx"


@pytest.mark.parametrize("command", ["eval", "export"])
def test_all_sets_are_checked_before_anything_is_exported(
    settings: Callable[..., Any], shapes: Shapes, tmp_path: Path, capsys: Printed, command: str
) -> None:
    run = trained(settings)
    output = tmp_path / "result"
    wrong = rename(shapes[0], tmp_path, red="cat", green="dog")
    sets = ["--set", *map(str, shapes), "--set", str(wrong), str(shapes[1])]
    capsys.readouterr()
    assert main([command, str(run), "-o", str(output), *sets]) == 1
    assert not output.exists()
    caught = capsys.readouterr()
    assert "it has cat, dog, the model red, green" in caught.err
    assert caught.err.count("\n") == 1 and caught.out == ""


def test_a_model_file_keeps_its_anchors_when_it_is_written_again(
    default_model: Path, tmp_path: Path
) -> None:
    usual = AnchorShapes.parse("28,68,136,216,300", "0.4,0.8,1.6")
    assert load_trained("default").shapes == usual
    other = AnchorShapes.parse("20,50,90,150,250", "0.5,1,2")
    spec = dataclasses.replace(
        Session(default_model).spec, anchors=make_anchors(320, other).numpy()
    )
    proto = onnx.load(default_model)
    onnx.helper.set_model_props(proto, spec.to_metadata())
    onnx.save(proto, tmp_path / "other.onnx")
    assert load_trained(tmp_path / "other.onnx").shapes.same_as(other)


@pytest.mark.usefixtures("default_model")
def test_random_weights_of_any_width_are_a_model_file(tmp_path: Path, capsys: Printed) -> None:
    path = tmp_path / "small.onnx"
    assert main(["export", "random", "--width", "16", "-o", str(path)]) == 0
    spec = Session(path).spec
    assert (len(spec.names), spec.input_size, spec.arithmetic) == (80, (320, 320), "fp32")
    assert architecture_of(read_weights(path).tensors)["width"] == 16
    assert "Random weights, width 16" in path.with_suffix(".md").read_text()
    assert main(["export", "random", "-o", str(path)]) == 1
    assert "small.onnx and" in capsys.readouterr().err
    assert main(["export", "default", "--width", "16", "-o", str(tmp_path / "new.onnx")]) == 1
    assert "width 16 is for random weights" in capsys.readouterr().err


def test_a_quantised_model_is_no_start_for_training(
    write_model: Callable[..., Path], capsys: Printed
) -> None:
    path = write_model(provenance={"quantization": {}})
    assert main(["export", str(path), "-o", "never.onnx"]) == 1
    assert "holds int8 weights; give the model it was made from" in capsys.readouterr().err
