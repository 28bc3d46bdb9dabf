"""The rewriting and counting of `benchmarks/scaling.py`; how fast anything is, is not tested."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.scaling import Setting, check_batch, draw, measure, settings


def test_one_thing_is_varied_at_a_time() -> None:
    found = settings(["a", "b"], cores=3)
    assert len(set(found)) == len(found) == 2 * (4 + 2 + 2)
    for _, *numbers in found:
        assert sum(number > 1 for number in numbers) <= 1


def test_a_batch_gives_what_its_pictures_give(tiny_model: Path) -> None:
    check_batch(str(tiny_model), batch=3)


@pytest.mark.parametrize("model", ["default", "int8"])
def test_a_batch_of_a_shipped_model_gives_what_its_pictures_give(model: str) -> None:
    check_batch(model)


def test_a_graph_whose_pictures_meet_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="the graph is edited with onnx")
    model = onnx.load(tiny_model)
    for node in model.graph.node:
        node.output[:] = ["raw" if name == "odm_conf" else name for name in node.output]
    model.graph.node.append(onnx.helper.make_node("Softmax", ["raw"], ["odm_conf"], axis=0))
    onnx.save(model, tmp_path / "mixed.onnx")
    with pytest.raises(RuntimeError, match=r"batch of 2 differ by .* one by one"):
        check_batch(str(tmp_path / "mixed.onnx"))


def test_pictures_are_counted_in_every_setting(tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    speeds = measure(settings([str(tiny_model)], cores=2), seconds=0.02, rounds=2)
    assert set(speeds) == set(settings([str(tiny_model)], cores=2))
    assert all(speed > 0 for speed in speeds.values())
    draw(speeds, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").stat().st_size > 5000


def test_the_settings_of_one_model_include_itself_alone() -> None:
    assert Setting("a") in settings(["a"], cores=1)
