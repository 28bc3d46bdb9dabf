"""Where the time of a network goes: milliseconds for each kind of operator, models side by side.

    python -m benchmarks.operators MODEL.onnx ...

Kinds are what onnxruntime runs after its own fusions: `Conv` includes the ReLU and the sum behind
it, `ReorderInput` and `ReorderOutput` change between its blocked layout and the plain one. The
profiler adds to the time of each node; the last line is the network without it, in the same run.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from benchmarks.table.session import profile
from rdlite import registry
from rdlite.errors import ModelError

TURNS = 20


def times_by_kind(model: str | Path) -> tuple[Counter[str], Counter[str], float]:
    """Profile a model on one onnxruntime thread.

    Args:
        model: An rdlite model file.

    Returns:
        Milliseconds and number of the nodes of each kind, a node's time being the median of its
        runs; and milliseconds of the whole network without the profiler.
    """
    found = profile(model, TURNS)
    milliseconds: Counter[str] = Counter()
    nodes: Counter[str] = Counter()
    for (kind, _), seconds in found.nodes.items():
        milliseconds[kind] += 1e3 * seconds
        nodes[kind] += 1
    return milliseconds, nodes, 1e3 * found.seconds


def report(models: list[str]) -> str:
    """The Markdown table of several models, kinds by falling time in the first."""
    found = [times_by_kind(registry.find(model)) for model in models]
    kinds = sorted({kind for times, *_ in found for kind in times}, key=lambda k: -found[0][0][k])
    lines = ["| operator | " + " | ".join(f"{Path(m).stem}, ms (nodes)" for m in models) + " |"]
    lines.append("|---" * (1 + len(models)) + "|")
    for kind in kinds:
        cells = [f"{times[kind]:.2f} ({nodes[kind]})" for times, nodes, _ in found]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    totals = [f"{times.total():.2f} ({nodes.total()})" for times, nodes, _ in found]
    lines.append("| all | " + " | ".join(totals) + " |")
    plain = [f"{ms:.2f}" for *_, ms in found]
    lines.append("| without the profiler | " + " | ".join(plain) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.operators", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("models", nargs="*", default=["default"], help="names or paths")
    try:
        print(report(parser.parse_args().models))
    except ModelError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
