"""Draw boxes and labels on an image."""

from __future__ import annotations

import colorsys

import numpy as np
import numpy.typing as npt

from rdlite.results import Detection, Detections

__all__ = ["draw"]

_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)
# Successive multiples of the golden ratio stay far apart on the colour circle.
_GOLDEN = 0.618034
_DASH = 4  # widths of the line, and as many of the gap after it


def draw(
    image: npt.NDArray[np.uint8], detections: Detections, *, in_place: bool = False
) -> npt.NDArray[np.uint8]:
    """Return an image with a box and a label "name 0.87" for every object.

    Lines and letters grow with the image. Every class has one colour, always the same.
    Characters that OpenCV's built-in font lacks appear as question marks.

    Args:
        image: uint8 `(H, W, 3)` BGR.
        detections: Objects in pixels of this image. The most confident is drawn last, on top.
        in_place: Draw on the array itself, which must be contiguous and writable, instead of on
            a copy.

    Returns:
        uint8 `(H, W, 3)` BGR: a new array, or with `in_place` the given one.
    """
    picture = image if in_place else np.array(image, order="C")
    draw_boxes(picture, detections, dashed=np.zeros(len(detections), bool))
    return picture


def draw_boxes(
    picture: npt.NDArray[np.uint8], detections: Detections, *, dashed: npt.NDArray[np.bool_]
) -> None:
    """Draw on an image as `draw` does, some boxes with dashed lines.

    Args:
        picture: uint8 `(H, W, 3)` BGR, contiguous and writable.
        detections: Objects in pixels of this image.
        dashed: bool `(n,)`, which of them.
    """
    width = line_width(picture)
    pairs = zip(detections, dashed.tolist(), strict=True)
    ascending = sorted(pairs, key=lambda pair: pair[0].confidence)
    for one, broken in ascending:
        _box(picture, one, width, dashed=broken)
    for one, _ in ascending:  # after all boxes, whose lines would strike through them
        _label(picture, one, width)


def line_width(image: npt.NDArray[np.uint8]) -> int:
    """Return the width of lines in pixels that suits an image's size, at least 1."""
    height, width = image.shape[:2]
    return max(1, round(float(height + width) * 0.0015))


def class_color(class_id: int) -> tuple[int, int, int]:
    """Return the colour of a class as blue, green, red; stable from run to run."""
    hue = (0.02 + class_id * _GOLDEN) % 1.0
    # A second brightness keeps 80 classes apart that have neighbouring hues.
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, 1.0 if class_id % 2 == 0 else 0.8)
    return round(blue * 255), round(green * 255), round(red * 255)


def _box(picture: npt.NDArray[np.uint8], one: Detection, width: int, *, dashed: bool) -> None:
    import cv2

    # Edges far outside, which OpenCV could not count up to, stay outside.
    ends = np.array(picture.shape[1::-1] * 2) + width
    x1, y1, x2, y2 = (round(value) for value in np.clip(one.xyxy, -width, ends).tolist())
    color = class_color(one.class_id)
    if not dashed:
        cv2.rectangle(picture, (x1, y1), (x2, y2), color, width)
        return
    step = _DASH * width
    for x in range(x1, x2, 2 * step):
        for y in (y1, y2):
            cv2.line(picture, (x, y), (min(x + step, x2), y), color, width)
    for y in range(y1, y2, 2 * step):
        for x in (x1, x2):
            cv2.line(picture, (x, y), (x, min(y + step, y2)), color, width)


def _label(picture: npt.NDArray[np.uint8], one: Detection, width: int) -> None:
    import cv2

    text, color = f"{one.name} {one.confidence:.2f}", class_color(one.class_id)
    corner = round(one.xyxy[0]), round(one.xyxy[1])
    font, scale, weight = cv2.FONT_HERSHEY_SIMPLEX, 0.3 + 0.12 * width, max(1, width // 2)
    (text_width, text_height), below = cv2.getTextSize(text, font, scale, weight)
    pad = max(2, width)
    box_width, box_height = text_width + 2 * pad, text_height + below + 2 * pad
    # Above the box where there is room, else inside its top edge; never outside the image.
    left = max(0, min(corner[0], picture.shape[1] - box_width))
    top = corner[1] - box_height if corner[1] >= box_height else max(0, corner[1])
    top = max(0, min(top, picture.shape[0] - box_height))
    end = (left + box_width, top + box_height)
    cv2.rectangle(picture, (left, top), end, color, cv2.FILLED)
    origin = (left + pad, top + pad + text_height)
    cv2.putText(picture, text, origin, font, scale, _contrast(color), weight, cv2.LINE_AA)


def _contrast(color: tuple[int, int, int]) -> tuple[int, int, int]:
    blue, green, red = color
    # Brightness as ITU-R BT.601 weighs it.
    return _BLACK if 0.114 * blue + 0.587 * green + 0.299 * red > 128 else _WHITE
