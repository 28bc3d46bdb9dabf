"""How numbers and errors are told to people."""

from __future__ import annotations

from rdlite.errors import RdliteError


def count(number: int, one: str, many: str = "") -> str:
    """Return "1 image", "2,000 images".

    Args:
        number: How many there are.
        one: What they are called if there is one, the verb too: "frame was".
        many: What otherwise, where that is not `one` with an "s": "frames were".
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def counted_from(start: float) -> str:
    """Return what to know of frame numbers where the images of the frames are made elsewhere.

    Args:
        start: Seconds of the first frame, which is number 0.
    """
    return (
        f"counted from start={start} (--start {start}); make the images of frames from there on "
        f"as well (ffmpeg -ss {start})"
    )


def one_sentence(error: Exception) -> str:
    """Return what went wrong; of an error of the operating system, where and why."""
    if isinstance(error, OSError) and not isinstance(error, RdliteError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)
