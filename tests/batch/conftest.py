"""Images and videos, some of them bad, and what an undisturbed run makes of them."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from rdlite import Detector
from tests.batches import IMAGES, Counting, Ear, content, job, run
from tests.command import lines
from tests.media import Sound, clip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, of which one is text, and below them a clip of three parts and one that is text."""
    folder = tmp_path_factory.mktemp("source")
    random_numbers = np.random.default_rng(0)
    for number in range(IMAGES):
        image = np.full((64, 96, 3), 90, np.uint8)
        x, y = random_numbers.integers(0, (80, 48))
        image[y : y + 16, x : x + 16] = (250, 20, 20)
        cv2.imwrite(str(folder / f"{number:03}.png"), image)
    (folder / "007.jpg").write_text("this is no image")
    (folder / "videos").mkdir()
    clip(folder / "videos" / "a.mp4", 600, sounds=[Sound(seconds=24)], options={"g": "50"})
    (folder / "videos" / "b.mp4").write_text("this is no video")
    return folder


@pytest.fixture
def detector(tiny_model: Path) -> Counting:
    return Counting(Detector(tiny_model))


@pytest.fixture(scope="module")
def expected(
    source: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """What an undisturbed run makes."""
    out = tmp_path_factory.mktemp("expected") / "out"
    ear = Ear()
    totals = run(job(source, out), Counting(Detector(tiny_model)), ear)
    assert (totals.images, totals.videos, totals.frames, totals.failed) == (IMAGES, 1, 600, 2)
    assert ear.units == ear.expected == IMAGES + 1 + 600  # the bad image was worked on as well
    assert len(lines(out / "videos" / "a.jsonl")) == 1 + 600
    return content(out)


@pytest.fixture
def photos(source: Path, tmp_path: Path) -> Path:
    """A few of the images, to be changed."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("003.png", "005.png", "007.jpg", "009.png"):
        shutil.copy(source / name, folder)
    return folder
