"""`rdlite check`: is this installation sound, and which command mends what is not?"""

from __future__ import annotations

import json as jsonlib
import platform
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from rdlite.bench import synthetic_image
from rdlite.cli import FAILED, OK
from rdlite.errors import RdliteError

_LIBRARIES = ("rdlite", "numpy", "onnxruntime", "av", "tqdm")
_OPENCV = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)


@dataclass(frozen=True, slots=True)
class _Finding:
    """One thing looked at: `mend` is the command or sentence that helps where it is not `ok`."""

    what: str
    ok: bool
    detail: str
    mend: str = ""


def check(*, json: bool) -> int:
    """Look at everything that rdlite needs; see `rdlite check --help`."""
    findings = [look() for look in (_versions, _opencv, _kernels, _model, _video)]
    good = all(finding.ok for finding in findings)
    if json:
        print(jsonlib.dumps({"ok": good, "findings": [asdict(f) for f in findings]}))
    else:
        for finding in findings:
            print(f"{'ok ' if finding.ok else 'BAD'} {finding.what}: {finding.detail}")
            if not finding.ok:
                print(f"    {finding.mend}")
    return OK if good else FAILED


def _versions() -> _Finding:
    found = [f"Python {platform.python_version()}"]
    missing = []
    for name in _LIBRARIES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    mend = f"pip install {' '.join(missing)}"
    return _Finding("versions", not missing, ", ".join(found), mend)


def _opencv() -> _Finding:
    installed = [name for name in _OPENCV if _is_installed(name)]
    detail = ", ".join(f"{name} {metadata.version(name)}" for name in installed) or "none"
    return _Finding(
        "OpenCV",
        len(installed) == 1,
        detail,
        f"these overwrite each other's files; pip uninstall -y {' '.join(installed)} && "
        "pip install opencv-python",
    )


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _guarded(what: str, mend: str, work: Callable[[], str]) -> _Finding:
    try:
        return _Finding(what, True, work())
    except (RdliteError, ImportError, OSError) as error:
        return _Finding(what, False, str(error), mend)


def _kernels() -> _Finding:
    def work() -> str:
        from rdlite import _core

        boxes = np.array([[0, 0, 1, 1], [0, 0, 1, 0.9]], np.float32)
        picked, _ = _core.suppress(
            boxes,
            np.array([0.9, 0.8], np.float32),
            np.zeros(2, np.int32),
            method="hard",
            iou=0.5,
            sigma=0.5,
            conf=0.1,
            max_det=10,
        )
        if picked.tolist() != [0]:
            raise RdliteError(f"suppression kept {picked.tolist()} where it should keep [0]")
        return "compiled kernels work"

    return _guarded("kernels", "pip install --force-reinstall --no-deps rdlite", work)


def _model() -> _Finding:
    def work() -> str:
        from rdlite.detector import Detector

        found = Detector(conf=0.0)(synthetic_image())
        if not len(found) or found.dropped_nonfinite:
            raise RdliteError("the embedded model gives no usable output on this machine")
        return f"the embedded model runs, {found.speed['inference']:.0f} ms"

    return _guarded("model", "pip install --force-reinstall rdlite onnxruntime", work)


def _video() -> _Finding:
    def work() -> str:
        import av

        from rdlite.detector import Detector

        with tempfile.TemporaryDirectory() as folder:
            clip = Path(folder, "clip.mp4")
            with av.open(str(clip), "w") as container:
                stream = container.add_stream("libx264", rate=25)
                stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
                for _ in range(3):
                    frame = av.VideoFrame.from_ndarray(synthetic_image(320, 240), format="bgr24")
                    container.mux(stream.encode(frame))
                container.mux(stream.encode(None))
            av.codec.Codec("aac", "w")
            summary = Detector().annotate_video(clip, Path(folder, "out.mp4"), progress=False)
        if summary.frames != 3:
            raise RdliteError(f"a clip of 3 frames came back with {summary.frames}")
        return "a clip was written, read and annotated (libx264, aac)"

    return _guarded("video", "pip install --force-reinstall av", work)
