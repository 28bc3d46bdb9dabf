"""onnxruntime on one thread, and what its profile says of every node."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

TURN = 5
"""Runs in a row: the first finds another session's weights in the caches, the median ignores it."""


class Profile(NamedTuple):
    """What one run of a model takes; medians over many.

    Attributes:
        seconds: The whole network, without the profiler.
        nodes: Seconds of each (operator, node), with the profiler: it adds about a microsecond to
            each, so that their sum may be more than `seconds`.
    """

    seconds: float
    nodes: dict[tuple[str, str], float]


def open_session(model: str | Path | bytes, *, profile: bool = False, optimise: bool = True) -> Any:
    """An onnxruntime session of one thread.

    Args:
        model: An .onnx file, or its content.
        profile: Whether to note the time of every node; see `node_events`.
        optimise: False runs the graph as it is in the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    if not optimise:  # packed weights would be missing in the profile
        options.add_session_config_entry("session.disable_prepacking", "1")
    options.enable_profiling = profile
    options.profile_file_prefix = str(Path(tempfile.gettempdir()) / "rdlite-profile")
    return onnxruntime.InferenceSession(
        model if isinstance(model, bytes) else str(model),
        options,
        providers=["CPUExecutionProvider"],
    )


def random_inputs(session: Any) -> dict[str, np.ndarray]:
    """Bytes, or the same numbers as floats, for every input of a session.

    Raises:
        ValueError: An input has no fixed size.
    """
    rng = np.random.default_rng(0)
    found = {}
    for value in session.get_inputs():
        if not all(isinstance(side, int) for side in value.shape):
            raise ValueError(f"input {value.name} has the sizes {value.shape}; give it fixed ones")
        image = rng.integers(0, 256, value.shape, np.uint8)
        found[value.name] = image if value.type == "tensor(uint8)" else image.astype(np.float32)
    return found


def node_events(profile: str | Path) -> Iterator[tuple[str, dict[str, Any], float]]:
    """What a session's `end_profiling` wrote: name, properties and seconds of every node that ran.

    The names and properties (`op_name`, `input_type_shape`, `output_type_shape`) are of the nodes
    that were run, after onnxruntime's fusions. Deletes the file.
    """
    path = Path(profile)
    events = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    for event in events:
        if event.get("cat") == "Node" and "op_name" in event["args"]:
            yield event["name"], event["args"], event["dur"] / 1e6


def profile(
    model: str | Path | bytes, turns: int, *, between: Callable[[], object] = lambda: None
) -> Profile:
    """Time a model on one onnxruntime thread, with and without the profiler in turn.

    Args:
        model: An .onnx file, or its content.
        turns: How often each has its turn, of `TURN` runs.
        between: Is called after each turn.
    """
    watched, plain = open_session(model, profile=True), open_session(model)
    inputs, seconds = random_inputs(plain), []
    for _ in range(turns):
        for _ in range(TURN):
            watched.run(None, inputs)
        for _ in range(TURN):
            start = perf_counter()
            plain.run(None, inputs)
            seconds.append(perf_counter() - start)
        between()
    times = operator_times(watched.end_profiling())
    medians = {node: statistics.median(values) for node, values in times.items()}
    return Profile(statistics.median(seconds), medians)


def operator_times(profile: str | Path) -> dict[tuple[str, str], list[float]]:
    """Seconds of every run of each (operator, node) in a profile of onnxruntime; deletes it."""
    times = defaultdict(list)
    for name, args, seconds in node_events(profile):
        times[args["op_name"], name].append(seconds)
    return dict(times)
