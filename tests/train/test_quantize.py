from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import train.model
import train.quantize
import train.quantize_calibrate
import train.quantize_error
from rdlite.modelfile import OUTPUTS
from rdlite.session import Session
from tests.train.quantizing import BAD, LAYERS, SIDE, coarse_search, save_small
from train.quantize import quantize
from train.quantize_build import build, correct_biases, read_bytes
from train.quantize_calibrate import Histograms, share_ranges
from train.quantize_error import Reference, channel_means, decibel, layer_errors
from train.quantize_graph import _fill_groups, layer_names, prepare


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small(tmp_path_factory.mktemp("fp32") / "small.onnx")


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with coarse_search():
        yield


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """Blurred noise: uint8 (12, 96, 96, 3)."""
    coarse = np.random.default_rng(0).integers(0, 256, (12, SIDE // 8, SIDE // 8, 3), np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


@pytest.fixture(scope="module")
def graph(fp32: Path) -> onnx.ModelProto:
    return prepare(fp32)


@pytest.fixture(scope="module")
def histograms(graph: onnx.ModelProto, pictures: np.ndarray) -> Histograms:
    return Histograms(graph, pictures)


@pytest.fixture(scope="module")
def int8(graph: onnx.ModelProto, histograms: Histograms) -> onnx.ModelProto:
    return build(graph, histograms.ranges("minmax"))


def session_of(proto: onnx.ModelProto, **options: Any) -> ort.InferenceSession:
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    for name, value in options.items():
        setattr(settings, name, value)
    content = proto.SerializeToString()
    return ort.InferenceSession(content, settings, providers=["CPUExecutionProvider"])


def test_the_prepared_graph_computes_what_the_file_does(
    fp32: Path, graph: onnx.ModelProto, pictures: np.ndarray
) -> None:
    original, prepared = Session(fp32), session_of(graph)
    for picture in pictures[:3]:
        wanted = original.run(picture[None])
        got = prepared.run(OUTPUTS, {"image": picture[None]})
        for a, b in zip(wanted, got, strict=True):
            # Padding is a byte where the network has a fraction.
            assert np.abs(a - b[0]).max() < 0.01 * np.abs(a).max()


def test_layers_are_named_after_their_weights(graph: onnx.ModelProto) -> None:
    names = layer_names(graph)
    assert len(set(names)) == len(names)
    assert {"backbone.stem", "backbone.stage1.1.reduce", "odm_conf.3"} <= set(names)


def test_int8_outputs_are_near_those_of_the_file(
    graph: onnx.ModelProto, int8: onnx.ModelProto, pictures: np.ndarray
) -> None:
    assert decibel(Reference(graph, pictures).error(int8)) > 25


def test_nothing_between_the_image_and_the_outputs_is_computed_in_float(
    int8: onnx.ModelProto, tmp_path: Path
) -> None:
    path = tmp_path / "optimised.onnx"
    session_of(int8, optimized_model_filepath=str(path))
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    computed = {"QLinearConv", "QGemm", "QLinearAdd", "QLinearConcat", "NhwcMaxPool"}
    assert kinds <= computed | {"Concat", "Split", "Reshape", "Transpose", "Gather"}
    assert computed <= kinds


def test_weights_are_int8_and_activations_uint8(int8: onnx.ModelProto) -> None:
    tensors = {t.name: t.data_type for t in int8.graph.initializer}
    makers = {name: node for node in int8.graph.node for name in node.output}
    for node in int8.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            source, kernel = (makers[name] for name in node.input[:2])
            assert tensors[kernel.input[0]] == TensorProto.INT8
            assert tensors[source.input[2]] == TensorProto.UINT8


@pytest.mark.parametrize(("channels", "dense"), [((32, 48), True), ((128, 128), False)])
def test_convolutions_of_narrow_groups_become_dense_and_compute_the_same(
    channels: tuple[int, int], dense: bool
) -> None:
    inputs, outputs = channels
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(outputs, inputs // 2, 3, 3)).astype(np.float32)
    node = helper.make_node("Conv", ["image", "w"], ["y"], group=2, pads=[1, 1, 1, 1])
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, count, 8, 8])
        for name, count in (("image", inputs), ("y", outputs))
    ]
    graph = helper.make_graph(
        [node], "convolution", values[:1], values[1:], [numpy_helper.from_array(kernel, "w")]
    )
    opsets = [helper.make_opsetid("", 20)]
    model = ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=10))
    image = rng.normal(size=(1, inputs, 8, 8)).astype(np.float32)
    before = session_of(ir.to_proto(model)).run(None, {"image": image})[0]
    _fill_groups(model.graph)
    after = ir.to_proto(model)
    assert [a.i for a in after.graph.node[0].attribute if a.name == "group"] == [1 if dense else 2]
    assert np.allclose(session_of(after).run(None, {"image": image})[0], before, atol=1e-4)


@pytest.mark.parametrize("layer", LAYERS)
def test_any_layer_may_stay_in_float(
    graph: onnx.ModelProto, pictures: np.ndarray, layer: str
) -> None:
    reference = Reference(graph, pictures[:2])
    ranges = Histograms(graph, pictures[:4]).ranges("minmax")
    part = build(graph, ranges, float_layers=[layer])
    kept = [n for n in part.graph.node if n.name == layer]
    floats = {t.name for t in part.graph.initializer if t.data_type == TensorProto.FLOAT}
    assert kept[0].input[1] in floats
    assert decibel(reference.error(part)) > 20


def test_narrow_groups_become_dense(fp32: Path, graph: onnx.ModelProto) -> None:
    groups = {a.i for n in onnx.load(fp32).graph.node for a in n.attribute if a.name == "group"}
    assert groups == {1, 2}
    narrow = [n for n in graph.graph.node if n.name == "backbone.stage1.1.branches.0"]
    assert [a.i for a in narrow[0].attribute if a.name == "group"] == [1]


def planted(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The same function with one channel between two layers a thousand times the others."""
    changed = onnx.ModelProto()
    changed.CopyFrom(graph)
    tensors = {t.name: t for t in changed.graph.initializer}
    for name, index, factor in (
        (BAD[0], (5,), 1000),
        (BAD[1], (slice(None), 5), 0.001),
    ):
        node = next(n for n in changed.graph.node if n.name == name)
        for tensor in node.input[1:] if factor > 1 else node.input[1:2]:
            value = numpy_helper.to_array(tensors[tensor]).copy()
            value[index] *= factor
            tensors[tensor].CopyFrom(numpy_helper.from_array(value, tensor))
    return changed


def test_a_layer_that_bytes_cannot_hold_ranks_first(
    graph: onnx.ModelProto, pictures: np.ndarray
) -> None:
    bad = planted(graph)
    int8 = build(bad, Histograms(bad, pictures[:4]).ranges("minmax"))
    worst = layer_errors(bad, int8, Reference(bad, pictures[:2]))
    assert {row.name for row in worst[:2]} == set(BAD)
    assert worst[1].error > 10 * worst[2].error
    errors = {row.name: row.outputs for row in worst}
    assert errors["lateral.1.expand"][0] == 0  # the ARM does not read it
    assert min(errors[BAD[0]]) > 0


def test_the_worst_layers_stay_in_float_where_bytes_lose_much(
    graph: onnx.ModelProto, pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train.quantize, "METHODS", ("minmax",))
    monkeypatch.setattr(train.quantize, "ENOUGH", 25.0)
    bad = planted(graph)
    chosen = quantize(bad, pictures[:8], most_float=4)
    assert set(chosen.float_layers) == set(BAD)
    kinds = {n.name: n.op_type for n in chosen.proto.graph.node}
    assert kinds[BAD[0]] == "Conv"
    assert not set(BAD) & read_bytes(chosen.proto).weights.keys()
    assert decibel(chosen.error) > 25 > decibel(max(chosen.methods["minmax"]))


def test_minmax_ranges_are_what_was_seen_and_others_lie_within(
    graph: onnx.ModelProto, histograms: Histograms, pictures: np.ndarray
) -> None:
    relu = next(n for n in graph.graph.node if n.op_type == "Relu").output[0]
    extended = onnx.ModelProto()
    extended.CopyFrom(graph)
    extended.graph.output.append(onnx.ValueInfoProto(name=relu))
    session = session_of(extended)
    seen = np.concatenate([session.run([relu], {"image": p[None]})[0] for p in pictures])
    low, high = histograms.ranges("minmax")[relu]
    assert (low, high) == pytest.approx((seen.min(), seen.max()), rel=1e-5)
    width = (high - low) / 500  # of a bin of the histogram
    for method, percentile in (("percentile 99.99", 99.995), ("percentile 90", 95)):
        assert histograms.ranges(method)[relu][1] == pytest.approx(
            np.percentile(seen, percentile), abs=width
        )
    assert 0 < histograms.ranges("mse")[relu][1] <= high
    assert 0 < histograms.ranges("entropy")[relu][1] <= high


def test_what_is_concatenated_has_one_range(graph: onnx.ModelProto, histograms: Histograms) -> None:
    ranges = histograms.ranges("minmax")
    shared = share_ranges(graph, ranges)
    found = 0
    for node in graph.graph.node:
        names = [*node.input, *node.output]
        if node.op_type == "Concat" and all(name in ranges for name in names):
            found += 1
            assert len({shared[name] for name in names}) == 1
            assert all(shared[n][0] <= ranges[n][0] and shared[n][1] >= ranges[n][1] for n in names)
    assert found


def test_corrected_biases_take_away_the_mean_error_of_a_layer(
    graph: onnx.ModelProto, histograms: Histograms, pictures: np.ndarray
) -> None:
    means = channel_means(graph, pictures)
    layer = next(n for n in graph.graph.node if n.name == "lateral.0.reduce")
    ranges = histograms.ranges("minmax")
    int8 = build(graph, ranges)
    corrected = correct_biases(graph, int8, means)
    tensors = {t.name: numpy_helper.to_array(t) for t in graph.graph.initializer}
    after = {t.name: numpy_helper.to_array(t) for t in corrected.graph.initializer}
    _, weight, bias = layer.input
    rounded = read_bytes(int8).weights[layer.name]
    mean = means[layer.input[0]]
    wanted = tensors[weight][:, :, 0, 0] @ mean + tensors[bias]
    assert rounded[:, :, 0, 0] @ mean + after[bias] == pytest.approx(wanted, abs=1e-4)
    assert not np.allclose(tensors[bias], after[bias], atol=1e-4)
