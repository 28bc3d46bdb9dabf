"""`python -m train fit`: train, export the model, and measure it through the shipped run time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rdlite.errors import OptionError
from rdlite.evaluate import EvalResult
from train import distributed
from train.checkpoint import CHECKPOINT, saved_settings
from train.config import TrainConfig
from train.engine import Trainer
from train.recipes import Config, field_types, make_config, merge
from train.report import MODEL, export_with_card

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
    """Export a trained run, measure it, and say what was left out."""
    config, out = trainer.config, Path(trainer.config.out)
    validation = trainer.validation
    results = export_with_card(
        str(out),
        str(out / MODEL),
        [validation] if validation else [],
        classes=None,
        note="",
        half=True,
        nms="gaussian" if config.soft_nms else "hard",
        overwrite=True,
    )
    content = {name: result.to_dict() for name, result in results.items()}
    (out / RESULTS).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if not validation:
        print("no AP: no image was held out; give --val with annotations to measure it")
    print(f'open it with rdlite.Detector("{out / MODEL}")')
    return results
