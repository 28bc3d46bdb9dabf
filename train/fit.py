"""`python -m train fit`: train, export the model, and measure it through the shipped run time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rdlite.errors import OptionError, RdliteError
from rdlite.evaluate import EvalResult
from rdlite.evaluate.classnames import match_classes
from train import distributed
from train.checkpoint import CHECKPOINT, MODEL, saved_settings
from train.config import TrainConfig
from train.engine import Trainer
from train.recipes import Config, field_types, make_config, merge
from train.report import export_with_card, measure
from train.weights import architecture_of, read_weights

RESULTS = "results.json"


def run_config(
    recipes: list[str], given: Mapping[str, Any], *, kind: type[Config] = TrainConfig
) -> Config:
    """The settings of a run: those it began with, under what is said now.

    Args:
        recipes: Names or files, see `train.recipes`.
        given: Options of the command line; `out` names the folder.
        kind: Which settings the run has.

    Raises:
        OptionError: As `train.recipes.make_config`, or the folder holds a run of another kind.
    """
    settings, _ = merge(recipes, given)
    saved = saved_settings(settings["out"]) if "out" in settings else {}
    if "images" in settings and not Path(settings["out"], CHECKPOINT).exists():
        saved = {}  # told all there is to know, a run that never saved anything begins anew
    if strange := saved.keys() - field_types(kind):
        raise OptionError(
            f"{settings['out']} holds a run of another kind, with {', '.join(sorted(strange))}; "
            "give another --out"
        )
    # A choice once made stays made.
    return make_config(recipes, given, saved=saved, kind=kind)


def fit(config: TrainConfig) -> dict[str, EvalResult]:
    """Train to the end, then write `model.onnx`, its card `model.md`, and `results.json`.

    Args:
        config: Settings; a run found in `config.out` goes on.

    Returns:
        AP by the name of the set; empty when nothing was held out, and in all processes but the
        first.
    """
    trainer = Trainer(config)
    trainer.fit()
    if distributed.rank():
        return {}
    return finish(trainer)


def finish(trainer: Trainer) -> dict[str, EvalResult]:
    """Export a trained run, measure it and what it began from, and say what was left out."""
    config, out = trainer.config, Path(trainer.config.out)
    validation = trainer.validation
    nms = "gaussian" if config.soft_nms else "hard"
    results = export_with_card(
        str(out),
        str(out / MODEL),
        [validation] if validation else [],
        classes=None,
        note="",
        half=True,
        nms=nms,
        overwrite=True,
    )
    content = {name: result.to_dict() for name, result in results.items()}
    (out / RESULTS).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if validation and config.init:
        _measure_start(trainer, validation, results, nms=nms)
    if not validation:
        print("no AP: no image was held out; give --val with annotations to measure it")
    print(f'open it with rdlite.Detector("{out / MODEL}")')
    return results


def _measure_start(
    trainer: Trainer, validation: Sequence[str], results: Mapping[str, EvalResult], *, nms: str
) -> None:
    """Print the AP of what a run began from, if that is a detector of the same classes and kind."""
    config = trainer.config
    init, names = str(config.init), trainer.dataset.coco.names
    try:
        start = read_weights(init)
        built = architecture_of(start.tensors)
        if (
            start.names is None
            or None in match_classes(names, start.names)
            or not built
            or any(getattr(config, option) != value for option, value in built.items())
        ):
            return
        measured = measure(init, [validation], nms=nms)
    except RdliteError as error:  # a run may go on after that was deleted
        print(f"its start was not measured: {error}")
        return
    side = f", with an input of {start.resolution} pixels" if start.resolution else ""
    for name, before in measured.items():
        print(f"its start, {init}{side}: AP {100 * before.ap:.1f}, AP50 {100 * before.ap50:.1f}")
        if results[name].ap < before.ap:
            print(
                "the run ended below its start; where that is no chance and the start has not "
                "seen these images, train longer, with a lower --lr, or on few images with "
                "--freeze backbone"
            )
