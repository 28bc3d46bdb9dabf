"""What is known of how weights came about: the recipe of a run, and the runs behind a mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from train.checkpoint import CHECKPOINT, MODEL, checkpoint_path, source_path

LOCAL = (
    *("data", "images", "out", "val", "val_images", "cache"),
    *("device", "workers", "threads", "save_every"),
)
"""Settings that say nothing about how the weights were made."""


def of_run(state: Mapping[str, Any]) -> dict[str, Any]:
    """Recipe and length of the run that left a checkpoint.

    Args:
        state: As `train.checkpoint.load_checkpoint`.
    """
    recipe = _used(state["config"])
    for name in {"init", "mimic"} & recipe.keys():
        recipe[name] = short(checkpoint_path(source_path(recipe[name])))
    recipe.setdefault("init", "random weights")
    return {
        "recipe": recipe,
        "steps": state["step"],
        "images_seen": state["step"] * state["config"]["batch"],
        "minutes": round(state["elapsed"] / 60),
    } | {key: state[key] for key in ("date",) if key in state}  # older releases did not note it


def of_mean(parts: Sequence[tuple[str, float, Mapping[str, Any]]]) -> dict[str, Any]:
    """What is known of the weighted mean of several networks.

    Args:
        parts: Source, share and provenance of each. A source that is a mean itself stands for its
            own parts.

    Returns:
        "recipe", the settings that all have in common, and "mean", a list that tells "source",
        "share", "recipe" (what is its own) and the rest of every part.
    """
    flat = [one for part in parts for one in _parts_of(*part)]
    recipes = [one["recipe"] for one in flat]
    common = {k: v for k, v in recipes[0].items() if all(r.get(k) == v for r in recipes)}
    for one in flat:
        one["recipe"] = {k: v for k, v in one["recipe"].items() if k not in common}
    return {"recipe": common, "mean": flat}


def short(path: Path) -> str:
    """A path without folders, except that of a run, whose files have no names of their own."""
    own = (CHECKPOINT, MODEL)
    return f"{path.parent.name}/{path.name}" if path.name in own else path.name


def _parts_of(source: str, share: float, provenance: Mapping[str, Any]) -> list[dict[str, Any]]:
    common = provenance.get("recipe", {})
    parts = provenance.get("mean", [{"source": source, "share": 1.0, **provenance}])
    return [
        {k: v for k, v in part.items() if k not in ("note", "results")}
        | {"share": share * part["share"], "recipe": common | part.get("recipe", {})}
        for part in parts
    ]


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
