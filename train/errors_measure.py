"""A detector measured on a set with all that it gets wrong, and what follows from that."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from rdlite import Detector
from rdlite.evaluate import EvalResult
from rdlite.evaluate.classnames import share_classes
from rdlite.evaluate.cocofile import read_coco
from rdlite.evaluate.dataset import DataError, ImageStore
from rdlite.evaluate.matches import IOUS
from rdlite.evaluate.result import CONFUSION_CONF, MAX_DET
from rdlite.evaluate.score import Truth, keep_best, score
from rdlite.evaluate.sources import Model
from train.errors_tide import CLASS, ERRORS, KINDS, MISSED, PLACE, RIGHT, Errors, find_errors
from train.sets import EvalSet

SHOWN = CONFUSION_CONF
"""Score from which on a user sees a box: the default of `Detector`."""

FATES = ("found", f"found below {SHOWN}", "wrong place", "wrong class", "missed")
"""What may become of an object."""

BANDS = (0, 16, 32, 64, 128, 256)
"""Lower ends of the bands of size, pixels of the network's input."""


class Measured(NamedTuple):
    """A detector on a set.

    Attributes:
        name: Of the set.
        result: Its numbers.
        errors: Its errors.
        images: Entry of the COCO file for each image, by index.
        store: The images.
        ignored: Index of the image (k,) and xywh (k, 4) of the regions that do not count.
        side: Width and height of the network's input, pixels.
    """

    name: str
    result: EvalResult
    errors: Errors
    images: list[dict[str, Any]]
    store: ImageStore
    ignored: tuple[np.ndarray, np.ndarray]
    side: tuple[int, int]


class Confusion(NamedTuple):
    """Objects of one class that were found as another.

    Attributes:
        true: The object's class.
        taken_for: The boxes' class.
        boxes: How many.
        shown: How many have a score of `SHOWN` or more.
        gain: What AP50 would gain if they were right.
    """

    true: str
    taken_for: str
    boxes: int
    shown: int
    gain: float


def measure(detector: Detector, one: EvalSet, conf: float) -> Measured:
    """Look at every image of a set.

    Args:
        detector: The detector.
        one: The set.
        conf: Least confidence of a box.

    Raises:
        DataError: No image can be read.
    """
    content, store = read_coco(one.annotations), ImageStore(one.images)
    shared = share_classes(content, detector.names, one.annotations)
    options = {"conf": conf, "iou": None, "nms": None, "max_det": MAX_DET}
    source = Model(detector, store, options)
    with tqdm(desc=one.name, unit="img", disable=None, total=len(content["images"])) as bar:
        found = source.find(content["images"], shared, lambda *_: bar.update())
    images = {image["id"]: image for image in content["images"] if image["id"] in found.boxes}
    if not images:
        name, reason = next(iter(found.failed.items()))
        raise DataError(f"no image of {one.annotations} can be read; the first, {name}: {reason}")
    truth = Truth(content, list(images.values()), shared)
    boxes = keep_best(found.boxes, truth, MAX_DET)
    scores = score(truth, boxes, MAX_DET, IOUS[:1], conf)
    result = EvalResult(
        **scores.numbers,
        **{name: value for name, value in scores._asdict().items() if name != "numbers"},
        options=source.options,
        images=len(images),
        failed=tuple(found.failed.items()),
        unknown_classes=shared.unknown,
        renamed_classes=shared.renamed,
        dropped_nonfinite=found.dropped_nonfinite,
    )
    errors = find_errors(truth, boxes, list(truth.images))
    height, width = detector.spec.input_size
    in_order = [images[one] for one in truth.images]
    return Measured(one.name, result, errors, in_order, store, _ignored(truth), (width, height))


def _ignored(truth: Truth) -> tuple[np.ndarray, np.ndarray]:
    rows = [one for one in truth.coco.anns.values() if one["iscrowd"]]
    images = np.array([one["image_id"] for one in rows], int) - 1
    return images, np.array([one["bbox"] for one in rows], float).reshape(-1, 4)


def fates(errors: Errors) -> np.ndarray:
    """What has become of each object, index in `FATES`, int (m,)."""
    boxes, objects = errors.boxes, errors.objects
    kind = np.append(boxes.kind, MISSED)[objects.box]
    seen = np.append(boxes.score, 0)[objects.box] >= SHOWN
    states = [(kind == RIGHT) & seen, kind == RIGHT, kind == PLACE, kind == CLASS]
    return np.select(states, range(4), 4)


def sizes(one: Measured) -> np.ndarray:
    """Square root of each object's area in the network's input, pixels, float64 (m,)."""
    whole = np.array([(image["width"], image["height"]) for image in one.images], float)
    objects = one.errors.objects
    scale = np.array(one.side) / whole[objects.image]
    return np.sqrt((objects.xywh[:, 2:] * scale).prod(axis=1))


def fates_by_size(one: Measured) -> np.ndarray:
    """How many objects of each band of size met each fate, int (bands, fates)."""
    band = np.searchsorted(BANDS, sizes(one), side="right") - 1
    counts = np.zeros((len(BANDS), len(FATES)), int)
    np.add.at(counts, (band, fates(one.errors)), 1)
    return counts


def confusions(errors: Errors) -> list[Confusion]:
    """Pairs of classes, the one first that costs most."""
    boxes, none = errors.boxes, np.zeros(len(errors.objects.label), bool)
    wrong = np.flatnonzero(boxes.kind == CLASS)
    true = errors.objects.label[boxes.target[wrong]]
    pairs = []
    for label, other in np.unique(np.stack([true, boxes.label[wrong]]), axis=1).T:
        chosen = np.zeros(len(boxes.kind), bool)
        chosen[wrong[(true == label) & (boxes.label[wrong] == other)]] = True
        shown = int((boxes.score[chosen] >= SHOWN).sum())
        gain = errors.mean_gain(chosen, none)
        names = errors.names[label], errors.names[other]
        pairs.append(Confusion(*names, int(chosen.sum()), shown, gain))
    return sorted(pairs, key=lambda pair: -pair.gain)


def costs_of_images(errors: Errors) -> np.ndarray:
    """What AP50 would gain if all errors in an image were mended, float64 (images,)."""
    wrong, objects = errors.boxes.kind != RIGHT, errors.objects
    gains = [
        errors.mean_gain(wrong & (errors.boxes.image == k), objects.missed & (objects.image == k))
        for k in tqdm(range(len(errors.images)), desc="costs", disable=None, delay=2)
    ]
    return np.array(gains, float)


def gains(errors: Errors) -> dict[str, float]:
    """What AP50 would gain if all errors of a kind were mended, by its name; the paper's dAP."""
    return {KINDS[kind]: errors.mean_gain(*errors.of_kind(kind)) for kind in ERRORS}


def to_dict(one: Measured) -> dict[str, Any]:
    """The numbers of the page as JSON values."""
    errors, counts = one.errors, {}
    for kind in ERRORS:
        boxes, missed = errors.of_kind(kind)
        counts[KINDS[kind]] = int(boxes.sum() + missed.sum())
    bands = dict(zip(map(str, BANDS), fates_by_size(one).tolist(), strict=True))
    return one.result.to_dict() | {
        "errors": {
            name: {"count": counts[name], "ap50_gain": gain} for name, gain in gains(errors).items()
        },
        "sizes": {"fates": list(FATES), "input": list(one.side), "bands": bands},
        "confusions": [pair._asdict() for pair in confusions(errors)],
    }
