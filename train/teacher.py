"""The teacher: another detector as an ONNX file, run on training batches of any resolution.

Its feature maps must have the strides of P1, P2 and P3 (16, 32, 64). It sees the same augmented
images as the network, so every crop is a new lesson, with or without labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rdlite.errors import ModelError, OptionError
from train.config import TrainConfig
from train.distil import Seen, objects_seen


class Lesson(NamedTuple):
    """What a teacher says about a batch, one entry a level.

    Attributes:
        features: float32 (B, C, h, w).
        scores: float32 (B, h, w), the best class probability of each cell.
        seen: Its objects, if they are asked for.
    """

    features: list[Tensor]
    scores: list[Tensor]
    seen: Seen | None = None

    def to(self, device: torch.device | str) -> Lesson:
        """The same lesson on another device."""
        features, scores, seen = (
            part and [t.to(device, non_blocking=True) for t in part] for part in self
        )
        return Lesson(features, scores, seen and Seen(*seen))


@dataclass(frozen=True, slots=True)
class TeacherSettings:
    """Which tensors of which file are imitated.

    Attributes:
        path: The ONNX file; one input, (B, 3, R, R).
        features: Tensor names, strides 16, 32, 64.
        scores: Names of class probabilities, (B, h * w, classes) or (B, classes, h, w).
        color: Order of its input channels, "bgr" or "rgb".
        mean: Subtracted from the channels, in that order.
        std: Divides what is left.
        box_scores: Names of class probabilities, (B, n, classes), of every level that has boxes.
        boxes: Names of the distributions of their distances, see `train.distil.objects_seen`.
    """

    path: str
    features: tuple[str, ...]
    scores: tuple[str, ...]
    color: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    box_scores: tuple[str, ...] = ()
    boxes: tuple[str, ...] = ()

    @property
    def tensors(self) -> list[str]:
        """All names, each once."""
        names = (*self.features, *self.scores, *self.box_scores, *self.boxes)
        return list(dict.fromkeys(names))

    @classmethod
    def from_config(cls, config: TrainConfig) -> TeacherSettings:
        """Read the options `mimic*` and `distil*`.

        Raises:
            OptionError: There are not as many score as feature or box tensors, or the numbers are
                not three.
        """
        features, scores = _names(config.mimic_features), _names(config.mimic_scores)
        if not features or len(features) != len(scores):
            raise OptionError(
                f"mimic needs as many score as feature tensors, got {len(features)} in "
                f"mimic_features and {len(scores)} in mimic_scores; name them level by level, "
                "separated by commas"
            )
        mean, std = (_triple(n, getattr(config, n)) for n in ("mimic_mean", "mimic_std"))
        if min(std) <= 0:
            raise OptionError(f"mimic_std must be above 0, got {config.mimic_std!r}")
        box_scores, boxes = _names(config.distil_scores), _names(config.distil_boxes)
        if config.distil and (not boxes or len(boxes) != len(box_scores)):
            raise OptionError(
                f"distil needs as many score as box tensors, got {len(box_scores)} in "
                f"distil_scores and {len(boxes)} in distil_boxes; name them level by level"
            )
        if not config.distil:
            box_scores, boxes = (), ()
        color = config.mimic_color
        return cls(str(config.mimic), features, scores, color, mean, std, box_scores, boxes)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _triple(name: str, text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise OptionError(f"{name} must be three numbers as 0,0,0, got {text!r}") from error
    if len(values) != 3:
        raise OptionError(f"{name} must be three numbers as 0,0,0, got {text!r}")
    return values


class Teacher:
    """An ONNX detector, run on training batches of any resolution.

    Args:
        settings: File, tensors and input scaling.
        sides: Resolutions that it will be run at; each is tried.
        device: "cuda" asks onnxruntime for its CUDA provider where that is installed.

    Attributes:
        channels: Channels of each feature tensor.
        classes: How many its boxes have; 0 if they are not asked for.

    Raises:
        ModelError: The file cannot be read, lacks a named tensor, or cannot be run at one of the
            sides on several images.
    """

    def __init__(
        self, settings: TeacherSettings, *, sides: Sequence[int], device: torch.device
    ) -> None:
        import onnx

        path = Path(settings.path)
        if not path.is_file():
            raise ModelError(f"mimic: no file {path}; wanted an ONNX detector")
        self._settings = settings
        self._device = device
        self._graph = onnx.load(path)
        self._native = _make_dynamic(self._graph, settings)
        self._sessions: dict[int, Any] = {}
        tried = self._try(self._native)
        self.channels = [feature.shape[1] for feature in tried.features]
        self.classes = tried.seen.scores.shape[2] if tried.seen else 0
        for side in sides:
            self._try(side)

    def __call__(self, images: Tensor) -> Lesson:
        """Run the teacher.

        Args:
            images: uint8 (B, R, R, 3) BGR, on the CPU.

        Returns:
            Its features and best scores, on the CPU.
        """
        side, settings = images.shape[1], self._settings
        if side not in self._sessions:
            self._sessions[side] = self._open(side)
        session = self._sessions[side]
        mean, std = torch.tensor(settings.mean), torch.tensor(settings.std)
        ordered = images.flip(-1) if settings.color == "rgb" else images
        scaled = ((ordered - mean) / std).permute(0, 3, 1, 2).contiguous().numpy()
        values = session.run(settings.tensors, {session.get_inputs()[0].name: scaled})
        found = dict(zip(settings.tensors, map(torch.from_numpy, values), strict=True))
        features, scores, box_scores, boxes = (
            [found[name] for name in names]
            for names in (settings.features, settings.scores, settings.box_scores, settings.boxes)
        )
        best = [self._best(s, f) for s, f in zip(scores, features, strict=True)]
        return Lesson(features, best, self._seen(box_scores, boxes, side) if boxes else None)

    def _seen(self, scores: list[Tensor], boxes: list[Tensor], side: int) -> Seen:
        try:
            return objects_seen(scores, boxes, side)
        except ValueError as error:
            raise ModelError(f"distil: {self._settings.path} has {error}") from error

    def _best(self, scores: Tensor, feature: Tensor) -> Tensor:
        """The best class probability of each cell, (B, h, w)."""
        best = scores.amax(dim=1) if scores.dim() == 4 else scores.amax(dim=2)
        if best[0].numel() != feature[0, 0].numel():
            raise ModelError(
                f"mimic: {self._settings.path} has scores of shape {tuple(scores.shape)} beside "
                f"features of shape {tuple(feature.shape)}; name tensors of the same level"
            )
        return best.reshape(len(best), *feature.shape[2:])

    def _try(self, side: int) -> Lesson:
        """Run it on noise, and see that a batch is what its images are one by one."""
        noise = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (2, side, side, 3), dtype=torch.uint8, generator=noise)
        try:
            both, second = self(images), self(images[1:])
        except (RuntimeError, ValueError) as error:  # onnxruntime's errors are RuntimeErrors
            raise ModelError(
                f"mimic: {self._settings.path} cannot be run at {side} pixels "
                f"({str(error).splitlines()[0]}); use sides that are multiples of its largest "
                "stride, such as 192, 256, 320"
            ) from error
        pairs = [
            [*lesson.features, *lesson.scores, *(lesson.seen or ())] for lesson in (both, second)
        ]
        for a, b in zip(*pairs, strict=True):
            if a.shape[1:] != b.shape[1:] or not torch.allclose(a[1:], b, rtol=1e-3, atol=1e-3):
                raise ModelError(
                    f"mimic: {self._settings.path} gives other results for an image in a batch "
                    "than alone; its graph holds a fixed batch that cannot be freed"
                )
        scores = [*both.scores, *([both.seen.scores] if both.seen else [])]
        if not all(((0 <= score) & (score <= 1)).all() for score in scores):
            names = dict.fromkeys(self._settings.scores + self._settings.box_scores)
            raise ModelError(
                f"mimic: {', '.join(names)} of {self._settings.path} are no "
                "probabilities; name the tensors after the sigmoid or softmax"
            )
        return both

    def _open(self, side: int) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        available = onnxruntime.get_available_providers()
        wanted = ["CUDAExecutionProvider"] if self._device.type == "cuda" else []
        providers = [p for p in wanted if p in available] + ["CPUExecutionProvider"]
        content = _at_side(self._graph, side, self._native).SerializeToString()
        return onnxruntime.InferenceSession(content, options, providers=providers)


def _make_dynamic(graph: Any, settings: TeacherSettings) -> int:
    """Free batch and size of a loaded model's input and name the wanted outputs, in place.

    Returns:
        The side that the model was written for.
    """
    import onnx

    known = {name for node in graph.graph.node for name in node.output}
    missing = [name for name in settings.tensors if name not in known]
    if missing:
        raise ModelError(
            f"mimic: {settings.path} has no tensor {missing[0]!r}; it has "
            f"{', '.join(sorted(o.name for o in graph.graph.output))} as outputs, and "
            f"{len(known)} inner ones"
        )
    initial = {value.name for value in graph.graph.initializer}
    inputs = [value for value in graph.graph.input if value.name not in initial]
    shape = [d.dim_value for d in inputs[0].type.tensor_type.shape.dim]
    if len(inputs) != 1 or len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3]:
        raise ModelError(f"mimic: {settings.path} must have one input (B, 3, R, R)")
    del graph.graph.input[:], graph.graph.output[:], graph.graph.value_info[:]
    image = onnx.helper.make_tensor_value_info(inputs[0].name, 1, ["batch", 3, "side", "side"])
    graph.graph.input.append(image)
    for name in settings.tensors:
        graph.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, None))
    return shape[2] or 320


def _at_side(graph: Any, side: int, native: int) -> Any:
    """A copy whose fixed reshapes fit another side and any batch.

    A channel shuffle is written as reshapes to constants such as [1, 2, 48, 40, 40]: the first
    entry becomes 0 (as in the input), the last two follow the side.
    """
    import onnx
    from onnx import numpy_helper

    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    shapes = {node.input[1] for node in copy.graph.node if node.op_type == "Reshape"}
    for tensor in copy.graph.initializer:
        if tensor.name in shapes:
            value = numpy_helper.to_array(tensor)
            tensor.CopyFrom(
                numpy_helper.from_array(_resized(value, side, native), name=tensor.name)
            )
    return copy


def _resized(shape: np.ndarray, side: int, native: int) -> np.ndarray:
    spatial = len(shape) > 3 and shape[-1] == shape[-2] > 1
    flattened = len(shape) == 3 and shape[-1] == -1
    if shape[0] != 1 or not (spatial or flattened):
        return shape  # of a bias or the like
    shape = shape.copy()
    shape[0] = 0
    if spatial:
        shape[-2:] = shape[-2:] * side // native
    return shape
