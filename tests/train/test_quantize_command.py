"""`python -m train quantize`: the file, its card, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import train.quantize
from rdlite import Detector
from rdlite.errors import ModelError, RdliteError
from rdlite.session import Session
from tests.train.quantizing import coarse_search, save_small
from train.__main__ import main
from train.quantize import quantize_model
from train.quantize_calibrate import sample_images


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small(tmp_path_factory.mktemp("fp32") / "small.onnx")


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with coarse_search():
        yield


@pytest.fixture(scope="module")
def written(
    fp32: Path, shapes: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    data, images = map(str, shapes)
    path = tmp_path_factory.mktemp("int8") / "small-int8.onnx"
    options = ["--data", data, "--images", images, "--set", data, images, "--calibrate", "8"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.quantize, "_HELD_LAYERS", 1)
        assert main(["quantize", str(fp32), *options, "-o", str(path), "--note", "A test."]) == 0
    return path


def test_an_int8_file_is_an_ordinary_model_file(written: Path, fp32: Path) -> None:
    before, after = Session(fp32).spec, Session(written).spec
    assert after.arithmetic == "int8"
    for field in dataclasses.fields(before):
        if field.name != "provenance":
            assert np.array_equal(getattr(before, field.name), getattr(after, field.name))
    assert after.provenance["recipe"] == before.provenance["recipe"]
    assert after.provenance["note"] == "A test."
    assert set(after.provenance["results"]) == {"shapes"}
    quantization = after.provenance["quantization"]
    assert quantization["model_sha256"] == Session(fp32).sha256
    assert quantization["calibrated"] + quantization["held"] == 24
    assert quantization["data"].endswith(".json") and quantization["seed"] == 0
    first, second = (onnx.load(path).graph for path in (fp32, written))
    for kind in ("input", "output"):
        values = [[(v.name, v.type) for v in getattr(g, kind)] for g in (first, second)]
        assert values[0] == values[1]
    assert Detector(written)(np.zeros((50, 70, 3), np.uint8)).image_size


def test_the_card_tells_accuracy_ranges_and_layers(written: Path) -> None:
    card = written.with_suffix(".md").read_text(encoding="utf-8")
    assert card.startswith("# Model card: small-int8\n\nA test.\n")
    for text in ("| shapes | 24 |", "| percentile 99.999 |", "| biases corrected |", "ratio "):
        assert text in card
    assert "| backbone.stem |" in card
    assert "No layer stays in float32" in card


def test_training_does_not_start_from_int8(written: Path) -> None:
    from train.weights import read_weights

    with pytest.raises(ModelError, match="int8"):
        read_weights(written)


def refused(fp32: Path, shapes: tuple[Path, Path], output: Path, **changes: Any) -> str:
    options: dict[str, Any] = {
        "model": str(fp32),
        "output": str(output),
        "sets": [],
        "data": str(shapes[0]),
        "images": str(shapes[1]),
        "calibrate": 4,
        "most_float": 0,
        "note": "",
        "seed": 0,
        "overwrite": False,
    }
    with pytest.raises(RdliteError) as caught:
        quantize_model(**options | changes)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"calibrate": 0}, "at least one image, got 0"),
        ({"most_float": -1}, "must not be negative, got -1"),
        ({"model": "none.onnx"}, "none.onnx"),
        ({"data": "none.json"}, "nothing at none.json"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_sentence(
    fp32: Path, shapes: tuple[Path, Path], tmp_path: Path, changes: Any, sentence: str
) -> None:
    message = refused(fp32, shapes, tmp_path / "out.onnx", **changes)
    assert sentence in message
    assert not list(tmp_path.iterdir())


def test_an_output_that_cannot_be_is_refused(
    fp32: Path, shapes: tuple[Path, Path], tmp_path: Path
) -> None:
    assert "is the fp32 model itself" in refused(fp32, shapes, fp32)
    assert "must be an .onnx file" in refused(fp32, shapes, tmp_path / "out.bin")
    assert "there is no folder" in refused(fp32, shapes, tmp_path / "none" / "out.onnx")


def test_an_int8_model_is_not_quantised_again(
    written: Path, shapes: tuple[Path, Path], tmp_path: Path
) -> None:
    assert "is int8 already" in refused(written, shapes, tmp_path / "out.onnx")


def test_another_network_is_refused(
    tiny_model: Path, shapes: tuple[Path, Path], tmp_path: Path
) -> None:
    assert "does not begin with Transpose, Cast" in refused(
        tiny_model, shapes, tmp_path / "out.onnx"
    )


def test_images_that_cannot_be_read_are_counted(
    shapes: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads(shapes[0].read_text())
    content["images"].append({"id": 99, "file_name": "gone.png", "width": 96, "height": 96})
    data = tmp_path / "data.json"
    data.write_text(json.dumps(content))
    drawn = sample_images(data, shapes[1], (32, 48), 99)
    assert drawn.shape == (24, 32, 48, 3)
    assert "1 of 25 images left out: gone.png" in capsys.readouterr().out
    assert np.array_equal(drawn, sample_images(data, shapes[1], (32, 48), 99))


def test_a_single_image_is_too_few(fp32: Path, shapes: tuple[Path, Path], tmp_path: Path) -> None:
    content = json.loads(shapes[0].read_text())
    content["images"] = content["images"][:1]
    data = tmp_path / "one.json"
    data.write_text(json.dumps(content | {"annotations": []}))
    assert "has one image" in refused(fp32, shapes, tmp_path / "q.onnx", data=str(data))


@pytest.mark.parametrize("name", ["q.onnx", "q.md"])
def test_what_exists_is_replaced_only_when_told(
    fp32: Path, shapes: tuple[Path, Path], tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("precious")
    assert f"{name} would be replaced" in refused(fp32, shapes, tmp_path / "q.onnx")
    assert (tmp_path / name).read_text() == "precious"
