"""Trained networks, opened from the folder of a run, a weights file or a model file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdlite.errors import OptionError
from rdlite.evaluate.cocofile import read_coco
from rdlite.registry import DEFAULT
from rdlite.session import Session
from train.anchors import DEFAULT_SHAPES, AnchorShapes
from train.build import build_model
from train.checkpoint import checkpoint_path, load_checkpoint, source_path
from train.config import RESOLUTION, TrainConfig
from train.heads import SSD, RefineDet
from train.model import RefineDetLite
from train.weights import architecture_of, load_weights, read_weights


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A network with what is known about it.

    Attributes:
        model: With its weights.
        names: Class names in the predictor's order.
        category_ids: COCO category id of each.
        provenance: Recipe and length of its training; empty when unknown.
        history: Logged steps, for the curves.
        resolution: Side of the input that it was last trained for, pixels.
        shapes: Its anchors.
    """

    model: RefineDetLite | RefineDet | SSD
    names: list[str]
    category_ids: list[int]
    provenance: dict[str, Any]
    history: list[dict[str, Any]]
    resolution: int = RESOLUTION
    shapes: AnchorShapes = DEFAULT_SHAPES


def load_trained(source: str | Path, classes: str | None = None) -> Trained:
    """Open the folder of a run, or a weights file.

    Args:
        source: Folder of `python -m train fit`, its checkpoint, a .safetensors or .onnx file of the
            default architecture, or the name of a model that comes with rdlite.
        classes: COCO json whose categories are the classes, for a .safetensors file, which does not
            name them.

    Raises:
        RdliteError: It cannot be read, does not fit, or its classes are unknown.
    """
    path = checkpoint_path(source_path(source))
    weights = read_weights(path)
    state = load_checkpoint(path) if path.suffix == ".pt" else {}
    about = {"names": weights.names, "category_ids": weights.category_ids}
    if classes and not state:
        about = _classes_of(classes)
    elif state and weights.category_ids is None:
        raise OptionError(f"{path} is a classifier of `pretrain`, not a detector; `fit` it first")
    elif weights.names is None or weights.category_ids is None:
        raise OptionError(
            f"{path} does not name its classes; add --classes with a COCO json that does"
        )
    names, category_ids = (list(about[key]) for key in ("names", "category_ids"))
    known = {field.name for field in dataclasses.fields(TrainConfig)}  # an older release's may go
    recipe = weights.provenance.get("recipe", {})
    told = state.get("config") or {key: recipe.get(key) for key in ("backbone", "head")}
    settings = {key: value for key, value in told.items() if key in known}
    settings |= architecture_of(weights.tensors)
    config = TrainConfig(**({"data": "", "images": "", "out": ""} | settings))
    model = build_model(config, len(names))
    load_weights(model, path, names=names)
    return Trained(
        model.eval(),
        names,
        category_ids,
        weights.provenance,
        state.get("history", []),
        weights.resolution or RESOLUTION,
        weights.shapes or config.anchor_shapes(),
    )


def random_network(width: int, classes: str | None = None) -> Trained:
    """A network as `fit` begins it without `init`, which takes the time of a trained one.

    Args:
        width: The paper's c.
        classes: COCO json whose categories are the classes; None takes the default model's.
    """
    spec = Session(DEFAULT).spec
    known = {"names": list(spec.names), "category_ids": list(spec.category_ids)}
    state = _classes_of(classes) if classes else known
    config = TrainConfig(data="", images="", out="", width=width)
    model = build_model(config, len(state["names"])).eval()
    note = f"Random weights, width {width}: for measuring time, finds nothing."
    return Trained(model, provenance={"note": note}, history=[], **state)


def _classes_of(annotations: str) -> dict[str, list[Any]]:
    categories = read_coco(annotations)["categories"]
    return {
        "names": [c["name"] for c in categories],
        "category_ids": [c["id"] for c in categories],
    }
