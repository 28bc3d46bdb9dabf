"""Would another run time pay? OpenVINO beside onnxruntime, in turns on one core.

    pip install openvino
    taskset -c 0 python -m benchmarks.openvino

rdlite runs models by onnxruntime alone; this is the measurement behind that. A second run time
would have to be 1.5 times as fast as the best model of the first.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.table.session import open_session
from rdlite import registry

ROUNDS = 70
WARM_UP = 10


def contestants(image: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Every model that comes with rdlite under both, OpenVINO in float32 and bfloat16."""
    import openvino

    core = openvino.Core()
    calls: dict[str, Callable[[], Any]] = {}
    for model in (model for model in registry.present() if model.shipped):
        session = open_session(model.path)
        calls[f"{model.name}, onnxruntime"] = partial(session.run, None, {"image": image})
        for precision in ("f32", "bf16"):
            compiled = core.compile_model(
                core.read_model(model.path),
                "CPU",
                {
                    "INFERENCE_NUM_THREADS": 1,
                    "NUM_STREAMS": 1,
                    "PERFORMANCE_HINT": "LATENCY",
                    "INFERENCE_PRECISION_HINT": precision,
                    "ENABLE_CPU_PINNING": False,
                },
            )
            infer = compiled.create_infer_request().infer
            name = f"{model.name}, OpenVINO, {precision} where it is not int8"
            calls[name] = partial(infer, {"image": image}, share_inputs=True)
    return calls


def main() -> None:
    """Print the median milliseconds of each."""
    image = np.random.default_rng(0).integers(0, 256, (1, 320, 320, 3), np.uint8)
    calls = contestants(image)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = perf_counter()
            call()
            times[name].append(1e3 * (perf_counter() - start))
    for name, series in times.items():
        print(f"{statistics.median(series[WARM_UP:]):6.2f} ms  {name}")


if __name__ == "__main__":
    main()
