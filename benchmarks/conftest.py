"""Timing in turns with a fixed piece of work, so that numbers from different machines compare.

A benchmark uses the `measure` fixture instead of `benchmark`. Before every timed call it times a
kernel of the same kind of work (`kernels.py`), and `extra_info` gets the ratio of the two lowest
deciles. A table closes the run. Benchmarks marked `gate` are those of `baseline.json`; they count
processor time, which does not grow while others use the core.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

# For `benchmarks`, and the oracle in `tests`, which are not installed.
sys.path.append(str(Path(__file__).parents[1]))

if TYPE_CHECKING:
    from benchmarks.kernels import Work

BUDGET_S = 2.0  # of the timed calls of a benchmark
KERNEL_CALLS = 3  # timed before each of them
SHORT_S = 5e-3  # shorter calls find the caches as after a call of their own, not as the kernel left

PLANTS = {
    "model": ("rdlite.session", "Session", "run"),
    "postprocess": ("rdlite.postprocess", "postprocess"),
    "resize": ("rdlite.image", "resize"),
    "load": ("rdlite.image", "load"),
}


class _Row(NamedTuple):
    name: str
    median_ms: float
    target_ms: float | None
    ratio: float
    kernel: str
    info: dict[str, float]


_ROWS = pytest.StashKey[list[_Row]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--plant", choices=PLANTS, help="do this twice: would the gate notice?")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "gate: its ratio is compared with benchmarks/baseline.json")
    if planted := config.getoption("--plant"):
        _plant(*PLANTS[planted])


def _plant(module: str, *path: str) -> None:
    """Make a function run twice, for all who import it from now on."""
    owner = functools.reduce(getattr, path[:-1], importlib.import_module(module))
    function = getattr(owner, path[-1])

    def twice(*args: Any, **options: Any) -> Any:
        function(*args, **options)
        return function(*args, **options)

    setattr(owner, path[-1], twice)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("gate"):
            item.add_marker(pytest.mark.benchmark(timer=process_time))


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    packages = (importlib.import_module(name) for name in ("onnxruntime", "cv2", "numpy", "av"))
    machine_info["packages"] = {package.__name__: package.__version__ for package in packages}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """OpenCV's own threads away, those of its kernel too."""
    import cv2

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(threads)


@pytest.fixture(scope="session")
def kernels() -> Callable[[str], Work]:
    """The kernels by name, each made once and warm."""
    from benchmarks.kernels import KERNELS

    @functools.cache
    def get(name: str) -> Work:
        kernel = KERNELS[name]()
        for _ in range(20):
            kernel()
        return kernel

    return get


def rounds_in_turns(
    benchmark: Any, function: Work, kernel: Callable[[], float], rounds: int | None
) -> Any:
    """Let `benchmark` time a call in turns with its kernel.

    Returns:
        The call's result and the kernel's times, seconds.
    """
    from benchmarks.kernels import seconds

    times: list[float] = []
    short = False
    if rounds is None and benchmark.enabled:
        function()
        estimate = seconds(function)
        rounds, short = min(200, max(10, round(BUDGET_S / estimate))), estimate < SHORT_S

    def before_each() -> None:
        kernel()
        times.extend(kernel() for _ in range(KERNEL_CALLS))
        if short:
            function()

    return benchmark.pedantic(function, setup=before_each, rounds=rounds or 1), times


@pytest.fixture
def measure(
    benchmark: Any, kernels: Callable[[str], Work], request: pytest.FixtureRequest
) -> Callable[..., Any]:
    """Times a call like `benchmark(function)`, in turns with the kernel named.

    `each` is how many pictures or frames one call does: milliseconds and ratio are of one of them.
    `rounds` is how often it is called; None for two seconds long. `target_ms` is shown beside the
    median. `oracle` is a slower way to the same result, timed too. Further keyword arguments only
    go to `extra_info` and the closing table.
    """
    from benchmarks.kernels import low, seconds

    gate = request.node.get_closest_marker("gate") is not None
    clock = process_time if gate else perf_counter

    def run(
        function: Callable[[], Any],
        *,
        kernel: str = "convolution",
        each: int = 1,
        rounds: int | None = None,
        target_ms: float | None = None,
        oracle: Callable[[], Any] | None = None,
        **info: Any,
    ) -> Any:
        timed_kernel = functools.partial(seconds, kernels(kernel), clock)
        result, times = rounds_in_turns(benchmark, function, timed_kernel, rounds)
        benchmark.extra_info.update(info)
        if benchmark.stats is None:  # under --benchmark-disable
            return result
        stats = benchmark.stats.stats
        median_ms = stats.median * 1e3 / each
        if oracle is not None:
            info["oracle_ms"] = sorted(seconds(oracle) for _ in range(5))[2] * 1e3
            info["speedup"] = info["oracle_ms"] / median_ms
        ms, kernel_ms = low(stats.data) * 1e3 / each, low(times) * 1e3
        benchmark.extra_info |= info | {
            "gate": gate,
            "ms": ms,
            "kernel": kernel,
            "kernel_ms": kernel_ms,
            "ratio": ms / kernel_ms,
            "target_ms": target_ms,
        }
        row = _Row(request.node.name, median_ms, target_ms, ms / kernel_ms, kernel, info)
        request.config.stash.setdefault(_ROWS, []).append(row)
        return result

    return run


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    rows = config.stash.get(_ROWS, [])
    if not rows:
        return
    terminalreporter.section("medians, and ratios of the lowest deciles")
    width = max(len(row.name) for row in rows)
    terminalreporter.write_line(f"{'':{width}} {'ms':>9} {'target':>7} {'ratio':>7} to")
    for name, median_ms, target_ms, ratio, kernel, info in rows:
        also = ", ".join(f"{key} {value:.4g}" for key, value in info.items())
        target = "" if target_ms is None else f"{target_ms:g}"
        terminalreporter.write_line(
            f"{name:{width}} {median_ms:9.3f} {target:>7} {ratio:7.3f} {kernel}  {also}"
        )
