"""The errors rdlite raises: one tree, each branch also a builtin error."""

from __future__ import annotations


class RdliteError(Exception):
    """Base of every error that rdlite raises on purpose.

    The text is one sentence: what was got, what was wanted, what to do.
    """


class ImageError(RdliteError, ValueError):
    """An image could not be read, or an array is not an image."""


class VideoError(RdliteError, OSError):
    """A video could not be read or written."""


class ModelError(RdliteError, ValueError):
    """A model file is damaged, unsafe, or not an rdlite model."""


class OptionError(RdliteError, ValueError):
    """An argument has a value that rdlite cannot use."""


class ResultFileError(RdliteError, ValueError):
    """A file is not one of detections that rdlite wrote, or a line of it is damaged."""


class WorkerDied(RdliteError):
    """The process that worked on a task ended, for this task the second time."""


class OutputError(RdliteError, OSError):
    """Nothing more can be written: the disk is full, or the output folder has vanished."""
