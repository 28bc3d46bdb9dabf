"""Counting, decoding and reporting in `benchmarks/table`; nothing is timed here."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.table import rows
from benchmarks.table.accuracy import VOC, accuracy, measure, measured_on
from benchmarks.table.chart import draw_accuracy
from benchmarks.table.peers import decode_fastestdet, decode_picodet, decode_yolox
from benchmarks.table.report import report
from rdlite import RdliteError, registry
from rdlite.evaluate import evaluate
from rdlite.session import Session
from tests.cocosets import SCENES, random_results, random_set, write_set

onnx = pytest.importorskip("onnx", reason="small graphs are made with onnx")

from benchmarks.table.__main__ import keep_accuracy, main, replace_rows  # noqa: E402
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


def record(key: str, ms: float, *, weights: str = "trained", **aps: float) -> dict[str, Any]:
    """A row of results.json: AP by the name of the set."""
    return {
        "key": key,
        "name": key.title(),
        "side": 320,
        "ours": key.startswith("refinedetlite"),
        "weights": weights,
        "ms": ms,
        "accuracy": {title: {"ap": ap, "ap50": 2 * ap} for title, ap in aps.items()},
    }


@pytest.mark.parametrize(
    ("names", "titles"),
    [
        (["person", "zebra", "car", "tv"], ["3 classes", "2 classes of VOC"]),
        (["person", "dog", "car", "tv"], ["3 classes of VOC"]),
        (["bear", "zebra", "fork", "tv"], ["3 classes"]),
    ],
)
def test_ap_is_averaged_over_the_classes_with_objects_and_over_those_of_voc(
    tmp_path: Path, names: list[str], titles: list[str]
) -> None:
    pytest.importorskip("faster_coco_eval", reason="AP is measured with it")
    content = random_set(1)  # nobody is of the fourth class
    for category, name in zip(content["categories"], names, strict=True):
        category["name"] = name
    (tmp_path / "set.json").write_text(json.dumps(content))
    (tmp_path / "found.json").write_text(json.dumps(random_results(content, 1)))
    result = evaluate(tmp_path / "found.json", tmp_path / "set.json")
    of_voc = [one for name, one in result.per_class.items() if name in ("person", "car")]
    wanted = [{"ap": result.ap, "ap50": result.ap50}]
    if len(titles) > 1:
        wanted += [{key: np.mean([getattr(c, key) for c in of_voc]) for key in ("ap", "ap50")}]
    found = accuracy("dev", result)
    assert list(found) == [f"20 of dev, {title}" for title in titles]
    for one, numbers in zip(found.values(), wanted, strict=True):
        assert one == pytest.approx(numbers, abs=1e-9)


def test_the_classes_of_voc_are_twenty_of_ours() -> None:
    from rdlite.session import Session

    assert len(VOC) == 20 and set(Session().spec.names) > VOC


def test_an_image_that_cannot_be_read_leaves_no_number(tmp_path: Path, tiny_model: Path) -> None:
    pytest.importorskip("faster_coco_eval", reason="AP is measured with it")
    annotations = write_set(tmp_path, SCENES)
    row = rows.Row("tiny", "Tiny", "none", 64)
    ((measured, aps),) = measure({row: tiny_model}, [(str(annotations), str(tmp_path))])
    assert measured is row and list(aps) == [f"4 of {annotations.stem}, 3 classes of VOC"]
    (tmp_path / "1.png").write_bytes(b"")
    with pytest.raises(RdliteError, match=r"Tiny, .*: 1 images were not evaluated, first 1\.png"):
        next(measure({row: tiny_model}, [(str(annotations), str(tmp_path))]))


def test_every_model_that_comes_with_rdlite_has_a_row() -> None:
    ours = {row.key: row for row in rows.OURS}
    assert set(registry.table()) <= set(ours) and len(ours) == len(rows.OURS)
    assert all(rows.has_weights(ours[name]) for name in rows.trained())
    assert ours["refinedetlite48-int8"].name == "RefineDetLite48 int8"


def test_new_times_keep_accuracy_and_the_rows_that_were_not_timed() -> None:
    earlier = {
        "cpu": "one",
        "convolutions": [1],
        "timed_again": [],
        "rows": [record("refinedetlite72", 20, dev=0.2), record("yolov3", 160, weights="random")],
    }
    new = {
        "convolutions": [2],
        "timed_again": [],
        "rows": [record("yolox_nano", 7), record("refinedetlite72", 21)],
    }
    kept = keep_accuracy(new, earlier)
    assert [list(r["accuracy"]) for r in kept["rows"]] == [[], ["dev"]]
    joined = replace_rows(kept, earlier)
    assert joined["cpu"] == "one" and joined["convolutions"] == [2]
    assert joined["timed_again"] == ["Yolox_Nano", "Refinedetlite72"]
    times = {r["key"]: (r["ms"], bool(r["accuracy"])) for r in joined["rows"]}
    assert times == {
        "refinedetlite72": (21, True),
        "yolov3": (160, False),
        "yolox_nano": (7, False),
    }
    assert keep_accuracy(new, None)["rows"] == new["rows"]


def test_the_page_stays_true_after_a_second_partial_run() -> None:
    def timed(*rows: dict[str, Any]) -> dict[str, Any]:
        return {"convolutions": [], "rows": list(rows)}

    first = timed(record("yolov3", 160)) | {"missing": ["Yolox_Nano", "Fastestdet"]}
    second = replace_rows(timed(record("yolox_nano", 7)), first)
    assert second["missing"] == ["Fastestdet"]
    third = replace_rows(timed(record("refinedetlite72", 20)), second)
    assert third["timed_again"] == ["Yolox_Nano", "Refinedetlite72"]


def test_the_page_has_time_and_ap_of_every_model_that_comes_with_rdlite() -> None:
    kept = json.loads((TABLE / "results.json").read_text(encoding="utf-8"))
    known = {row["key"]: row for row in kept["rows"]}
    for name in registry.table():
        assert known[name]["weights"] == "trained"
        results = Session(name).spec.provenance["results"]
        whole: dict[str, dict[str, float]] = {}  # of a set all classes come first, then VOC's
        for title, ap in known[name]["accuracy"].items():  # such as "127 of dev-coco, 73 classes"
            whole.setdefault(title.split(" of ")[1].split(",")[0], ap)
        assert {
            one: {key: round(value, 4) for key, value in ap.items()} for one, ap in whole.items()
        } == results


@pytest.mark.parametrize("weights", ["random", None])
def test_ap_stands_beside_no_time_of_other_weights(tmp_path: Path, weights: str | None) -> None:
    command = ["accuracy", "--dev", "dev.json", "photos", "-o", str(tmp_path)]
    if weights:
        timed = [record(name, 10, weights=weights) for name in registry.table()]
        (tmp_path / "results.json").write_text(json.dumps({"rows": timed}))
    with pytest.raises(SystemExit, match=r"no times of RefineDetLite72.*times --with-weights"):
        main(command)
    assert not (tmp_path / "results.md").exists()


def test_a_chart_needs_ap_and_the_sets_are_its_panels(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="charts are drawn with it")
    import cv2

    untested = record("yolov3", 160)
    draw_accuracy([untested], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    close = [record("refinedetlite72", 7, a=0.3), record("picodet_s_320", 7, a=0.3, b=0.31)]
    widths = []
    for records in (close[:1], close):
        draw_accuracy([*records, untested], tmp_path / "chart.png")
        widths.append(cv2.imread(str(tmp_path / "chart.png")).shape[1])  # noqa: TID251
    assert measured_on(close) == ["a", "b"] and widths[1] > 1.5 * widths[0]


def test_a_page_without_ap_and_with_some() -> None:
    results = json.loads((TABLE / "results.json").read_text(encoding="utf-8"))
    for one in results["rows"]:
        one["accuracy"] = {}
    assert "Models with weights" not in report(results)
    results["rows"][0]["accuracy"] = {"here": {"ap": 0.1234, "ap50": 0.5}}
    results["rows"][1]["accuracy"] = {"there": {"ap": 0.2, "ap50": 0.4}}
    results["timed_again"] = ["PicoDet-S"]
    page = report(results)
    assert "| 20.0, 40.0 | - |" in page and "| - | 12.3, 50.0 |" in page
    assert "In a later run of their own: PicoDet-S." in page
