"""How many pictures a second the network does with more processes, threads or a larger batch.

    python -m benchmarks.scaling [--models default int8] [--seconds 1] [--rounds 5]

Writes `scaling.json` and `scaling.png`. Every configuration has its turn in every round, so that
whatever else the machine does meets all alike; the median of the rounds counts. The files that
rdlite runs have a batch of one: larger ones are the same graph with its fixed sizes rewritten.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final, NamedTuple

import numpy as np

from rdlite import registry
from rdlite.cores import usable_cores
from rdlite.cpu import cpu_name
from rdlite.modelfile import OUTPUTS
from rdlite.session import Session, open_network

RESULT: Final = Path(__file__).with_name("scaling.json")
CHART: Final = RESULT.with_suffix(".png")
BATCHES: Final = (1, 2, 4, 8)
WARMUP: Final = 3
TOLERANCE: Final = 1e-4
"""Of raw outputs, some of which are in the tens; rounding alone makes less."""
SIZES_FROM: Final = {"Reshape": 1, "Resize": 3}
"""Number of the first input of these ONNX operators that holds sizes, not pictures."""


class Setting(NamedTuple):
    """What is varied: one of the last three at a time."""

    model: str
    processes: int = 1
    threads: int = 1
    batch: int = 1


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--models", nargs="+", default=list(registry.table()))
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn (default: 1)")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    options = parser.parse_args(argv)
    for model in options.models:
        check_batch(model)
    wanted = settings(options.models, usable_cores())
    speeds = measure(wanted, options.seconds, options.rounds)
    rows = [{**s._asdict(), "images_per_second": round(v, 2)} for s, v in speeds.items()]
    RESULT.write_text(json.dumps({"cpu": cpu_name(), "rows": rows}, indent=1) + "\n")
    for row in rows:
        print(*row.values(), sep="\t")
    draw(speeds, CHART)


def settings(models: Sequence[str], cores: int) -> list[Setting]:
    """Return what to measure: each model alone, then with more of one thing."""
    found = []
    for model in models:
        found += [Setting(model, batch=number) for number in BATCHES]
        found += [Setting(model, threads=number) for number in range(2, cores + 1)]
        found += [Setting(model, processes=number) for number in range(2, cores + 1)]
    return found


def measure(wanted: Sequence[Setting], seconds: float, rounds: int) -> dict[Setting, float]:
    """Return the pictures a second of each setting, the median of its turns."""
    with ExitStack() as stack:
        processes = max(setting.processes for setting in wanted)
        workers = [stack.enter_context(_worker()) for _ in range(processes)]
        turns: dict[Setting, list[float]] = {setting: [] for setting in wanted}
        # the first round only makes the sessions
        for number, setting in itertools.product(range(rounds + 1), wanted):
            speed = _turn(workers[: setting.processes], setting, seconds if number else 0.0)
            turns[setting] += [speed] if number else []
        return {setting: median(speeds) for setting, speeds in turns.items()}


def _turn(workers: Sequence[Connection], setting: Setting, seconds: float) -> float:
    for worker in workers:
        worker.send((setting, seconds))
    return float(sum(worker.recv() for worker in workers))


@contextmanager
def _worker() -> Iterator[Connection]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs,))
    process.start()
    theirs.close()
    yield ours
    ours.close()
    process.join()


def _serve(connection: Connection) -> None:
    """Work off the settings that come, until there are no more."""
    while True:
        try:
            setting, seconds = connection.recv()
        except EOFError:
            return
        connection.send(images_per_second(setting, seconds))


def images_per_second(setting: Setting, seconds: float) -> float:
    """Run the network of a setting for so long, in this process."""
    network = _network(setting.model, setting.threads, setting.batch)
    images = _images(Session(setting.model).spec.input_size, setting.batch)
    for _ in range(WARMUP):
        network.run(OUTPUTS, {"image": images})
    done, start = 0, perf_counter()
    while (elapsed := perf_counter() - start) < seconds or not done:
        network.run(OUTPUTS, {"image": images})
        done += setting.batch
    return done / elapsed if elapsed else 0.0


@functools.cache
def _network(model: str, threads: int, batch: int) -> Any:
    """The model opened as `rdlite.session.Session` does it."""
    path = registry.find(model)
    return open_network(with_batch(path.read_bytes(), batch), path, threads)


def _images(size_hw: tuple[int, int], batch: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (batch, *size_hw, 3), np.uint8)


def with_batch(content: bytes, batch: int) -> bytes:
    """Return a model whose input and outputs are of `batch` pictures instead of one.

    Args:
        content: An ONNX file with a batch of one, which may only be fixed in the sizes of its
            inputs and outputs, in the constants that Reshape and Resize take sizes from, and in
            constants that Concat puts beside pictures.
        batch: Pictures in one run.
    """
    import onnx

    model = onnx.load_from_string(content)
    graph = model.graph
    for tensor in (*graph.input, *graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_value = batch
    del graph.value_info[:]
    sizes = {name for node in graph.node for name in _sizes(node)}
    beside = {name for node in graph.node if node.op_type == "Concat" for name in node.input}
    for constant in graph.initializer:
        value = onnx.numpy_helper.to_array(constant)
        if constant.name in sizes and value[0] == 1:
            value = np.concatenate([[batch], value[1:]])
        elif constant.name in beside:
            value = np.repeat(value, batch, axis=0)
        constant.CopyFrom(onnx.numpy_helper.from_array(value, constant.name))
    return bytes(model.SerializeToString())


def _sizes(node: Any) -> list[str]:
    """Return the inputs of a node that hold sizes."""
    return list(node.input[SIZES_FROM[node.op_type] :]) if node.op_type in SIZES_FROM else []


def check_batch(model: str, batch: int = 2) -> None:
    """Compare the outputs of a batch with those of its pictures one by one.

    Raises:
        RuntimeError: They differ by more than `TOLERANCE`, so that `with_batch` is not for its
            graph.
    """
    if (found := difference(model, batch)) > TOLERANCE:
        raise RuntimeError(
            f"{model}: the outputs of a batch of {batch} differ by {found:.2g} from those of its "
            f"pictures one by one; wanted at most {TOLERANCE:g}. Make with_batch rewrite this graph"
        )


def difference(model: str, batch: int = 2) -> float:
    """Return how far the outputs of a batch are from those of its pictures one by one."""
    images = _images(Session(model).spec.input_size, batch)
    together = _network(model, 1, batch).run(OUTPUTS, {"image": images})
    alone = [_network(model, 1, 1).run(OUTPUTS, {"image": image[None]}) for image in images]
    singly = [np.concatenate(parts) for parts in zip(*alone, strict=True)]
    return max(float(np.abs(a - b).max()) for a, b in zip(together, singly, strict=True))


def draw(speeds: dict[Setting, float], path: Path) -> None:
    """Draw pictures a second against each thing that was varied."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(10, 3.6), sharey=True, layout="constrained")
    models = list(dict.fromkeys(setting.model for setting in speeds))
    for axis, what in zip(axes, ("processes", "threads", "batch"), strict=True):
        for model in models:
            alone = Setting(model)
            points = sorted(
                (getattr(s, what), speed)
                for s, speed in speeds.items()
                if s == alone._replace(**{what: getattr(s, what)})
            )
            axis.plot(*zip(*points, strict=True), "o-", label=model)
            for point in points:
                axis.annotate(
                    f"{point[1]:.0f}", point, (0, 7), textcoords="offset points", ha="center"
                )
        axis.set(title=what, xticks=[number for number, _ in points])
        axis.margins(x=0.12)
        axis.grid(alpha=0.3)
    axes[0].set_ylim(0, 1.15 * max(speeds.values()))
    axes[0].set_ylabel("pictures a second, network alone")
    axes[0].legend(loc="upper left")
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
