"""AP of the models with weights, over all classes of a set and over those of PASCAL VOC."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from tqdm import tqdm

from benchmarks.table.peers import RECIPES, Peer
from benchmarks.table.rows import Row
from rdlite import Detector
from rdlite.evaluate import EvalResult, evaluate
from rdlite.evaluate.dataset import DataError

VOC: Final = frozenset(
    "person,bird,cat,cow,dog,horse,sheep,airplane,bicycle,boat,bus,car,motorcycle,train,"
    "bottle,chair,dining table,potted plant,couch,tv".split(",")
)
"""The 20 classes of PASCAL VOC, by COCO's names."""

SUPPRESSION: Final = "hard"


Accuracy = dict[str, dict[str, float]]
"""AP and AP50, 0 to 1, by what they were measured on."""


def accuracy(name: str, result: EvalResult) -> Accuracy:
    """AP over all classes of a set, and over VOC's alone where it has others as well.

    As in COCO's AP, a class without an object to be found does not count.

    Args:
        name: Of the set.
        result: A detector's on it.
    """
    every = [known for known, one in result.per_class.items() if one.objects]
    of_voc = [known for known in every if known in VOC]
    found = {}
    for names in (every, of_voc) if of_voc else (every,):
        kind = "classes of VOC" if names == of_voc else "classes"
        ap, ap50 = np.mean([result.per_class[known][:2] for known in names], axis=0)
        title = f"{result.images} of {name}, {len(names)} {kind}"
        found[title] = {"ap": float(ap), "ap50": float(ap50)}
    return found


def measure(
    models: Mapping[Row, Path], sets: Iterable[Sequence[str]]
) -> Iterator[tuple[Row, Accuracy]]:
    """Yield the AP of one model after the other on all sets.

    Args:
        models: Files of models with weights, by their rows.
        sets: COCO annotations and the images of each set.

    Raises:
        RdliteError: As `evaluate_all_images`.
    """
    sets = list(sets)
    for row, path in models.items():
        detector: Any = Peer(path) if row.key in RECIPES else Detector(path)
        found: Accuracy = {}
        for file, images in sets:
            name = Path(file).stem
            label = f"{row.name}, {name}"
            found |= accuracy(
                name, evaluate_all_images(label, detector, file, images, nms=SUPPRESSION)
            )
        yield row, found


def measured_on(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """What the rows of results.json have AP on, in order."""
    return list(dict.fromkeys(title for record in records for title in record["accuracy"]))


def add_sets(parser: argparse.ArgumentParser) -> None:
    """Give a command the option `--dev`: annotations and images of sets to measure AP on."""
    parser.add_argument(
        "--dev",
        nargs=2,
        action="append",
        required=True,
        metavar=("JSON", "IMAGES"),
        help="a COCO set and the folder of its images or their tars; can be given again",
    )


def evaluate_all_images(
    label: str, detector: Any, annotations: str | Path, images: str | Path, **options: Any
) -> EvalResult:
    """Evaluate with a progress bar, on every image or not at all.

    Args:
        label: What the bar and the error say is measured.
        detector: As `rdlite.evaluate.evaluate`. So are `annotations`, `images` and `options`.
        annotations: See `detector`.
        images: See `detector`.
        **options: See `detector`.

    Raises:
        RdliteError: As `rdlite.evaluate.evaluate`; or an image cannot be read, so that the numbers
            would be of another set.
    """
    with tqdm(desc=label, unit="img", delay=2, leave=False, disable=None) as bar:

        def tell(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        result = evaluate(detector, annotations, images, progress=tell, **options)
    if result.failed:
        file, reason = result.failed[0]
        raise DataError(
            f"{label}: {len(result.failed)} images were not evaluated, first {file}: {reason}; "
            "mend or remove them"
        )
    return result
