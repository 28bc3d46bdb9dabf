"""Trained networks, opened from the folder of a run, a weights file or a model file."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdlite.errors import OptionError
from rdlite.evaluate.cocofile import read_coco
from rdlite.registry import DEFAULT
from rdlite.session import Session
from train.anchors import DEFAULT_SHAPES, AnchorShapes
from train.build import build_model
from train.checkpoint import CHECKPOINT, checkpoint_path, load_checkpoint
from train.config import RESOLUTION, TrainConfig, parse_resolution
from train.heads import SSD, RefineDet
from train.model import RefineDetLite
from train.weights import architecture_of, load_weights, read_weights, source_path

LOCAL = (
    *("data", "images", "out", "val", "val_images", "cache"),
    *("device", "workers", "threads", "save_every"),
)
"""Settings that say nothing about how the weights were made."""


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
    state: dict[str, Any] = {"config": {}, "history": []}
    if path.suffix == ".pt":
        state = load_checkpoint(source_path(source))
    elif not path.exists():
        raise OptionError(f"there is no {path}; give the folder of a run or a weights file")
    elif classes:
        state |= _classes_of(classes)
    elif path.suffix == ".onnx":
        spec = Session(path).spec
        state |= {"names": list(spec.names), "category_ids": list(spec.category_ids)}
        recipe = spec.provenance.get("recipe", {})
        state["config"] = {key: recipe.get(key) for key in ("backbone", "head")}
        state["config"]["resolution"] = str(spec.input_size[0])
    elif path.suffix != ".safetensors":
        read_weights(path)  # says what is wanted
    else:
        raise OptionError(
            f"{path} does not name its classes; add --classes with a COCO json that does"
        )
    weights = read_weights(path)
    known = {field.name for field in dataclasses.fields(TrainConfig)}  # an older release's may go
    settings = {key: value for key, value in state["config"].items() if key in known}
    settings |= architecture_of(weights.tensors)
    config = TrainConfig(**({"data": "", "images": "", "out": ""} | settings))
    model = build_model(config, len(state["names"]))
    load_weights(model, path, names=state["names"])
    shapes = weights.shapes or config.anchor_shapes()
    return Trained(
        model.eval(),
        state["names"],
        state["category_ids"],
        _provenance(state),
        state["history"],
        RESOLUTION if config.resolution == "auto" else parse_resolution(config.resolution)[-1][0],
        shapes,
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


def _provenance(state: Mapping[str, Any]) -> dict[str, Any]:
    if "step" not in state:
        return {}
    recipe = _used(state["config"])
    for name in {"init", "mimic"} & recipe.keys():
        recipe[name] = _short(source_path(recipe[name]))
    recipe.setdefault("init", "random weights")
    return {
        "recipe": recipe,
        "steps": state["step"],
        "images_seen": state["step"] * state["config"]["batch"],
        "minutes": round(state["elapsed"] / 60),
        "date": datetime.date.today().isoformat(),
    }


def _short(path: Path) -> str:
    """A path without folders, except that of a run, whose checkpoint has no name of its own."""
    return f"{path.parent.name}/{path.name}" if path.name == CHECKPOINT else path.name


def _used(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that had a say in the weights."""
    mimic = tuple(k for k in config if k.startswith("mimic"))
    if config.get("mimic"):  # of which a RefineDetLite needs two
        ours = ("mimic", "mimic_weight")
        mimic = () if config.get("mimic_features") else tuple(k for k in mimic if k not in ours)
    length = ("epochs",) if config.get("minutes") else ()
    held_out = ("holdout",) if config.get("val") else ()
    idle = (*LOCAL, *mimic, *length, *held_out)
    return {k: v for k, v in config.items() if k not in idle and v not in (None, "")}
