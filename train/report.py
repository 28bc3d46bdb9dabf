"""Measuring weights, and writing them as a model file with its card."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from rdlite import Detector
from rdlite.errors import OptionError
from rdlite.evaluate import EvalResult, evaluate
from rdlite.evaluate.draw import draw_precision_recall
from rdlite.session import Session
from train.card import keep_existing, model_card
from train.checkpoint import CHECKPOINT, MODEL, source_path
from train.export import export_onnx, set_provenance
from train.plots import plot_curves
from train.sets import EvalSet, Sets, open_sets
from train.trained import Trained, load_trained, random_network

RANDOM = "random"
"""Stands for the weights of a network that has learned nothing."""


def evaluate_sets(
    weights: str, sets: Sets, *, classes: str | None, nms: str, conf: float, out: str | None
) -> dict[str, EvalResult]:
    """Measure COCO AP on several sets, through an exported model and the run time users have.

    Prints a table a set; with `out`, writes `results.json` and `precision-recall.png` there.

    Args:
        weights: As `load_trained`; of a run's folder its `model.onnx`, unless the run went on.
        sets: Annotations in any format and their images.
        classes: As `load_trained`.
        nms: As for the detector.
        conf: Least confidence of a detection.
        out: Folder for the results.

    Raises:
        RdliteError: As `load_trained` and `train.sets.open_sets`, before anything is exported.
    """
    results = measure(weights, sets, classes=classes, nms=nms, conf=conf)
    for name, result in results.items():
        print(f"{name}: {result.images} images\n{result.summary()}\n")
    if out:
        Path(out).mkdir(parents=True, exist_ok=True)
        content = {name: result.to_dict() for name, result in results.items()}
        Path(out, "results.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
        draw_precision_recall(results, Path(out, "precision-recall.png"))
    return results


def measure(
    weights: str, sets: Sets, *, classes: str | None = None, nms: str, conf: float = 0.01
) -> dict[str, EvalResult]:
    """Measure COCO AP as `evaluate_sets` does, and print nothing."""
    with open_to_measure(weights, sets, classes) as (model, opened):
        return _measure(model, opened, nms=nms, conf=conf)


@contextlib.contextmanager
def open_to_measure(
    weights: str, sets: Sets, classes: str | None
) -> Iterator[tuple[Path, list[EvalSet]]]:
    """Give a model file of the weights, exported if need be, and the opened sets.

    Args:
        weights: As `evaluate_sets`. So are `sets` and `classes`.
        sets: See `weights`.
        classes: See `weights`.

    Raises:
        RdliteError: As `evaluate_sets`.
    """
    if not sets:
        raise OptionError("nothing to evaluate on; give --set ANNOTATIONS IMAGES")
    model = _exported(weights)
    trained = None if model else load_trained(weights, classes)
    names = trained.names if trained else Session(model).spec.names
    with tempfile.TemporaryDirectory() as folder:
        opened = open_sets(sets, names, Path(folder))
        if trained:
            model = Path(folder) / MODEL
            _export(trained, model, half=False)
        yield model, opened


def _exported(weights: str) -> Path | None:
    """The model file that holds these weights; None when they must be exported."""
    path = source_path(weights)
    if path.suffix == ".onnx":
        return path
    model, checkpoint = path / MODEL, path / CHECKPOINT
    if not (model.is_file() and checkpoint.is_file()):
        return None
    if model.stat().st_mtime_ns <= checkpoint.stat().st_mtime_ns:
        return None
    print(f"measuring {model}, which is newer than the run's checkpoint")
    return model


def export_with_card(
    weights: str,
    output: str,
    sets: Sets,
    *,
    classes: str | None,
    note: str,
    half: bool,
    nms: str = "hard",
    width: int | None = None,
    overwrite: bool = False,
) -> dict[str, EvalResult]:
    """Write a model file, `<name>.md` beside it (the model card), and its curves as PNG.

    Args:
        weights: As `load_trained`; or "random" for a network that has learned nothing.
        output: The .onnx file.
        sets: Annotations in any format and their images, to measure AP on.
        classes: As `load_trained`.
        note: What the card begins with.
        half: As `train.export.export_onnx`.
        nms: As for the detector.
        width: The paper's c of a random network, 72 if None; other weights have theirs.
        overwrite: Replace the file and the card if they exist.

    Returns:
        What was measured, by the name of the set.

    Raises:
        RdliteError: As `load_trained` and `train.sets.open_sets`, before anything is exported.
    """
    path = Path(output)
    if not overwrite:
        keep_existing(path)
    if width is not None and weights != RANDOM:
        raise OptionError(f"width {width} is for {RANDOM} weights; {weights} has its own")
    random = weights == RANDOM
    trained = (
        random_network(72 if width is None else width, classes)
        if random
        else load_trained(weights, classes)
    )
    provenance = trained.provenance | ({"note": note} if note else {})
    with tempfile.TemporaryDirectory() as folder:
        opened = open_sets(sets, trained.names, Path(folder))
        difference = _export(trained, path, half=half)
        print(
            f"{path}: {path.stat().st_size / 1e6:.1f} MB, "
            f"onnxruntime and PyTorch differ by at most {difference:.2g}"
        )
        results = _measure(path, opened, nms=nms, conf=0.01)
    for name, result in results.items():
        print(f"{name}: AP {100 * result.ap:.1f}, AP50 {100 * result.ap50:.1f}")
        for line in result.notes():
            print(f"  {line}")
    provenance["results"] = {
        name: {"ap": round(r.ap, 4), "ap50": round(r.ap50, 4)} for name, r in results.items()
    }
    set_provenance(path, provenance)
    curves = path.with_name(f"{path.stem}-curves.png")
    if len(trained.history) > 1:
        plot_curves(trained.history, curves)
    else:  # of the model that was here before
        curves.unlink(missing_ok=True)
    path.with_suffix(".md").write_text(
        model_card(
            path,
            provenance,
            results,
            difference=difference,
            curves=curves.name if curves.exists() else None,
            nms=nms,
        ),
        encoding="utf-8",
    )
    return results


def _export(trained: Trained, path: Path, *, half: bool) -> float:
    return export_onnx(
        trained.model,
        path,
        names=trained.names,
        category_ids=trained.category_ids,
        provenance=trained.provenance,
        half=half,
        resolution=trained.resolution,
        shapes=trained.shapes,
    )


def _measure(
    model: Path, sets: Sequence[EvalSet], *, nms: str, conf: float
) -> dict[str, EvalResult]:
    detector = Detector(model, nms=nms)
    results = {}
    for name, truth, images in sets:
        with tqdm(desc=name, unit="img", disable=None) as bar:

            def show(done: int, total: int, bar: Any = bar) -> None:
                bar.total = total
                bar.update(done - bar.n)

            results[name] = evaluate(detector, truth, images, conf=conf, progress=show)
    return results
