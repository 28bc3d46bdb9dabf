"""Timing beside a fixed piece of work, so that numbers from different machines can be compared.

A benchmark uses the `measure` fixture instead of `benchmark`. It runs the calibration kernel, a 1x1
convolution 576 to 576 channels at 20x20 on one onnxruntime thread, just before and just after,
and stores both medians and their ratio in `extra_info`. A table closes the run.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

# For the oracle in `tests`, which is not installed.
sys.path.append(str(Path(__file__).parents[1]))

CHANNELS, SIDE = 576, 20
REPEATS = 60

_Row = tuple[str, float, float, float | None, dict[str, float]]
_ROWS = pytest.StashKey[list[_Row]]()


def median_ms(function: Callable[[], Any], repeats: int = REPEATS) -> float:
    times = []
    for _ in range(repeats):
        start = perf_counter()
        function()
        times.append(perf_counter() - start)
    return statistics.median(times) * 1e3


@pytest.fixture(scope="session")
def calibration() -> Callable[[], Any]:
    """The calibration kernel: 133 million multiply-adds, bound by arithmetic."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weight = rng.normal(size=(CHANNELS, CHANNELS, 1, 1)).astype(np.float32)
    shape = [1, CHANNELS, SIDE, SIDE]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "calibration",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(weight, "w")],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = {"x": rng.normal(size=shape).astype(np.float32)}
    median_ms(lambda: session.run(None, feed))  # warm-up
    return lambda: session.run(None, feed)


@pytest.fixture
def measure(
    benchmark: Any, calibration: Callable[[], Any], request: pytest.FixtureRequest
) -> Callable[..., Any]:
    """Times a call like `benchmark(function)`, and the calibration kernel around it.

    `target_ms` is shown beside the median. `oracle` is a slower way to the same result, timed
    too. Further keyword arguments only go to `extra_info` and the closing table.
    """

    def run(
        function: Callable[[], Any],
        *,
        target_ms: float | None = None,
        oracle: Callable[[], Any] | None = None,
        **info: Any,
    ) -> Any:
        before = median_ms(calibration)
        result = benchmark(function)
        reference = statistics.mean([before, median_ms(calibration)])
        benchmark.extra_info.update(info, calibration_ms=reference)
        if benchmark.stats is None:  # under --benchmark-disable
            return result
        median = benchmark.stats.stats.median * 1e3
        if oracle is not None:
            info["oracle_ms"] = median_ms(oracle, repeats=5)
            info["speedup"] = info["oracle_ms"] / median
        benchmark.extra_info.update(info, ratio=median / reference, target_ms=target_ms)
        row = (request.node.name, median, median / reference, target_ms, info)
        request.config.stash.setdefault(_ROWS, []).append(row)
        return result

    return run


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    rows = config.stash.get(_ROWS, [])
    if not rows:
        return
    terminalreporter.section("medians, and ratios to the calibration convolution")
    width = max(len(row[0]) for row in rows)
    terminalreporter.write_line(f"{'':{width}} {'ms':>9} {'target':>7} {'ratio':>7}")
    for name, median, ratio, target_ms, info in rows:
        also = ", ".join(f"{key} {value:.4g}" for key, value in info.items())
        target = "" if target_ms is None else f"{target_ms:g}"
        terminalreporter.write_line(
            f"{name:{width}} {median:9.3f} {target:>7} {ratio:7.3f}  {also}"
        )
