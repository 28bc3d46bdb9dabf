"""SSD photometric distortion (arXiv 1512.02325 section 2.2) as look-up tables."""

from __future__ import annotations

import cv2
import numpy as np

Distortion = tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]
"""Look-up tables uint8 (256,), (256, 3) and (256,): grey before, HSV, grey after; None: leave."""


NO_DISTORTION: Distortion = (None, None, None)


def distortion(
    rng: np.random.Generator,
    *,
    prob: float,
    brightness: float,
    contrast: tuple[float, float],
    saturation: tuple[float, float],
    hue: float,
) -> Distortion:
    """Draw a colour change: brightness, contrast, then saturation and hue, or contrast last.

    Args:
        rng: Source of randomness.
        prob: Chance of each of the four changes.
        brightness: Largest shift, in grey levels of 255.
        contrast: Range of the factor on all channels.
        saturation: Range of the factor on HSV saturation.
        hue: Largest turn of the hue, in degrees of 360.
    """
    chances = rng.random(5)
    bright, contrasty, saturate, turn = (chances[:4] < prob).tolist()
    early = bool(chances[4] < 0.5)
    shift = rng.uniform(-brightness, brightness) if bright else 0.0
    factor = rng.uniform(*contrast) if contrasty else 1.0
    vividness = rng.uniform(*saturation) if saturate else 1.0
    angle = rng.uniform(-hue, hue) if turn else 0.0
    levels = np.arange(256, dtype=np.float32)
    before = (levels + shift) * (factor if early else 1.0)
    return (
        _table(before) if bright or (contrasty and early) else None,
        _hsv_table(levels, vividness, angle) if saturate or turn else None,
        _table(levels * factor) if contrasty and not early else None,
    )


def _table(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _hsv_table(levels: np.ndarray, saturation: float, hue: float) -> np.ndarray:
    # OpenCV's 8-bit hue counts half degrees and wraps at 180.
    turned = np.rint(levels + hue / 2) % 180
    table = np.stack([turned, levels * saturation, levels], axis=1)
    return _table(table)


def apply_distortion(image: np.ndarray, distort: Distortion) -> np.ndarray:
    """Return a uint8 (h, w, 3) BGR image with other colours; the input is not written to."""
    before, hsv, after = distort
    if before is not None:
        image = cv2.LUT(image, before)
    if hsv is not None:
        turned = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_BGR2HSV), hsv[None])
        image = cv2.cvtColor(turned, cv2.COLOR_HSV2BGR)
    return image if after is None else cv2.LUT(image, after)
