from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from tests.command import cli
from tests.conftest import street_clip
from tests.media import clip, frame_times

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, *arguments: Path, directory: Path) -> str:
    # -P: the example sees the installed rdlite, like a user's script
    command = [sys.executable, "-P", str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_run_here() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    assert all(f'"{path.name}"' in here for path in EXAMPLES.glob("*.py"))


@pytest.mark.usefixtures("default_model")
def test_detect_image_prints_and_draws_the_cyclist(street: np.ndarray, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "street.png"), street)
    printed = run("detect_image.py", Path("street.png"), Path("boxes.png"), directory=tmp_path)
    assert "person" in printed
    drawn = cv2.imdecode(np.fromfile(tmp_path / "boxes.png", np.uint8), cv2.IMREAD_COLOR)
    assert drawn.shape == street.shape and not np.array_equal(drawn, street)


@pytest.mark.usefixtures("default_model")
def test_annotate_video_keeps_every_frame(tmp_path: Path) -> None:
    with av.open(str(street_clip())) as container:
        frames = itertools.islice(container.decode(video=0), 110, 130)
        images = [frame.to_ndarray(format="bgr24") for frame in frames]
    clip(tmp_path / "street.mp4", images, size=images[0].shape[1::-1])
    printed = run("annotate_video.py", Path("street.mp4"), Path("out.mp4"), directory=tmp_path)
    assert printed.startswith("20 frames") and "'person'" in printed
    assert frame_times(tmp_path / "out.mp4") == frame_times(tmp_path / "street.mp4")


@pytest.mark.usefixtures("default_model")
def test_track_video_follows_objects_through_the_street(tmp_path: Path) -> None:
    pytest.importorskip("trackers", reason="run `pip install trackers`")
    with av.open(str(street_clip())) as container:
        frames = itertools.islice(container.decode(video=0), 106, 130)
        images = [frame.to_ndarray(format="bgr24") for frame in frames]
    clip(tmp_path / "street.mp4", images, size=images[0].shape[1::-1])
    assert cli("detect", tmp_path / "street.mp4", "-o", tmp_path, "--conf", 0.1, "--quiet") == 0
    files = [Path(name) for name in ("street.mp4", "street.jsonl", "tracked.mp4")]
    printed = run("track_video.py", *files, directory=tmp_path)
    assert 1 <= int(printed.split()[0]) <= 15
    assert len(frame_times(tmp_path / "tracked.mp4")) == 24


@pytest.mark.usefixtures("default_model")
def test_to_coco_lists_every_readable_image(street: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "a.jpg"), street)
    (tmp_path / "photos" / "b.jpg").write_bytes(b"no image")
    run("to_coco.py", Path("photos"), Path("labels.json"), directory=tmp_path)
    labels = json.loads((tmp_path / "labels.json").read_text())
    assert [image["file_name"] for image in labels["images"]] == ["a.jpg"]
    assert len(labels["categories"]) == 80
    assert any(annotation["category_id"] == 1 for annotation in labels["annotations"])


@pytest.mark.timeout(600)  # PyTorch's threads are ten times slower beside a busy core
@pytest.mark.usefixtures("default_model")
def test_finetune_teaches_two_new_classes_in_a_minute(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="training needs torch; run `pip install torch`")
    # A checkout with `train` alone: beside its own `rdlite`, without kernels, an installed one
    # would not be found.
    (tmp_path / "train").symlink_to(EXAMPLES.parent / "train")
    example = tmp_path / "examples" / "finetune.py"
    example.parent.mkdir()
    shutil.copy(EXAMPLES / "finetune.py", example)
    printed = run(str(example), Path("run"), directory=tmp_path).splitlines()
    assert "('disk', 'square')" in printed
    assert printed[-1].startswith("AP50") and float(printed[-1].split()[-1]) >= 0.9
    assert (tmp_path / "run" / "check" / "contact-sheet.png").exists()
    assert "2 are new to it (disk, square)" in "".join(printed)
