from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rdlite import Detector, OptionError
from rdlite.bench import bench, synthetic_image


def test_the_stages_make_up_the_whole(tiny_model: Path) -> None:
    result = bench(Detector(tiny_model), synthetic_image(), runs=20, warmup=2)
    stages = sum(result.median[s] for s in ("preprocess", "inference", "postprocess"))
    assert 0 < stages <= result.median["whole"] * 1.5
    assert all(result.median[k] <= result.p90[k] for k in result.median)
    assert result.to_dict()["width"] == 1280


def test_the_synthetic_image_is_always_the_same() -> None:
    assert np.array_equal(synthetic_image(64, 48), synthetic_image(64, 48))
    assert synthetic_image(64, 48).shape == (48, 64, 3)


def test_no_runs_are_refused(tiny_model: Path) -> None:
    with pytest.raises(OptionError, match="runs"):
        bench(Detector(tiny_model), synthetic_image(), runs=0)
