"""Read a file in many damaged forms, in a process of its own, so that a crash is a failed test."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from rdlite.errors import RdliteError
from tests.command import script

HEAD = 200


def damaged_heads(data: bytes, values: int = 4) -> Iterator[bytes]:
    """The file cut at each of its first bytes, and with each of them changed in some ways."""
    for at in range(min(HEAD, len(data))):
        yield data[:at]
        for value in (data[at] ^ 0x80, 0xFF, 0x00, data[at] ^ 0x01)[:values]:
            yield data[:at] + bytes([value]) + data[at + 1 :]


def damaged_anywhere(data: bytes, rounds: int) -> Iterator[bytes]:
    """The file with bytes changed, a stretch overwritten, a stretch missing, or cut."""
    rng = random.Random(len(data))
    for _ in range(rounds):
        spoiled = bytearray(data)
        for _ in range(rng.choice((1, 3, 20))):
            spoiled[rng.randrange(len(data))] = rng.randrange(256)
        at, size = rng.randrange(len(data)), rng.randrange(1, 2000)
        kind = rng.randrange(6)
        if kind == 0:
            spoiled[at : at + size] = rng.randbytes(len(spoiled[at : at + size]))
        elif kind == 1:
            del spoiled[at : at + size]
        elif kind == 2:
            del spoiled[at:]
        yield bytes(spoiled)


def load_image(path: Path) -> None:
    from rdlite.image import load

    image = load(path)
    assert (image.dtype, image.ndim, image.shape[2]) == ("uint8", 3, 3)


def read_video(path: Path) -> None:
    from rdlite.video.reader import VideoReader

    with VideoReader(path) as reader:
        for frame in reader:
            assert frame.image.ndim == 3


def annotate(path: Path) -> None:
    from rdlite.video.pipeline import annotate_video
    from tests.media import TwoBoxes, frame_times

    output = path.with_name("out.mp4")
    try:
        summary = annotate_video(
            TwoBoxes(), path, output, preset="ultrafast", progress=lambda *_: None
        )
    except RdliteError as error:  # about the source; there is nothing wrong with the output
        assert "cannot be written" not in str(error), error
        raise
    times = frame_times(output)
    assert times == sorted(set(times)) and len(times) == summary.frames
    output.unlink()
    output.with_suffix(".jsonl").unlink()


def outcomes(read: Callable[[Path], None], source: Path, variants: Iterator[bytes]) -> list[int]:
    """How many variants of a file were read and how many refused; other errors propagate."""
    counts = [0, 0]
    damaged = source.with_stem("damaged")
    for variant in variants:
        damaged.write_bytes(variant)
        try:
            read(damaged)
            counts[0] += 1
        except RdliteError:
            counts[1] += 1
    damaged.unlink()
    return counts


def fuzz(read: str, source: Path, variants: str) -> tuple[int, int]:
    """How many variants were read and refused by `read`, which runs in another process.

    Args:
        read: Name of a function of this module.
        source: A file that is whole. The variant that crashed is left beside it.
        variants: A call of a function of this module, `data` being the content.
    """
    code = (
        "from tests.faults.fuzz import *\n"
        "source = Path(sys.argv[1]); data = source.read_bytes()\n"
        f"print(json.dumps(outcomes({read}, source, {variants})))"
    )
    done = subprocess.run(script(code, source), capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr[-2000:]
    read_well, refused = json.loads(done.stdout)
    return read_well, refused
