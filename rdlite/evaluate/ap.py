"""COCO average precision of detectors, or of what they have found, on an annotated image set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rdlite.detector import Detector
from rdlite.errors import OptionError
from rdlite.evaluate.classnames import SharedClasses, agree, share_classes
from rdlite.evaluate.cocofile import read_coco
from rdlite.evaluate.dataset import DataError, ImageStore
from rdlite.evaluate.matches import IOUS
from rdlite.evaluate.result import CONF, MAX_DET, EvalResult
from rdlite.evaluate.saved import open_saved
from rdlite.evaluate.score import Truth, import_evaluator, keep_best, score
from rdlite.evaluate.sources import Found, Image, Model, Progress, Source


def evaluate(
    detector: Detector | str | Path,
    annotations: str | Path,
    images: str | Path | None = None,
    *,
    conf: float = CONF,
    iou: float | None = None,
    nms: str | None = None,
    max_det: int = MAX_DET,
    progress: Progress | None = None,
) -> EvalResult:
    """Measure COCO average precision with faster-coco-eval.

    Classes are matched by name (`rdlite.evaluate.classnames.match_classes`), never by category id;
    the result says which names differ. Only classes that the set annotates count, and only they
    are detected, so that others do not use up `max_det`. Annotations with "iscrowd" or "ignore"
    are neither right nor wrong to find.

    Args:
        detector: The detector, or a file of detections: JSON Lines of `rdlite detect`, or COCO
            results if its name ends in ".json".
        annotations: COCO json file.
        images: Folder of its images or of tar shards with them, or one tar; not used for a file.
        conf: Least confidence of a detection; low, because AP needs the whole curve. Like `iou` and
            `nms`, not used for a file, whose boxes are made already.
        iou: As for the detector; None keeps its own.
        nms: As for the detector; None keeps its own.
        max_det: Most detections in an image; of a file, most of a class in an image that count.
        progress: Called with (images done, images in all) after each image.

    Raises:
        ImportError: faster-coco-eval is not installed.
        DataError: The annotations or the file of detections are unusable, they share no class, or
            no image can be read.
        OptionError: As the detector; or a detector has no images.
        ResultFileError: As `rdlite.open_results`.
    """
    options = {"conf": conf, "iou": iou, "nms": nms, "max_det": max_det}
    (result,) = _evaluate([detector], annotations, images, options, progress)
    return result


def evaluate_all(
    detectors: Mapping[str, Detector | str | Path],
    annotations: str | Path,
    images: str | Path | None = None,
    *,
    conf: float = CONF,
    iou: float | None = None,
    nms: str | None = None,
    max_det: int = MAX_DET,
    progress: Progress | None = None,
) -> dict[str, EvalResult]:
    """Measure several detectors on the images and classes that all of them have.

    Args:
        detectors: Detectors, or files of detections, by the name that the results get.
        annotations: As `evaluate`. So are `images`, `conf`, `iou`, `nms`, `max_det` and `progress`.
        images: See `annotations`.
        conf: See `annotations`.
        iou: See `annotations`.
        nms: See `annotations`.
        max_det: See `annotations`.
        progress: See `annotations`; the images of all detectors count.

    Returns:
        A result by name; `per_class` has the names of the first detector in all of them.

    Raises:
        Exception: As `evaluate`.
    """
    options = {"conf": conf, "iou": iou, "nms": nms, "max_det": max_det}
    results = _evaluate(list(detectors.values()), annotations, images, options, progress)
    return dict(zip(detectors, results, strict=True))


def _evaluate(
    detectors: Sequence[Detector | str | Path],
    annotations: str | Path,
    images: str | Path | None,
    options: Mapping[str, Any],
    progress: Progress | None,
) -> list[EvalResult]:
    import_evaluator()
    content = _read(Path(annotations))
    sources = _open(detectors, content, images, options)
    classes = agree(
        [share_classes(content, one.names, annotations) for one in sources], annotations
    )
    found = _find_all(sources, content["images"], classes, progress)
    counted = [
        image for image in content["images"] if all(image["id"] in one.boxes for one in found)
    ]
    if not counted:
        raise _no_image(content["images"], found, annotations, images)
    truth = Truth(content, counted, classes[0])
    ious = IOUS if len(sources) > 1 else IOUS[:1]  # nothing is compared: the others take time
    failed = {name: reason for one in found for name, reason in one.failed.items()}
    return [
        _result(truth, one, failed | one.failed, source.options, shared, options["max_det"], ious)
        for one, source, shared in zip(found, sources, classes, strict=True)
    ]


def _read(path: Path) -> dict[str, Any]:
    if path.is_dir() or path.suffix.lower() in (".yaml", ".yml"):
        kind = "a folder" if path.is_dir() else "YAML"
        raise DataError(
            f"{path} is {kind}; give a COCO json file, or measure VOC and YOLO sets with "
            "`python -m train eval` from a checkout of the project"
        )
    return read_coco(path)


def _open(
    detectors: Iterable[Detector | str | Path],
    content: Mapping[str, Any],
    images: str | Path | None,
    options: Mapping[str, Any],
) -> list[Source]:
    store = None if images is None else ImageStore(images)
    sources: list[Source] = []
    for one in detectors:
        if isinstance(one, (str, Path)):
            sources.append(open_saved(one, content))
        elif store is None:
            raise OptionError("a detector needs the images; give their folder")
        else:
            sources.append(Model(one, store, options))
    return sources


def _find_all(
    sources: Sequence[Source],
    images: Sequence[Image],
    classes: Sequence[SharedClasses],
    progress: Progress | None,
) -> list[Found]:
    found = []
    for number, (source, shared) in enumerate(zip(sources, classes, strict=True)):
        before, total = number * len(images), len(sources) * len(images)

        def tell(done: int, _: int, before: int = before, total: int = total) -> None:
            if progress is not None:
                progress(before + done, total)

        found.append(source.find(images, shared, tell))
    return found


def _no_image(
    images: Sequence[Image],
    found: Sequence[Found],
    annotations: str | Path,
    folder: str | Path | None,
) -> DataError:
    failed = {name: reason for one in found for name, reason in one.failed.items()}
    name, reason = next(iter(failed.items()))
    where = "evaluated" if folder is None else f"read from {folder}"
    return DataError(
        f"none of the {len(images)} images of {annotations} can be {where}; "
        f"the first, {name}: {reason}"
    )


def _result(
    truth: Truth,
    found: Found,
    failed: Mapping[str, str],
    options: Mapping[str, Any],
    classes: SharedClasses,
    max_det: int,
    ious: npt.NDArray[np.float64],
) -> EvalResult:
    options = {name: options.get(name) for name in ("conf", "iou", "nms", "max_det")}
    made = options["max_det"]
    if max_det != MAX_DET:  # a file was made with a number of its own
        options["max_det"] = max_det if made is None else min(made, max_det)
    boxes = keep_best(found.boxes, truth, max_det)
    scores = score(truth, boxes, max_det, ious, options["conf"] or 0.0)
    return EvalResult(
        **scores.numbers,
        per_class=scores.per_class,
        precision50=scores.precision50,
        confusion=scores.confusion,
        matches=scores.matches,
        options=options,
        images=len(truth.images),
        failed=tuple(failed.items()),
        unknown_classes=classes.unknown,
        renamed_classes=classes.renamed,
        dropped_nonfinite=found.dropped_nonfinite,
        damage=tuple(found.damage),
        remarks=tuple(found.notes),
    )
