"""Ranges of activations: which numbers the 256 bytes of each tensor stand for."""

from __future__ import annotations

import collections
import contextlib
import io
import random
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import CalibrationDataReader
from onnxruntime.quantization.calibrate import PercentileCalibrater
from tqdm import tqdm

from rdlite.errors import ImageError
from rdlite.evaluate.dataset import DataError, ImageStore
from rdlite.image import load, resize
from train.formats import read_annotations

Images = npt.NDArray[np.uint8]

Ranges = dict[str, tuple[float, float]]
"""Least and greatest value of each tensor that its bytes stand for."""

METHODS = ("minmax", "percentile 99.999", "percentile 99.99", "entropy", "mse")
"""Ways to choose a range:

* minmax: all that was seen;
* percentile p: what p % of all values lie in;
* entropy: least Kullback-Leibler divergence of the bytes' distribution (Migacz, "8-bit inference
  with TensorRT", GTC 2017), as onnxruntime computes it;
* mse: least mean square error of rounding and clipping (arXiv 1810.05723).
"""

MEASURED = ("Conv", "Relu", "Add", "Concat")
"""Operators whose outputs have a range; others move bytes."""

BINS = 2048
_ENTROPY_BINS = 512
_AT_ONCE = 4
"""Images whose tensors are in memory together: 200 MB each."""


class _Reader(CalibrationDataReader):
    def __init__(self, images: Iterable[npt.NDArray[np.uint8]]) -> None:
        self._images: Iterator[npt.NDArray[np.uint8]] = iter(images)

    def get_next(self) -> dict[str, Any] | None:
        image = next(self._images, None)
        return None if image is None else {"image": image[None]}


class _Calibrater(PercentileCalibrater):
    """Counts the values of the tensors that will be bytes, not of all in between."""

    def select_tensors_to_calibrate(self, model: onnx.ModelProto) -> tuple[set[str], Any]:
        tensors, infos = super().select_tensors_to_calibrate(model)
        return tensors - _before_relu(model).keys(), infos


def _before_relu(proto: onnx.ModelProto) -> dict[str, str]:
    """Tensors that only a Relu reads, with its output: the bytes of both are the same."""
    readers = collections.defaultdict(list)
    for node in proto.graph.node:
        for name in node.input:
            readers[name].append(node)
    return {
        name: nodes[0].output[0]
        for name, nodes in readers.items()
        if [node.op_type for node in nodes] == ["Relu"]
    }


class Histograms:
    """How often each value of each tensor was seen, in `BINS` or more bins around zero.

    Args:
        proto: The float graph.
        images: uint8 `(N, H, W, 3)`, BGR.
    """

    def __init__(self, proto: onnx.ModelProto, images: Images) -> None:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            path = Path(folder, "float.onnx")
            onnx.save(proto, path)
            calibrater = _Calibrater(
                path, MEASURED, str(Path(folder, "augmented.onnx")), num_bins=BINS
            )
            calibrater.augment_graph()
            calibrater.create_inference_session()
            for first in tqdm(range(0, len(images), _AT_ONCE), "calibration", disable=None):
                calibrater.collect_data(_Reader(images[first : first + _AT_ONCE]))
        self._collector = calibrater.collector
        self._before_relu = _before_relu(proto)

    def ranges(self, method: str) -> Ranges:
        """Choose the range of every tensor by one of `METHODS`."""
        name, _, number = method.partition(" ")
        choose = {
            "minmax": lambda h: (h[2], h[3]),
            "percentile": lambda h: _percentile(h, float(number)),
            "entropy": self._entropy,
            "mse": _least_squares,
        }[name]
        found = self._collector.get_histogram_dict()
        ranges = {tensor: tuple(map(float, choose(h))) for tensor, h in found.items()}
        return ranges | {before: ranges[after] for before, after in self._before_relu.items()}

    def _entropy(self, histogram: Any) -> tuple[float, float]:
        counts, edges, low, high, *_ = histogram
        middles = (edges[1:] + edges[:-1]) / 2
        span = (edges[0], edges[-1])
        counts, edges = np.histogram(middles, _ENTROPY_BINS, span, weights=counts)
        coarse = (counts.astype(np.int64), edges.astype(np.float32), low, high)
        found: tuple[float, float] = self._collector.get_entropy_threshold(coarse, 128)
        return found


def _percentile(histogram: Any, percentile: float) -> tuple[float, float]:
    counts, edges, low, high, *_ = histogram
    share = np.cumsum(counts) / counts.sum()
    outside = (1 - percentile / 100) / 2
    first, last = np.searchsorted(share, (outside, 1 - outside))
    return max(low, edges[first]), min(high, edges[last + 1])


def _least_squares(histogram: Any) -> tuple[float, float]:
    counts, edges, low, high, *_ = histogram
    middles = (edges[1:] + edges[:-1]) / 2
    errors = {}
    for part in np.linspace(0.2, 1, 81):
        clipped = middles - np.clip(middles, part * low, part * high)
        step = part * (high - low) / 255
        errors[part] = float((counts * (clipped**2 + step**2 / 12)).sum())
    part = min(errors, key=lambda part: errors[part])
    return part * low, part * high


def share_ranges(proto: onnx.ModelProto, ranges: Ranges) -> Ranges:
    """Give what is concatenated one range, so that its bytes are copied and not converted.

    Args:
        proto: The float graph.
        ranges: Of every tensor.

    Returns:
        The same with the union of the ranges for the inputs and output of each Concat, and for what
        a Split made the inputs of.
    """
    makers = {name: node for node in proto.graph.node for name in node.output}
    shared = dict(ranges)
    for node in proto.graph.node:
        if node.op_type != "Concat" or node.output[0] not in ranges:
            continue
        names = {*node.input, *node.output}
        for maker in (makers.get(name) for name in node.input):
            if maker is not None and maker.op_type == "Split":
                names |= {*maker.input[:1], *maker.output}
        low, high = zip(*(shared[name] for name in names if name in shared), strict=True)
        shared |= dict.fromkeys(names, (min(low), max(high)))
    return shared


def sample_images(
    data: str | Path, folder: str | Path, size: tuple[int, int], count: int, seed: int = 0
) -> Images:
    """Draw images of a training set, as the run time feeds them to the network.

    Args:
        data: Annotations in any format; only the names of the images are used.
        folder: Folder of the images or of tar shards.
        size: Height and width of the network's input.
        count: How many; all, if there are fewer.
        seed: Decides which.

    Returns:
        uint8 `(N, H, W, 3)`, BGR.

    Raises:
        DataError: The annotations cannot be read, or fewer than two images can.
    """
    names = [image["file_name"] for image in read_annotations(data, folder)["images"]]
    random.Random(seed).shuffle(names)
    store, images, faults = ImageStore(folder), [], []
    for name in tqdm(names[:count], "images", disable=None):
        try:
            images.append(resize(load(store.read(name)), size))
        except ImageError as error:
            faults.append(f"{name}: {error}")
    if not images:
        raise DataError(f"{data}: none of {len(faults)} images drawn can be read ({faults[0]})")
    if len(images) < 2:
        raise DataError(
            f"{data}: has one image; wanted two at least, better {count}: ranges are taken from "
            "some and errors measured on others"
        )
    if faults:
        print(f"{len(faults)} of {len(faults) + len(images)} images left out: {faults[0]}")
    return np.stack(images)
