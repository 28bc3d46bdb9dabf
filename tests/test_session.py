"""Opening and running model files: valid, damaged, dishonest, and reaching for other files."""

from __future__ import annotations

import hashlib
import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from rdlite import session as session_module
from rdlite.errors import ModelError
from rdlite.session import Session

WriteModel = Callable[..., Path]
INPUT = np.random.default_rng(3).integers(0, 256, (1, 32, 48, 3), dtype=np.uint8)


def tensor(model: Any, name: str) -> Any:
    """The initializer of a model that carries weights."""
    return next(item for item in model.graph.initializer if item.name == name)


def loaded(path: Path) -> Any:
    return onnx.load(str(path))


def test_outputs_have_the_promised_order_shapes_and_types(tiny_model: Path) -> None:
    session = Session(tiny_model)
    outputs = session.run(INPUT)
    assert [output.shape for output in outputs] == [(24, 4), (24, 2), (24, 4), (24, 6)]
    assert {output.dtype for output in outputs} == {np.dtype(np.float32)}


def test_running_twice_gives_the_same_bits(tiny_model: Path) -> None:
    session = Session(tiny_model)
    for first, second in zip(session.run(INPUT), session.run(INPUT), strict=True):
        np.testing.assert_array_equal(first, second)


def test_path_spec_and_hash_describe_the_file(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_model.parent)
    session = Session(tiny_model.name)
    assert session.path == tiny_model
    assert session.sha256 == hashlib.sha256(tiny_model.read_bytes()).hexdigest()
    assert session.spec.names[0] == "person"


def test_one_thread_adds_no_thread_to_the_process(tiny_model: Path) -> None:
    code = (
        "import os, sys; import numpy as np, onnxruntime; from rdlite.session import Session\n"
        "count = lambda: len(os.listdir('/proc/self/task'))\n"
        "before = count(); s = Session(sys.argv[1]); s.run(np.zeros((1, 32, 48, 3), np.uint8))\n"
        "print(count() - before)"
    )
    command = [sys.executable, "-c", code, str(tiny_model)]
    assert subprocess.run(command, capture_output=True, check=True).stdout.strip() == b"0"


def test_several_threads_get_the_serial_results(tiny_model: Path) -> None:
    session = Session(tiny_model)
    wanted = session.run(INPUT)[3]
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(50):
            if not np.array_equal(session.run(INPUT)[3], wanted):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_can_run_the_session(tiny_model: Path, threads: int) -> None:
    session = Session(tiny_model, threads=threads)
    wanted = session.run(INPUT)[3]
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=lambda: queue.put(session.run(INPUT)[3]))
    child.start()
    np.testing.assert_array_equal(queue.get(timeout=30), wanted)
    child.join(30)
    assert child.exitcode == 0


def test_missing_files_and_directories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone\.onnx: cannot be read \(No such file"):
        Session(tmp_path / "gone.onnx")
    with pytest.raises(ModelError, match="is a directory"):
        Session(tmp_path)


def test_a_file_over_the_size_limit_is_refused(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "MAX_BYTES", 100)
    with pytest.raises(ModelError, match="the limit is 100"):
        Session(tiny_model)


def test_an_unknown_operator_is_refused(tiny_model: Path, write_model: WriteModel) -> None:
    model = loaded(tiny_model)
    model.graph.node[0].op_type = "EvilOp"
    with pytest.raises(ModelError, match="onnxruntime cannot load it"):
        Session(write_model(model))


def test_metadata_that_does_not_fit_the_graph_is_refused(
    write_model: WriteModel,
) -> None:
    with pytest.raises(ModelError, match=r"output arm_loc must have shape \(1, 1, 4\)"):
        Session(write_model(anchors=[[0.5, 0.5, 1, 1]]))
    with pytest.raises(ModelError, match=r"output odm_conf must have shape \(1, 24, 2\)"):
        Session(write_model(names=["person"], category_ids=[1]))
    entry = {"name": "image", "dtype": "uint8", "layout": "NHWC", "color": "BGR"}
    with pytest.raises(ModelError, match=r"input image must have shape \(1, 48, 32, 3\)"):
        Session(write_model(input=entry | {"height": 48, "width": 32}))


def set_batch_to_any(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"


def set_input_to_int8(model: Any) -> None:
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT8


def rename_input(model: Any) -> None:
    model.graph.input[0].name = model.graph.node[0].input[0] = "picture"


def drop_output(model: Any) -> None:
    del model.graph.output[3]


def set_output_to_double(model: Any) -> None:
    model.graph.node.append(
        onnx.helper.make_node("Cast", ["odm_conf"], ["double"], to=onnx.TensorProto.DOUBLE)
    )
    model.graph.node.append(onnx.helper.make_node("Identity", ["double"], ["odm_double"]))
    model.graph.output[3].name = "odm_double"
    model.graph.output[3].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    for node in model.graph.node:
        for names in (node.input, node.output):
            for at, name in enumerate(names):
                names[at] = {"odm_conf": "single", "odm_double": "odm_conf"}.get(name, name)
    model.graph.output[3].name = "odm_conf"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_batch_to_any, r"input image must have shape .*got \('batch', 32, 48, 3\)"),
        (set_input_to_int8, r"input image must be tensor\(uint8\), got tensor\(int8\)"),
        (rename_input, r"inputs must be named \['image'\], got \['picture'\]"),
        (drop_output, r"outputs must be named .*got \['arm_conf', 'arm_loc', 'odm_loc'\]"),
        (set_output_to_double, r"output odm_conf must be tensor\(float\), got tensor\(double\)"),
    ],
)
def test_a_graph_of_another_form_is_refused(
    change: Callable[[Any], None], message: str, tiny_model: Path, write_model: WriteModel
) -> None:
    model = loaded(tiny_model)
    change(model)
    with pytest.raises(ModelError, match=message):
        Session(write_model(model))


def lie_about_shape(model: Any) -> None:
    """Cut arm_loc to as many rows as the brightest pixel says: unknown until it runs."""
    make = onnx.helper.make_node
    for node in model.graph.node:
        if "arm_loc" in node.output:
            node.output[0] = "whole"
    limits = [("zero", [0]), ("axis", [1])]
    for name, value in limits:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value), name))
    model.graph.node.extend(
        [
            make("ReduceMax", ["float"], ["brightest"], keepdims=0),
            make("Cast", ["brightest"], ["count"], to=onnx.TensorProto.INT64),
            make("Unsqueeze", ["count", "zero"], ["end"]),
            make("Slice", ["whole", "zero", "end", "axis"], ["arm_loc"]),
        ]
    )


def test_outputs_of_another_shape_than_declared_are_refused(
    tiny_model: Path, write_model: WriteModel
) -> None:
    model = loaded(tiny_model)
    lie_about_shape(model)
    session = Session(write_model(model))
    session.run(np.full_like(INPUT, 24))
    with pytest.raises(ModelError, match=r"returned shapes \(\(1, 7, 4\)"):
        session.run(np.full_like(INPUT, 7))


def test_a_wrong_image_is_a_model_error_and_no_crash(tiny_model: Path) -> None:
    session = Session(tiny_model)
    for image in (INPUT[:, :16], INPUT.astype(np.float32)):
        with pytest.raises(ModelError, match="the network failed"):
            session.run(image)
