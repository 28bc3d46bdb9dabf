"""Model files that are damaged, foreign or replaced, and networks that answer nonsense."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from rdlite import Detector, ModelError
from tests.command import cli
from tests.conftest import HEADS, ModelWriter, Ship, colour_model, constant_model, tiny_spec

ANCHORS = 24
Heads = dict[str, np.ndarray]


def heads(**changes: np.ndarray) -> Heads:
    """Outputs that call every anchor an object of every class, with no offset; and `changes`."""
    values = {name: np.zeros((1, ANCHORS, width)) for name, width in HEADS.items()}
    values["arm_conf"][..., 1] = values["odm_conf"][..., 1] = 10
    return values | changes


def with_opset(version: int) -> Any:
    model = colour_model()
    model.opset_import[0].version = version
    return model


def without_metadata(write: ModelWriter) -> bytes:
    model = onnx.load_from_string(write().read_bytes())
    del model.metadata_props[:]
    return model.SerializeToString()


BROKEN: dict[str, tuple[Callable[[ModelWriter], bytes], str]] = {
    "empty": (lambda write: b"", "is empty"),
    "text": (lambda write: b"hello, this is no model", "not an ONNX file, or is truncated"),
    "bytes": (lambda write: bytes(range(256)) * 40, "not an ONNX file, or is truncated"),
    "zeros": (lambda write: b"\0" * 1000, "not an ONNX file, or is truncated"),
    "cut at 1 %": (lambda write: write().read_bytes()[:40], "not an ONNX file, or is truncated"),
    "cut at 50 %": (lambda write: half(write().read_bytes()), "not an ONNX file, or is truncated"),
    "cut at the end": (lambda write: write().read_bytes()[:-9], "not an ONNX file, or is trunc"),
    "opset": (lambda write: write(with_opset(999)).read_bytes(), "onnxruntime cannot load it"),
    "shape": (
        lambda write: write(spec=tiny_spec(input_size=(48, 32))).read_bytes(),
        r"input image must have shape \(1, 48, 32, 3\)",
    ),
    "foreign": (without_metadata, "not an rdlite model"),
    "entry": (lambda write: write(anchors=None).read_bytes(), r"lacks rdlite\.anchors"),
}


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.fault(39)
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_model_is_one_sentence_that_names_it(
    kind: str, write_model: ModelWriter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, reason = BROKEN[kind]
    path = tmp_path / "bad.onnx"
    path.write_bytes(make(write_model))
    with pytest.raises(ModelError, match=rf"bad\.onnx: .*{reason}"):
        Detector(path)
    (tmp_path / "photo.png").touch()
    out = tmp_path / "out"
    assert cli("detect", tmp_path / "photo.png", "-o", out, "--model", path) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"rdlite: error: {path}: ") and error.count("\n") == 1
    assert not out.exists()


@pytest.fixture
def external(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> Any:
    """A function that saves the tiny model with one weight kept at the given location."""
    folder = tmp_path / "model"
    folder.mkdir()
    monkeypatch.chdir(folder)
    model = onnx.load_from_string(tiny_model.read_bytes())
    weight = next(one for one in model.graph.initializer if one.name == "odm_conf.weight")
    data = weight.raw_data

    def save(location: str) -> Path:
        weight.ClearField("raw_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0"), ("length", str(len(data)))):
            weight.external_data.add(key=key, value=value)
        path = folder / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return save, data, tmp_path


@pytest.mark.fault(40)
@pytest.mark.parametrize("kind", ["plain", "parent", "absolute", "symlink", "hardlink"])
def test_weights_outside_the_file_are_refused(kind: str, external: Any) -> None:
    save, data, root = external
    secret = root / "secret.bin"
    secret.write_bytes(data)
    inside = root / "model" / "weights.bin"
    if kind == "plain":
        inside.write_bytes(data)
    elif kind == "symlink":
        inside.symlink_to(secret)
    elif kind == "hardlink":
        inside.hardlink_to(secret)
    location = {"parent": "../secret.bin", "absolute": str(secret)}.get(kind, "weights.bin")
    with pytest.raises(ModelError, match=r"model\.onnx: keeps data outside the model file"):
        Detector(save(location))


@pytest.mark.fault(41)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("head", HEADS)
def test_what_is_not_finite_is_dropped_and_counted(
    head: str, value: float, write_model: ModelWriter, squares: np.ndarray
) -> None:
    outputs = heads()
    outputs[head][0, 5] = value
    found = Detector(write_model(constant_model(**outputs)))(squares)
    assert found.dropped_nonfinite == 1
    assert len(found) == 23
    assert np.isfinite(found.xyxy).all()
    assert np.isfinite(found.confidence).all()


@pytest.mark.fault(41)
def test_huge_offsets_leave_no_box_outside_the_image(
    write_model: ModelWriter, squares: np.ndarray
) -> None:
    rng = np.random.default_rng(0)
    sizes = [-1e30, -1e4, 0, 1e4, 1e30]
    huge = {name: rng.choice(sizes, (1, ANCHORS, 4)) for name in ("arm_loc", "odm_loc")}
    found = Detector(write_model(constant_model(**heads(**huge))))(squares)
    assert found.dropped_nonfinite > 0
    assert np.isfinite(found.xyxy).all()
    assert (found.xyxy >= 0).all()
    assert (found.xyxy[:, 2:] <= (96, 64)).all()


@pytest.mark.fault(42)
@pytest.mark.parametrize("nms", ["hard", "linear", "gaussian"])
def test_everything_above_the_threshold_still_respects_max_det(
    nms: str, write_model: ModelWriter, squares: np.ndarray
) -> None:
    # Benchmarks measure the time that soft-NMS takes; it is bounded by the candidates it is given.
    outputs = heads(odm_conf=np.zeros((1, ANCHORS, HEADS["odm_conf"])))
    detector = Detector(write_model(constant_model(**outputs)), conf=0.01, nms=nms)
    assert len(detector(squares)) == 100
    assert len(detector(squares, max_det=7)) == 7


@pytest.mark.fault(42)
def test_nothing_found_is_an_empty_result(write_model: ModelWriter, squares: np.ndarray) -> None:
    outputs = heads(arm_conf=np.full((1, ANCHORS, 2), [10.0, 0]))
    found = Detector(write_model(constant_model(**outputs)), conf=0.01)(squares)
    assert (found.xyxy.shape, found.confidence.shape) == ((0, 4), (0,))
    assert found.to_dict()["detections"] == []


@pytest.mark.fault(43)
@pytest.mark.parametrize("damage", ["cut", "flipped", "mixed up"])
def test_a_wrong_file_behind_a_name_is_refused_and_left_alone(
    damage: str, ship: Ship, tiny_model: Path, write_model: ModelWriter
) -> None:
    path = ship(tiny_model, "small", "default")
    content = tiny_model.read_bytes()
    wrong = {
        "cut": content[:-9],
        "flipped": content.replace(b"made in a test", b"made in a tesT"),
        "mixed up": write_model(constant_model()).read_bytes(),
    }[damage]
    path.write_bytes(wrong)
    for model in ("small", "default", None):
        with pytest.raises(ModelError, match=r"small\.onnx: is not the model .*wanted"):
            Detector(model)
    assert path.read_bytes() == wrong


# A model is identified by the SHA-256 of its file: boxes of two are never mixed in one result.


@pytest.mark.fault(43)
def test_a_detector_keeps_the_model_it_was_made_with(
    write_model: ModelWriter, squares: np.ndarray
) -> None:
    path, other = write_model(), write_model(constant_model())
    detector = Detector(path)
    identity = detector.model_sha256
    os.replace(other, path)
    assert len(detector(squares)) == 2
    assert detector.model_sha256 == identity != Detector(path).model_sha256


@pytest.mark.fault(43)
def test_a_worker_refuses_a_model_that_was_replaced(write_model: ModelWriter) -> None:
    path, other = write_model(), write_model(constant_model())
    content = pickle.dumps(Detector(path))
    assert pickle.loads(content).names == Detector(path).names
    os.replace(other, path)
    with pytest.raises(ModelError, match=rf"{path.name}: is not the model of the detector"):
        pickle.loads(content)


@pytest.mark.fault(43)
def test_a_forked_process_refuses_a_model_that_was_replaced(
    write_model: ModelWriter, squares: np.ndarray
) -> None:
    path, other = write_model(), write_model(constant_model())
    detector = Detector(path)
    os.replace(other, path)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            detector(squares)
        except BaseException as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as told:
        assert "ModelError" in (text := told.read()) and "has changed since" in text
