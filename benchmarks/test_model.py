"""The network alone, through onnxruntime on one thread: every model that comes with rdlite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rdlite import registry
from rdlite.session import Session

TARGET_RATIO = {"refinedetlite72": 18}  # its arithmetic alone is 16 of the convolution
KERNELS = {"fp32": "convolution", "int8": "int8 convolution"}


@pytest.mark.gate
@pytest.mark.parametrize("model", registry.table())
def test_session_run(measure: Callable[..., Any], model: str) -> None:
    session = Session(model)
    height, width = session.spec.input_size
    image = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    target = {"target_ratio": TARGET_RATIO[model]} if model in TARGET_RATIO else {}
    outputs = measure(lambda: session.run(image), kernel=KERNELS[session.spec.arithmetic], **target)
    assert all(np.isfinite(output).all() for output in outputs)
