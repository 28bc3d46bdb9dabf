"""A video to measure with, made from the street clip."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2

from rdlite.video.reader import VideoReader
from tests.conftest import street_clip

SIZE = (1280, 720)


def write_street_720p(path: Path, frames: int) -> Path:
    """Write the street clip to and fro, scaled to 1280x720, as H.264 at 25 frames a second."""
    with VideoReader(street_clip()) as reader:
        wanted = itertools.islice(reader, frames)
        images = [cv2.resize(f.image, SIZE, interpolation=cv2.INTER_CUBIC) for f in wanted]
    with av.open(str(path), "w") as output:
        video: Any = output.add_stream("libx264", rate=25, options={"crf": "20"})
        video.width, video.height, video.pix_fmt = *SIZE, "yuv420p"
        to_and_fro = itertools.cycle(images + images[::-1])
        for number, image in enumerate(itertools.islice(to_and_fro, frames)):
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
    return path
