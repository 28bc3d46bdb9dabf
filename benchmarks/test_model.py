"""The network alone, through onnxruntime on one thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rdlite.session import Session

TARGET_RATIO = 18  # to the calibration convolution; its arithmetic alone is 16 of them


def test_session_run(measure: Callable[..., Any]) -> None:
    session = Session()
    height, width = session.spec.input_size
    image = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    outputs = measure(lambda: session.run(image), target_ratio=TARGET_RATIO)
    assert all(np.isfinite(output).all() for output in outputs)
