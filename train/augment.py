"""SSD data augmentation: photometric distortion, expand, IoU-constrained crop, flip, resize.

Source: SSD, arXiv 1512.02325 section 2.2 ("Data augmentation") and 3.6 ("zoom out"), with the
numbers of its published configuration. RefineDetLite (arXiv 1911.08855) trains with the same steps.

Expand and crop only choose a window on the image (it may reach beyond the image); the window is
rendered once, straight at the network's resolution, so no enlarged canvas is ever made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from rdlite.image import resize
from train.photometric import NO_DISTORTION, Distortion, apply_distortion, distortion


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentConfig:
    """What the augmentation may do; the defaults are SSD's."""

    distort_prob: float = 0.5
    """Chance of each of the four colour changes, drawn one by one."""
    brightness: float = 32.0
    """Largest shift of all channels, in grey levels of 255."""
    contrast: tuple[float, float] = (0.5, 1.5)
    """Range of the factor on all channels."""
    saturation: tuple[float, float] = (0.5, 1.5)
    """Range of the factor on HSV saturation."""
    hue: float = 18.0
    """Largest turn of the hue, in degrees of 360."""
    expand_prob: float = 0.5
    """Chance to zoom out; it is what makes small training objects (SSD 3.6: +2-3 AP)."""
    expand_max: float = 4.0
    """Largest ratio of the canvas's sides to the image's."""
    fill_bgr: tuple[int, int, int] = (104, 117, 123)
    """Colour around an expanded image: the ImageNet mean, which the input layer maps near 0."""
    crop_min_iou: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    """Overlap that a crop must have with some object; "whole image" and "any" are also drawn."""
    crop_trials: int = 50
    """Windows drawn for one overlap before another one is chosen."""
    crop_scale: tuple[float, float] = (0.3, 1.0)
    """Range of a crop's sides relative to the image's."""
    crop_aspect: tuple[float, float] = (0.5, 2.0)
    """Range of a crop's width / height."""
    flip_prob: float = 0.5
    """Chance of a mirror image."""
    mosaic_prob: float = 0.0
    """Share of the samples that are mosaics, at sides below `mosaic_below`."""
    mosaic_below: int = 0
    """Side from which on no mosaics are made, so that training ends on whole pictures."""

    def distortion(self, rng: np.random.Generator) -> Distortion:
        """Draw the colour changes of one sample."""
        return distortion(
            rng,
            prob=self.distort_prob,
            brightness=self.brightness,
            contrast=self.contrast,
            saturation=self.saturation,
            hue=self.hue,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """The annotations of one image.

    Attributes:
        boxes: float32 (n, 4), x1 y1 x2 y2; pixels of the image, or [0, 1] after `augment`.
        labels: int64 (n,), 1..C; 0 is the background.
        ignore: bool (n,), regions that are neither positive nor negative.
        score: float32 (n,), confidence of the annotation in [0, 1].
    """

    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    score: np.ndarray

    def keep(self, mask: np.ndarray, boxes: np.ndarray) -> Targets:
        """Return the annotations in `mask`, bool (n,), with `boxes` (n, 4) as boxes."""
        kept = np.ascontiguousarray(boxes[mask], dtype=np.float32)
        return Targets(kept, self.labels[mask], self.ignore[mask], self.score[mask])


Window = tuple[int, int, int, int]
"""x1 y1 x2 y2 in whole pixels of the image; may reach beyond it."""


def augment(
    image: np.ndarray,
    targets: Targets,
    *,
    resolution: int,
    rng: np.random.Generator,
    config: AugmentConfig,
) -> tuple[np.ndarray, Targets]:
    """Make one training sample.

    Args:
        image: uint8 (h, w, 3) BGR; never written to.
        targets: Its annotations, boxes in pixels.
        resolution: Side R of the square sample.
        rng: The only source of randomness.
        config: What may be done.

    Returns:
        uint8 (R, R, 3) BGR, and the annotations with boxes in [0, 1] of the sample.
    """
    height, width = image.shape[:2]
    window = expand_window(width, height, rng, config)
    objects = targets.boxes[~targets.ignore]
    if not len(objects):
        # The image itself stands in for an object, so that a crop never shows fill alone.
        objects = np.array([[0, 0, width, height]], np.float32)
    window = crop_window(window, objects, rng, config)
    distort = config.distortion(rng)
    sample, scaled = render(
        image, targets, window, resolution=resolution, distort=distort, fill_bgr=config.fill_bgr
    )
    if rng.random() < config.flip_prob:
        sample, scaled = flip(sample, scaled)
    return sample, scaled


def mosaic(quarters: Sequence[tuple[np.ndarray, Targets]]) -> tuple[np.ndarray, Targets]:
    """Put four samples together as one: more and smaller objects at the same cost to a network.

    Source: YOLOv4, arXiv 2004.10934 §3.4. The seam is in the middle; what varies is how each
    quarter was cropped.

    Args:
        quarters: Four results of `augment` at half the side: top left, top right, bottom left,
            bottom right.

    Returns:
        uint8 (R, R, 3) BGR, and the annotations with boxes in [0, 1] of the whole.
    """
    images, targets = zip(*quarters, strict=True)
    rows = [np.concatenate(pair, axis=1) for pair in (images[:2], images[2:])]
    corners = np.array([[0, 0], [0.5, 0], [0, 0.5], [0.5, 0.5]], np.float32)
    placed = [t.boxes / 2 + np.tile(c, 2) for t, c in zip(targets, corners, strict=True)]
    return np.concatenate(rows), Targets(
        np.concatenate(placed),
        np.concatenate([t.labels for t in targets]),
        np.concatenate([t.ignore for t in targets]),
        np.concatenate([t.score for t in targets]),
    )


def plain(image: np.ndarray, targets: Targets, *, resolution: int) -> tuple[np.ndarray, Targets]:
    """Resize without augmentation; arguments and result as for `augment`."""
    height, width = image.shape[:2]
    return render(image, targets, (0, 0, width, height), resolution=resolution)


def expand_window(
    width: int, height: int, rng: np.random.Generator, config: AugmentConfig
) -> Window:
    """Place the image at a random spot of a larger canvas (SSD 3.6); returns the canvas."""
    if rng.random() >= config.expand_prob:
        return 0, 0, width, height
    ratio = rng.uniform(1.0, config.expand_max)
    wide, high = int(width * ratio), int(height * ratio)
    left, top = int(rng.uniform(0, wide - width)), int(rng.uniform(0, high - height))
    return -left, -top, wide - left, high - top


def crop_window(
    window: Window, objects: np.ndarray, rng: np.random.Generator, config: AugmentConfig
) -> Window:
    """Draw a crop of `window` that overlaps the objects as SSD 2.2 asks.

    One of "whole", "any" and the IoUs of the configuration is chosen; when no trial meets it,
    another one is chosen. A crop always holds the centre of an object.

    Args:
        window: What to crop.
        objects: float32 (n >= 1, 4) pixels x1 y1 x2 y2, without the ignore regions.
        rng: Source of randomness.
        config: Overlaps, trials, and the range of sizes and shapes.
    """
    while True:
        choice = int(rng.integers(len(config.crop_min_iou) + 2))
        if choice == 0:
            return window
        min_iou = 0.0 if choice == 1 else config.crop_min_iou[choice - 2]
        crops, shaped = _draw_crops(window, rng, config)
        found = np.flatnonzero(shaped & _overlaps(crops, objects, min_iou))
        if found.size:
            x1, y1, x2, y2 = crops[found[0]].tolist()
            return x1, y1, x2, y2


def _draw_crops(
    window: Window, rng: np.random.Generator, config: AugmentConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Draw all trials at once: int64 (t, 4) windows, and bool (t,) for an allowed aspect."""
    left, top, right, bottom = window
    scale = rng.uniform(*config.crop_scale, size=(config.crop_trials, 2))
    place = rng.random((config.crop_trials, 2))
    room = np.array([right - left, bottom - top])
    size = np.maximum((scale * room).astype(np.int64), 1)
    corner = np.array([left, top]) + (place * (room - size)).astype(np.int64)
    aspect = size[:, 0] / size[:, 1]
    low, high = config.crop_aspect
    return np.concatenate([corner, corner + size], axis=1), (aspect >= low) & (aspect <= high)


def _overlaps(crops: np.ndarray, objects: np.ndarray, min_iou: float) -> np.ndarray:
    """Say which crops hold an object's centre and have `min_iou` with some object, bool (t,)."""
    inside = np.minimum(crops[:, None, 2:], objects[:, 2:]) - np.maximum(
        crops[:, None, :2], objects[:, :2]
    )
    common = inside.clip(min=0).prod(axis=2)
    areas = (crops[:, 2:] - crops[:, :2]).prod(axis=1)[:, None]
    union = areas + (objects[:, 2:] - objects[:, :2]).prod(axis=1) - common
    meets = np.max(common / union, axis=1) >= min_iou
    return np.any(_holds_centre(crops[:, None], objects), axis=1) & meets


def _holds_centre(windows: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    return np.all((centres >= windows[..., :2]) & (centres < windows[..., 2:]), axis=-1)


def render(
    image: np.ndarray,
    targets: Targets,
    window: Window,
    *,
    resolution: int,
    distort: Distortion = NO_DISTORTION,
    fill_bgr: tuple[int, int, int] = (0, 0, 0),
) -> tuple[np.ndarray, Targets]:
    """Show a window of the image as a square, and carries the annotations along.

    Objects stay when their centre is in the window (SSD 2.2), ignore regions when any part of them
    is: what is left of one must still not become a negative. Boxes are clipped to the square.

    Args:
        image: uint8 (h, w, 3) BGR.
        targets: Boxes in pixels of the image.
        window: What to show; what lies beyond the image gets the fill colour.
        resolution: Side R of the square.
        distort: Colour change of the image, not of the fill.
        fill_bgr: Colour beyond the image.

    Returns:
        uint8 (R, R, 3) BGR, and the annotations with boxes in [0, 1].
    """
    height, width = image.shape[:2]
    spans = [
        _span(low, high, side, resolution)
        for low, high, side in ((window[0], window[2], width), (window[1], window[3], height))
    ]
    (sx1, sx2, dx1, dx2), (sy1, sy2, dy1, dy2) = spans
    canvas = np.empty((resolution, resolution, 3), np.uint8)
    canvas[:] = fill_bgr
    if sx2 > sx1 and sy2 > sy1:
        patch = resize(np.ascontiguousarray(image[sy1:sy2, sx1:sx2]), (dy2 - dy1, dx2 - dx1))
        canvas[dy1:dy2, dx1:dx2] = apply_distortion(patch, distort)
    # Boxes go where the pixels went: the patch's own scale, not the window's, because of rounding.
    scale = np.array([(s[3] - s[2]) / max(s[1] - s[0], 1) for s in spans] * 2)
    origin = np.array([s[2] - s[0] * (s[3] - s[2]) / max(s[1] - s[0], 1) for s in spans] * 2)
    boxes = ((targets.boxes * scale + origin) / resolution).clip(0, 1)
    visible = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    centred = _holds_centre(np.array(window), targets.boxes)
    return canvas, targets.keep(visible & (centred | targets.ignore), boxes)


def _span(low: int, high: int, side: int, resolution: int) -> tuple[int, int, int, int]:
    """Along one axis: the visible part of the image in pixels, and where it lands in the square."""
    start, stop = min(max(low, 0), side), max(min(high, side), 0)
    unit = resolution / (high - low)
    first = min(round((start - low) * unit), resolution - 1)
    return start, stop, first, max(round((stop - low) * unit), first + 1)


def flip(image: np.ndarray, targets: Targets) -> tuple[np.ndarray, Targets]:
    """Mirror a sample left to right; boxes in [0, 1]."""
    boxes = targets.boxes[:, [2, 1, 0, 3]]
    boxes[:, [0, 2]] = 1 - boxes[:, [0, 2]]
    mirrored = cv2.flip(image, 1)
    return mirrored, targets.keep(np.ones(len(boxes), bool), boxes)
