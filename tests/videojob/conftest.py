"""A long clip, and what an undisturbed run makes of it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.media import Sound, clip
from tests.videojobs import FRAMES, content, job, run


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """800 numbered frames at uneven times, a keyframe every 50, and sound."""
    ticks = [0, *np.cumsum(np.random.default_rng(5).integers(1, 80, FRAMES - 1)).tolist()]
    return clip(
        tmp_path_factory.mktemp("source") / "long.mkv", FRAMES, gop_size=50, ticks=ticks,
        time_base=Fraction(1, 1000), sounds=[Sound("flac", 48000, seconds=30.0)],
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The outputs for `source` of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    run(job(source, folder))
    return content(folder)
