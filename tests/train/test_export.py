from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from rdlite.errors import ModelError
from rdlite.session import Session
from train.anchors import make_anchors
from train.export import export_onnx, set_provenance
from train.model import RefineDetLite
from train.weights import load_weights, read_weights, write_weights


@pytest.fixture(scope="module")
def network() -> RefineDetLite:
    torch.manual_seed(0)
    model = RefineDetLite(3, width=16)
    for module in model.modules():  # a network whose every weight matters
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model.eval()


@pytest.fixture(scope="module")
def model_file(network: RefineDetLite, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "small.onnx"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        difference = export_onnx(
            network,
            path,
            names=["a", "b", "c"],
            category_ids=[1, 5, 9],
            provenance={"note": "test"},
        )
    assert not [w for w in caught if "LeafSpec" in str(w.message)]  # PyTorch's own concern
    assert 0 < difference < 1e-3
    return path


def test_the_run_time_opens_the_file_and_finds_the_training_constants(model_file: Path) -> None:
    spec = Session(model_file).spec
    assert spec.names == ("a", "b", "c") and spec.category_ids == (1, 5, 9)
    assert np.array_equal(spec.anchors, make_anchors(320).numpy())
    assert spec.variances == (0.1, 0.2) and spec.input_size == (320, 320)


def test_the_bytes_are_transposed_before_they_are_cast(model_file: Path) -> None:
    nodes = [n for n in onnx.load(model_file).graph.node if "float32" not in n.output[0]]
    assert [node.op_type for node in nodes[:3]] == ["Transpose", "Cast", "BatchNormalization"]


def test_kernels_are_stored_in_half_precision_under_their_own_names(model_file: Path) -> None:
    tensors = {t.name: t for t in onnx.load(model_file).graph.initializer}
    assert tensors["backbone.stem.conv.weight"].data_type == TensorProto.FLOAT16
    assert tensors["backbone.stem.bn.weight"].data_type == TensorProto.FLOAT


def test_training_starts_again_from_an_exported_file(
    network: RefineDetLite, model_file: Path
) -> None:
    again = RefineDetLite(3, width=16)
    load_weights(again, model_file)
    for name, value in network.state_dict().items():
        wanted = value.half().float() if value.ndim == 4 else value
        if "num_batches" not in name:
            assert torch.equal(again.state_dict()[name], wanted), name


def test_safetensors_round_trip(network: RefineDetLite, tmp_path: Path) -> None:
    write_weights(network, tmp_path / "w.safetensors")
    weights = read_weights(tmp_path / "w.safetensors").tensors
    assert all(torch.equal(weights[k], network.state_dict()[k]) for k in weights)


def test_weights_of_another_width_are_refused_by_name(model_file: Path) -> None:
    with pytest.raises(ModelError, match=r"c = 16, this network 32: .* give --width 16 or less"):
        load_weights(RefineDetLite(3, width=32), model_file)


@pytest.mark.parametrize("name", ["none.onnx", "readme.txt"])
def test_what_is_no_weights_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "readme.txt").write_text("text")
    with pytest.raises(ModelError, match=name):
        read_weights(tmp_path / name)


def test_provenance_can_be_replaced_without_touching_the_weights(model_file: Path) -> None:
    before = read_weights(model_file).tensors
    set_provenance(model_file, {"results": {"dev": {"ap": 0.1}}})
    assert Session(model_file).spec.provenance == {"results": {"dev": {"ap": 0.1}}}
    after = read_weights(model_file).tensors
    assert all(torch.equal(before[k], after[k]) for k in before)
