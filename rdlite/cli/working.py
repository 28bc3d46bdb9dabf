"""What `rdlite check` tries: each part of rdlite at work, on this machine."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import rdlite
from rdlite import cores, registry
from rdlite.cli.finding import Finding, reinstall, tried
from rdlite.errors import RdliteError

_ENCODERS: Final = ("libx264", "aac")
_FRAMES: Final = 3
_AV: Final = "pip install --force-reinstall --no-deps --only-binary :all: av"


def kernels() -> Iterator[Finding]:
    """Try the compiled module."""
    finding = tried("kernels", reinstall(), _suppress)
    files = sorted(path.name for path in Path(rdlite.__file__).parent.glob("_core.*[od]"))
    if finding.status == "bad" and not files:
        yield Finding("kernels", "bad", "are not compiled", finding.mend)
    elif finding.status == "ok" and (newer := _newer_sources()):
        detail = f"work, but {newer} has changed since they were compiled"
        yield Finding("kernels", "note", detail, finding.mend)
    else:
        yield finding


def _suppress() -> str:
    import numpy as np

    from rdlite import _core

    picked, _ = _core.suppress(
        np.array([[0, 0, 1, 1], [0, 0, 1, 0.9]], np.float32),
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
    return "compiled, and give what they should"


def _newer_sources() -> Path | None:
    """Return a source of a checkout that is newer than what was compiled from it."""
    from rdlite import _core

    sources = Path(rdlite.__file__).parents[1].glob("csrc/*.*")
    compiled = os.path.getmtime(str(_core.__file__))
    return next((path for path in sorted(sources) if path.stat().st_mtime > compiled), None)


def models() -> Iterator[Finding]:
    """Compare the files of the models that come with rdlite with their sums."""
    yield tried("model files", reinstall(), _sums)


def _sums() -> str:
    names = list(registry.table())
    for name in names:
        path = registry.find(name)
        registry.check(name, path, hashlib.sha256(path.read_bytes()).hexdigest())
    return f"{' and '.join(names)} are whole"


def resources() -> Iterator[Finding]:
    """Try what the system and the container grant."""
    yield tried("temporary folder", "export TMPDIR=/a/folder/that/can/be/written", _temporary)
    mend = "raise the limit on threads: ulimit -u 4096, or docker run --pids-limit 512"
    yield tried("threads", mend, _thread)
    usable, present = cores.usable_cores(), os.cpu_count() or 1
    detail = f"{usable} of {present} may be used"
    if cores.quota() < 1:
        detail = f"the container allows {cores.quota():g} of one, so everything takes longer"
        yield Finding("cores", "note", detail, "allow one: docker run --cpus 1")
    else:
        yield Finding("cores", "ok", detail)


def _temporary() -> str:
    with tempfile.TemporaryFile() as file:
        file.write(b"0")
    return tempfile.gettempdir()


def _thread() -> str:
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    return "can be started"


def detection() -> Iterator[Finding]:
    """Try the models that come with rdlite on a picture."""
    from rdlite.cli.models import recommendation

    for name in ("default", "int8"):
        if registry.shipped(name):
            yield tried(f"model {name}", reinstall(), partial(_detect, name))
    yield Finding("recommendation", "ok", recommendation())


def _detect(name: str) -> str:
    from rdlite.bench import synthetic_image
    from rdlite.detector import Detector

    found = Detector(name, conf=0.0)(synthetic_image())
    if not len(found) or found.dropped_nonfinite:
        raise RdliteError("gives no usable output on this machine")
    return f"runs, {found.speed['inference']:.0f} ms for a picture"


def video() -> Iterator[Finding]:
    """Try the encoders, and a clip from file to file."""
    encoders = tried("encoders", _AV, _encoders)
    yield encoders
    if encoders.status == "ok":
        yield tried("video", _AV, _annotate)


def _encoders() -> str:
    import av

    missing = [name for name in _ENCODERS if name not in av.codecs_available]
    about = f"FFmpeg {av.ffmpeg_version_info} of PyAV {av.__version__}"
    if missing:
        raise RdliteError(f"{about} has no {' and no '.join(missing)}")
    return f"{' and '.join(_ENCODERS)}, {about}"


def _annotate() -> str:
    from rdlite.detector import Detector

    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder, "clip.mp4")
        _write_clip(clip)
        summary = Detector().annotate_video(clip, Path(folder, "out.mp4"), progress=False)
    if summary.frames != _FRAMES:
        raise RdliteError(f"a clip of {_FRAMES} frames came back with {summary.frames}")
    return "a clip was written, read and annotated"


def _write_clip(path: Path) -> None:
    import av

    from rdlite.bench import synthetic_image

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for _ in range(_FRAMES):
            frame = av.VideoFrame.from_ndarray(synthetic_image(320, 240), format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
