"""Counting, decoding and reporting in `benchmarks/table`; nothing is timed here."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.table.peers import decode_fastestdet, decode_picodet, decode_yolox
from benchmarks.table.report import report

onnx = pytest.importorskip("onnx", reason="small graphs are made with onnx")

from benchmarks.table.macs import Layer, count_macs, total_macs  # noqa: E402
from benchmarks.table.timing import useful_macs  # noqa: E402

TABLE = Path(__file__).parents[1] / "benchmarks" / "table"


def graph(
    nodes: list[Any],
    weights: dict[str, tuple[int, ...]],
    shape: tuple[int | str, ...],
    *,
    kind: int = onnx.TensorProto.FLOAT,
) -> bytes:
    """A model from x to y, with weights of ones."""
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones(s, np.float32), name) for name, s in weights.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def node(kind: str, weight: str = "w", **attributes: Any) -> Any:
    return onnx.helper.make_node(kind, ["x", weight], ["y"], name="it", **attributes)


@pytest.mark.parametrize(
    ("made", "weight", "shape", "wanted"),
    [
        # 4 x 4 places, 8 channels, each of 3 x 3 of 6 channels
        (node("Conv", pads=[1] * 4), (8, 6, 3, 3), (1, 6, 4, 4), ("dense", 16 * 8 * 9 * 6)),
        (
            node("Conv", pads=[1] * 4, strides=[2, 2], group=2),
            (8, 3, 3, 3),
            (1, 6, 4, 4),
            ("grouped", 4 * 8 * 9 * 3),
        ),
        (node("Conv", pads=[1] * 4, group=6), (6, 1, 3, 3), (1, 6, 4, 4), ("depthwise", 16 * 54)),
        (node("Conv"), (8, 1, 1, 1), (1, 1, 4, 4), ("dense", 16 * 8)),
        # each of 4 x 4 places of 6 channels goes to 2 x 2 of 8
        (
            node("ConvTranspose", strides=[2, 2]),
            (6, 8, 2, 2),
            (1, 6, 4, 4),
            ("transposed", 16 * 6 * 8 * 4),
        ),
        (node("MatMul"), (5, 7), (2, 3, 5), ("product", 2 * 3 * 5 * 7)),
        (node("MatMul"), (5,), (3, 5), ("product", 3 * 5)),
        (node("Gemm", transA=1, transB=1), (7, 5), (5, 3), ("product", 3 * 5 * 7)),
    ],
)
def test_multiply_adds_are_those_counted_by_hand(
    made: Any, weight: tuple[int, ...], shape: tuple[int, ...], wanted: tuple[str, int]
) -> None:
    assert count_macs(graph([made], {"w": weight}, shape)) == [Layer("it", *wanted)]


def test_layers_add_up_and_others_count_nothing() -> None:
    make = onnx.helper.make_node
    nodes = [
        make("Conv", ["x", "w"], ["a"]),
        make("Relu", ["a"], ["b"]),
        make("Conv", ["b", "v"], ["c"]),
        make("Add", ["c", "b"], ["y"]),
    ]
    model = graph(nodes, {"w": (4, 3, 1, 1), "v": (4, 4, 1, 1)}, (1, 3, 5, 5))
    assert total_macs(model) == 25 * (12 + 16)


def test_quantising_a_convolution_changes_no_count(tmp_path: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Ones(CalibrationDataReader):
        left = 2

        def get_next(self) -> dict[str, Any] | None:
            self.left -= 1
            return {"x": np.ones((1, 6, 4, 4), np.float32)} if self.left >= 0 else None

    content = graph([node("Conv", group=2)], {"w": (8, 3, 1, 1)}, (1, 6, 4, 4))
    for form in QuantFormat:
        path = tmp_path / f"{form.name}.onnx"
        quantize_static(onnx.load_from_string(content), path, Ones(), quant_format=form)
        assert total_macs(path) == total_macs(content) == 16 * 8 * 3


def test_an_int8_model_counts_as_what_it_was_made_from(tmp_path: Path) -> None:
    narrow = graph([node("Conv", group=2)], {"w": (8, 3, 1, 1)}, (1, 6, 4, 4))
    padded = graph([node("Conv")], {"w": (8, 6, 1, 1)}, (1, 6, 4, 4))
    assert total_macs(padded) == 2 * total_macs(narrow)
    assert useful_macs({"it": narrow, "it-int8": padded}) == dict.fromkeys(
        ("it", "it-int8"), 16 * 8 * 3
    )


def test_a_model_older_than_a_source_is_built_anew(tmp_path: Path) -> None:
    model, source = tmp_path / "model.onnx", tmp_path / "source.py"
    pytest.importorskip("torch", reason="models are exported by train")
    pytest.importorskip("timm", reason="backbones are those of timm")
    from benchmarks.table.build import up_to_date

    source.touch()
    assert not up_to_date(model, [source])
    model.touch()
    os.utime(source, (1000, 1000))
    os.utime(model, (2000, 2000))
    assert up_to_date(model, [source])
    assert not up_to_date(model, [source, tmp_path])  # which is of now


def test_open_sizes_and_operators_that_are_not_counted_are_refused() -> None:
    with pytest.raises(ValueError, match=r"input x has the sizes .*batch.*; give it fixed ones"):
        count_macs(graph([node("MatMul")], {"w": (5, 7)}, ("batch", 5)))
    einsum = onnx.helper.make_node("Einsum", ["x", "w"], ["y"], equation="ij,jk->ik")
    with pytest.raises(ValueError, match="Einsum are not counted"):
        count_macs(graph([einsum], {"w": (5, 7)}, (3, 5)))


def test_picodet_distances_are_expectations_over_bins() -> None:
    scores = [np.zeros((1, n * n, 80), np.float32) for n in (4, 2, 1, 1)]
    bins = [np.zeros((1, n * n, 32), np.float32) for n in (4, 2, 1, 1)]
    scores[1][0, 3, 7] = 0.9
    sharp = np.full((4, 8), -50, np.float32)
    sharp[np.arange(4), (1, 0, 2, 3)] = 50  # left, top, right, bottom: 1, 0, 2, 3 cells
    bins[1][0, 3] = sharp.ravel()
    boxes, found = decode_picodet([*scores, *bins], 32)
    assert boxes[16 + 3] == pytest.approx([24 - 16, 24, 24 + 32, 24 + 48], abs=1e-3)
    assert boxes[0] == pytest.approx([4 - 28, 4 - 28, 4 + 28, 4 + 28])  # 3.5 cells of 8 pixels
    assert np.argwhere(found).tolist() == [[19, 7]]


def test_yolox_boxes_are_relative_to_their_cell() -> None:
    raw = np.zeros((1, 21, 85), np.float32)
    raw[0, 16 + 2] = [0.5, 0.25, np.log(2), 0, 0.5, *[0.25] * 80]  # stride 16, column 0, row 1
    boxes, scores = decode_yolox([raw], 32)
    assert boxes[18] == pytest.approx([8 - 16, 20 - 8, 8 + 16, 20 + 8])
    assert scores[18] == pytest.approx(0.125) and scores.sum() == pytest.approx(10)


def test_fastestdet_centres_and_sizes_are_squashed() -> None:
    raw = np.zeros((1, 85, 2, 2), np.float32)
    raw[0, :5, 1, 0] = [0.25, 0.0, np.arctanh(0.5), 0.0, 30.0]  # row 1, column 0
    raw[0, 5 + 3, 1, 0] = 0.25
    boxes, scores = decode_fastestdet([raw], 32)
    assert boxes[2] == pytest.approx([0 - 8, 24 - 16, 0 + 8, 24 + 16])
    assert np.argwhere(scores).tolist() == [[2, 3]] and scores.max() == pytest.approx(0.25)


def test_the_page_says_what_was_measured() -> None:
    results = json.loads((TABLE / "results.json").read_text(encoding="utf-8"))
    assert report(results) + "\n" == (TABLE / "results.md").read_text(encoding="utf-8")
