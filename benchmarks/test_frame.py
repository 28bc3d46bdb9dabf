"""What a frame of an annotated 720p video costs in processor time, all threads together.

With one worker per core this is what sets the frames per second of a machine.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.clips import write_street_720p
from rdlite import Detector

FRAMES = 50
STRIDES = (1, 25)  # with the second, nearly all is decoding, drawing and encoding


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_street_720p(tmp_path_factory.mktemp("video") / "street.mp4", FRAMES)


@pytest.mark.gate
@pytest.mark.parametrize("stride", STRIDES)
def test_annotate_frame(
    measure: Callable[..., Any], clip: Path, tmp_path: Path, stride: int
) -> None:
    detector, output = Detector(), tmp_path / "out.mp4"
    summary = measure(
        lambda: detector.annotate_video(
            clip, output, stride=stride, overwrite=True, progress=False
        ),
        each=FRAMES,
        rounds=6,
    )
    assert summary.frames == FRAMES
