"""Videos: read frame by frame, annotated, and written whole.

`VideoReader` and `Frame` are for users; `Detector.annotate_video` is the way to the rest.
"""

from rdlite.video.reader import Frame, VideoReader

__all__ = ["Frame", "VideoReader"]
