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

from rdlite import registry
from rdlite.bench import synthetic_image
from rdlite.cli.exits import FAILED, OK
from rdlite.cli.models import recommendation
from rdlite.errors import RdliteError

_ENCODERS = ("libx264", "aac")
_FRAMES = 3
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
    looks = (_versions, _opencv, _kernels, _model, _int8, _encoders, _video)
    findings = [look() for look in looks]
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
    detail = ", ".join(f"{name} {metadata.version(name)}" for name in installed)
    if len(installed) > 1:
        # Their files have the same names: whichever was installed last is what runs.
        wanted = "-headless" if "opencv-python" not in installed else ""
        mend = f"pip uninstall -y {' '.join(installed)} && pip install opencv-python{wanted}"
        return _Finding("OpenCV", False, f"{detail} overwrite each other's files", mend)

    def work() -> str:
        import cv2

        return detail or f"{cv2.__version__}, not installed by pip"

    return _guarded("OpenCV", "pip install --force-reinstall opencv-python", work)


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _guarded(what: str, mend: str, work: Callable[[], str]) -> _Finding:
    try:
        return _Finding(what, True, work())
    # ValueError and RuntimeError are how PyAV and NumPy refuse what they cannot do.
    except (RdliteError, ImportError, OSError, ValueError, RuntimeError) as error:
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


def _int8() -> _Finding:
    def work() -> str:
        from rdlite.detector import Detector

        if registry.shipped("int8"):
            Detector("int8")(synthetic_image())
        return recommendation()

    return _guarded("int8", "pip install --force-reinstall rdlite", work)


def _encoders() -> _Finding:
    def work() -> str:
        import av

        missing = [name for name in _ENCODERS if name not in av.codecs_available]
        if missing:
            raise RdliteError(f"FFmpeg in PyAV {av.__version__} has no {' and no '.join(missing)}")
        return ", ".join(_ENCODERS)

    return _guarded("encoders", "pip install --force-reinstall --only-binary av av", work)


def _video() -> _Finding:
    def work() -> str:
        from rdlite.detector import Detector

        with tempfile.TemporaryDirectory() as folder:
            clip = Path(folder, "clip.mp4")
            _write_clip(clip)
            summary = Detector().annotate_video(clip, Path(folder, "out.mp4"), progress=False)
        if summary.frames != _FRAMES:
            raise RdliteError(f"a clip of {_FRAMES} frames came back with {summary.frames}")
        return "a clip was written, read and annotated"

    return _guarded("video", "pip install --force-reinstall --only-binary av av", work)


def _write_clip(path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for _ in range(_FRAMES):
            frame = av.VideoFrame.from_ndarray(synthetic_image(320, 240), format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
