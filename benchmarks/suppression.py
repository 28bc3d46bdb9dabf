"""What each way of suppressing overlaps is worth on annotated images, and at which score.

    python -m benchmarks.suppression --dev dev.json IMAGES [--model default]

`rdlite/defaults.py` was chosen so. Prints, for each set and setting, AP and AP50 of all boxes of a
score from 0.01 on, the best F1 (mean of the classes, IoU 0.5) with the score it has that at, and F1
at the default score.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from benchmarks.table.accuracy import add_sets, evaluate_all_images
from rdlite import Detections, RdliteError, defaults
from rdlite.evaluate import EvalResult
from rdlite.evaluate.matches import CONFIDENCES
from rdlite.image import load, resize
from rdlite.postprocess import postprocess
from rdlite.session import Session


class Setting(NamedTuple):
    """A way of suppressing overlaps."""

    nms: str
    iou: float = defaults.IOU
    sigma: float = defaults.SIGMA

    def __str__(self) -> str:
        return f"{self.nms}, " + (
            f"sigma {self.sigma}" if self.nms == "gaussian" else f"IoU {self.iou}"
        )


SETTINGS: Final = (
    Setting("hard"),
    Setting("hard", iou=0.4),
    Setting("linear"),
    *(Setting("gaussian", sigma=sigma) for sigma in (0.2, 0.35, 0.5, 0.7)),
)


class WithSigma:
    """A detector with a sigma, which `rdlite.Detector` does not offer, as `evaluate` wants it.

    Args:
        session: The network.
        sigma: Width of gaussian suppression.
    """

    options: Mapping[str, Any] = {}

    def __init__(self, session: Session, sigma: float) -> None:
        self._session, self._sigma = session, sigma
        self.names = session.spec.names

    def __call__(
        self,
        source: Any,
        *,
        conf: float,
        iou: float,
        nms: str,
        max_det: int,
        classes: Sequence[str],
    ) -> Detections:
        """Detect in one image; options as `rdlite.Detector`."""
        image, spec = load(source), self._session.spec
        size = image.shape[1], image.shape[0]
        *found, dropped = postprocess(
            self._session.run(resize(image, spec.input_size)[np.newaxis]),
            spec,
            image_size=size,
            conf=conf,
            iou=iou,
            nms=nms,
            max_det=max_det,
            class_mask=np.isin(spec.names, classes).astype(np.uint8),
            sigma=self._sigma,
        )
        return Detections(
            *found,
            names=spec.names,
            category_ids=spec.category_ids,
            image_size=size,
            dropped_nonfinite=dropped,
        )


def measure(
    model: str | Path, sets: Iterable[Sequence[str]], settings: Sequence[Setting] = SETTINGS
) -> Iterator[tuple[str, Setting, EvalResult]]:
    """Yield the name of the set, the setting and its result, one after the other.

    Args:
        model: Name or path.
        sets: COCO annotations and the images of each set.
        settings: What to try.

    Raises:
        RdliteError: As `evaluate_all_images`.
    """
    session = Session(model)
    for file, images in sets:
        name = Path(file).stem
        for setting in settings:
            detector = WithSigma(session, setting.sigma)
            options = {"nms": setting.nms, "iou": setting.iou}
            label = f"{name}, {setting}"
            yield name, setting, evaluate_all_images(label, detector, file, images, **options)


def row(name: str, setting: Setting, result: EvalResult) -> str:
    """Return a row of the table, numbers in percent."""
    best, where = result.best_f1()
    usual = np.nanmean(result.f1()[:, np.searchsorted(CONFIDENCES, defaults.CONF)])
    return (
        f"| {name} | {setting} | {100 * result.ap:.1f}, {100 * result.ap50:.1f} "
        f"| {100 * best:.1f} at {where:.2f} | {100 * usual:.1f} |"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.suppression", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--model", default="default", help="name or file (default: default)")
    add_sets(parser)
    options = parser.parse_args(argv)
    print(f"| set | suppression | AP, AP50 | best F1 | F1 at {defaults.CONF} |")
    print("|---|---|---|---|---|")
    try:
        for found in measure(options.model, options.dev):
            print(row(*found), flush=True)
    except RdliteError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
