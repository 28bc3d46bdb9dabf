"""Weights from and to files: safetensors, training checkpoints and exported .onnx models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rdlite.errors import ModelError
from rdlite.evaluate.classnames import match_classes
from rdlite.session import Session
from train import provenance
from train.anchors import AnchorShapes
from train.checkpoint import checkpoint_path, load_checkpoint, source_path
from train.config import parse_resolution
from train.slim import narrow

ABOUT = "rdlite"
"""Key of a .safetensors file's metadata that holds, as JSON, what is known beside the tensors."""


class Weights(NamedTuple):
    """A file's content.

    Attributes:
        tensors: float32, by name.
        names: Its classes, where the file says them.
        shapes: Its anchors, where the file says them.
        category_ids: COCO category id of each class, where the file says them.
        resolution: Side of the input that it was last trained for, pixels, where the file says it.
        provenance: How it came about (`train.provenance`); empty where the file does not say.
    """

    tensors: dict[str, Tensor]
    names: tuple[str, ...] | None = None
    shapes: AnchorShapes | None = None
    category_ids: tuple[int, ...] | None = None
    resolution: int | None = None
    provenance: Mapping[str, Any] = MappingProxyType({})


class Loaded(NamedTuple):
    """What a model took from a file.

    Attributes:
        classes: Number of classes that began from a class of the file.
        new: Names of the classes that did not.
        backbone_only: Whether the file holds a backbone and nothing else.
        narrowed: How a wider network was cut to the model's width; empty when none was.
    """

    classes: int
    new: tuple[str, ...]
    backbone_only: bool
    narrowed: str = ""

    def __str__(self) -> str:
        before = f"{self.narrowed}; " if self.narrowed else ""
        if self.backbone_only:
            return f"{before}the backbone is taken from the file, all else starts at random"
        text = f"{before}{self.classes} classes begin from the file's"
        if self.new:
            text += f", {len(self.new)} are new to it ({', '.join(self.new[:8])}"
            text += ", ...)" if len(self.new) > 8 else ")"
        return text


def read_weights(source: str | Path) -> Weights:
    """Read the weights of `train.model.RefineDetLite`, or of its backbone.

    Args:
        source: A `.safetensors` file, a `.pt` checkpoint of a training run or the run's folder (its
            averaged weights are taken), a `.onnx` file that `python -m train export` wrote, or the
            name of a model that comes with rdlite, such as "default".

    Raises:
        ModelError: The file does not exist or is of none of these kinds.
    """
    path = checkpoint_path(source_path(source))
    readers = {".safetensors": _read_safetensors, ".pt": _read_checkpoint, ".onnx": _read_onnx}
    if not path.is_file():
        raise ModelError(
            f"no weights at {path}; wanted a file of kind {', '.join(readers)}, the folder of "
            "a run, or a name of `rdlite models`"
        )
    if path.suffix not in readers:
        raise ModelError(f"{path} is no weights file; wanted one of kind {', '.join(readers)}")
    found = readers[path.suffix](path)
    kept = {n: t.float() for n, t in found.tensors.items() if not n.endswith("num_batches_tracked")}
    return found._replace(tensors=kept)


def architecture_of(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The architecture options of `fit` that a detector's tensors belong to."""
    first = tensors.get("backbone.stage1.0.expand.conv.weight")
    if first is None:
        return {}  # not a detector of ours; `load_weights` says so
    return {
        "width": first.shape[0] // 4,
        "res2block": any(".branches." in name for name in tensors),
        "light_head": any(name.startswith("arm.0.skip.") for name in tensors),
    }


def load_weights(
    model: nn.Module,
    source: str | Path,
    *,
    names: Sequence[str] | None = None,
    shapes: AnchorShapes | None = None,
) -> Loaded:
    """Start a model from a file's weights.

    A class that the file knows by name (case, spaces and VOC's spellings aside) begins from that
    class's row of the class predictors. A new one is drawn with the mean and spread of the file's
    classes: what they have in common is to be an object, and what tells them apart is a scale for
    differences. (Two that began from the mean alone took 60 steps to part.)
    A file with the backbone alone fills the backbone. Of a wider network the strongest channels are
    taken (`train.slim`); the model then has to train before its running statistics hold.

    Args:
        model: A detector of the file's architecture; a `RefineDetLite` may be narrower.
        source: As `read_weights`.
        names: The model's classes; None takes the file's rows as they are.
        shapes: The model's anchors, which must be the file's; None does not look.

    Returns:
        What was taken.

    Raises:
        ModelError: The file does not fit; the first differences are named.
    """
    found = read_weights(source)
    tensors, known, theirs = found.tensors, found.names, found.shapes
    if shapes is not None and theirs is not None and not theirs.same_as(shapes):
        raise ModelError(
            f"{source} was trained with other anchors, to which its predictors belong; "
            f"give {theirs.options()}"
        )
    own = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    backbone_only = all(name.startswith("backbone.") for name in tensors)
    if backbone_only:
        own = {k: v for k, v in own.items() if k.startswith("backbone.")}
        rows: list[int | None] = []
    else:
        rows = _class_rows(tensors, known, names, own, source)
        for name in (n for n in tensors if n.startswith("odm_conf.")):
            tensors[name] = _select_classes(tensors[name], rows, _per_cell(tensors))
    tensors, narrowed = _fit_width(model, tensors, own, source)
    wrong = [
        name
        for name, value in own.items()
        if name not in tensors or tensors[name].shape != value.shape
    ]
    wrong += [name for name in tensors if name not in own]
    if wrong:
        raise ModelError(
            f"{source} does not fit this network: {len(wrong)} tensors are missing, left over or "
            f"of another shape ({', '.join(wrong[:3])}, ...); check the classes and the "
            "architecture switches"
        )
    model.load_state_dict(tensors, strict=False)
    new = [name for name, row in zip(names or (), rows, strict=False) if row is None]
    return Loaded(sum(row is not None for row in rows), tuple(new), backbone_only, narrowed)


def _fit_width(
    model: nn.Module, tensors: dict[str, Tensor], own: Mapping[str, Tensor], source: str | Path
) -> tuple[dict[str, Tensor], str]:
    """A wider network's tensors cut to the model's width, and a sentence on it; others as given."""
    theirs, ours = architecture_of(tensors), architecture_of(own)
    there, here = (architecture.pop("width", 0) for architecture in (theirs, ours))
    if there == here or theirs != ours or tensors.keys() != own.keys():
        return tensors, ""
    if there < here:
        raise ModelError(
            f"{source} has c = {there}, this network {here}: a network can begin from a wider one, "
            f"not from a narrower one; give --width {there} or less"
        )
    cut, share = narrow(model, tensors)
    return cut, f"c = {there} narrowed to {here}, {share:.0%} of the importance kept"


def _class_rows(
    tensors: dict[str, Tensor],
    known: tuple[str, ...] | None,
    names: Sequence[str] | None,
    own: dict[str, Tensor],
    source: str | Path,
) -> list[int | None]:
    """The file's class index (from 0) for each class of the model; None for a new one."""
    count, wanted = _count_classes(tensors), _count_classes(own)
    if names is None or known is None:
        if count != wanted:
            raise ModelError(
                f"{source} has {count} classes without names, the data has {wanted}; start from "
                "an .onnx or .pt file, which name their classes"
            )
        return list(range(count))
    return match_classes(names, known)


def _per_cell(tensors: Mapping[str, Tensor]) -> int:
    """How many anchors a detector has in a cell."""
    return len(tensors.get("odm_loc.0.bias", ())) // 4


def _count_classes(tensors: Mapping[str, Tensor]) -> int:
    """How many classes without the background; -1 for what is no detector."""
    return len(tensors.get("odm_conf.0.bias", ())) // max(1, _per_cell(tensors)) - 1


def _select_classes(value: Tensor, rows: Sequence[int | None], per_cell: int) -> Tensor:
    """Rows of a class predictor for other classes; a channel is anchor * (1 + classes) + class."""
    value = value.unflatten(0, (per_cell, -1))
    common, spread = value[:, 1:].mean(dim=1), value[:, 1:].std(dim=1, unbiased=False)
    if value.shape[1] == 2:  # a single class has no spread: as in `train.model.initialise`
        spread = torch.full_like(spread, 0.01)
    chosen = [value[:, 0]]
    for row in rows:
        if row is None:
            chosen.append(common + spread * torch.randn_like(common))
        else:
            chosen.append(value[:, 1 + row])
    return torch.stack(chosen, dim=1).flatten(0, 1)


def write_weights(model: nn.Module, path: str | Path) -> None:
    """Write a model's state dict as float32 safetensors, without batch counters."""
    state = {k: v for k, v in model.state_dict().items() if "num_batches_tracked" not in k}
    write_tensors(Weights(state), path)


def write_tensors(weights: Weights, path: str | Path) -> None:
    """Write weights as safetensors, and in its metadata what else is known of them."""
    from safetensors.torch import save

    about = {k: v for k, v in weights._asdict().items() if k != "tensors" and v}
    about |= {key: dict(about[key]) for key in about.keys() & {"provenance"}}
    if weights.shapes:
        about["shapes"] = weights.shapes._asdict()
    content = save(
        {name: tensor.contiguous().cpu() for name, tensor in weights.tensors.items()},
        metadata={ABOUT: json.dumps(about)} if about else None,
    )
    Path(path).write_bytes(content)  # save_file makes a file only its owner can read


def _read_safetensors(path: Path) -> Weights:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            about = json.loads((file.metadata() or {}).get(ABOUT, "{}"))
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise ModelError(f"{path} cannot be read ({error}); give a sound file") from error
    if "shapes" in about:
        sizes = about["shapes"]
        about["shapes"] = AnchorShapes(**sizes | {k: tuple(sizes[k]) for k in ("sizes", "ratios")})
    about |= {key: tuple(about[key]) for key in about.keys() & {"names", "category_ids"}}
    return Weights(tensors, **about)


def _read_checkpoint(path: Path) -> Weights:
    state = load_checkpoint(path)
    # A run of `pretrain` holds a classifier around the backbone; only the backbone is wanted.
    tensors = {k: v for k, v in state["ema"].items() if not k.startswith("classifier.")}
    config = state["config"]
    names = tuple(state["names"])
    if "anchor_sizes" not in config:
        return Weights(tensors, names)
    shapes = None
    if not config.get("head"):
        shapes = AnchorShapes.parse(config["anchor_sizes"], config["anchor_ratios"])
    side = None
    if config.get("resolution", "auto") != "auto":  # as it says where the run is of an old release
        side, _ = parse_resolution(config["resolution"])[-1]
    return Weights(
        tensors, names, shapes, tuple(state["category_ids"]), side, provenance.of_run(state)
    )


def _read_onnx(path: Path) -> Weights:
    import onnx
    from onnx import numpy_helper

    spec = Session(path).spec
    if spec.arithmetic != "fp32":
        raise ModelError(f"{path} holds {spec.arithmetic} weights; give the model it was made from")
    initializers = onnx.load(path).graph.initializer
    arrays = {i.name: numpy_helper.to_array(i) for i in initializers if "." in i.name}
    tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    shapes = None
    if architecture_of(tensors):  # other detectors have one set of anchors each
        shapes = AnchorShapes.of(torch.from_numpy(spec.anchors.copy()), spec.input_size[0])
    return Weights(
        tensors, spec.names, shapes, spec.category_ids, spec.input_size[0], spec.provenance
    )
