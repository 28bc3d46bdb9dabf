"""`python -m train check`: everything about a data set that should be known before training."""

from __future__ import annotations

from pathlib import Path

from rdlite.errors import OptionError
from train.check_report import render
from train.contact_sheet import write_contact_sheet
from train.formats import rules
from train.survey import compare, leave_out, look_at_use, survey

PROBLEM = 3
"""Exit code when there is a problem."""


def check(
    *,
    data: str,
    images: str,
    val: str | None = None,
    val_images: str | None = None,
    out: str = "check",
    init: str | None = "default",
    seed: int = 0,
    samples: int = 24,
    decode: bool = False,
) -> int:
    """Look at data before training on it; prints what it finds.

    Writes check.md and contact-sheet.png, samples drawn as training sees them. Exit code 0: the
    data is sound; 3: some of it will not be used, or is also in the validation set; 1: it cannot be
    used at all.

    Args:
        data: Annotations of any format; see `train.formats.read_annotations`.
        images: Folder of the images or of tar shards, or one tar.
        val: Annotations for validation.
        val_images: Their images; None takes `images`.
        out: Folder for check.md and contact-sheet.png.
        init: Weights whose classes are compared with the data's.
        seed: Decides which samples are drawn, and how.
        samples: How many samples are drawn.
        decode: Whether to decode every image.

    Returns:
        The exit code: `PROBLEM` or 0.

    Raises:
        RdliteError: The data cannot be used, or `init` cannot be read.
    """
    if samples < 1:
        raise OptionError(f"samples must be 1 or more, got {samples}")
    train = survey(data, images, decode=decode)
    held = survey(val, val_images or images, decode=decode) if val else None
    if held:
        compare(train, held)
    look_at_use(train, held)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / "contact-sheet.png"
    sheet = write_contact_sheet(
        train.coco, images, picture, readable=train.readable, samples=samples, seed=seed
    )
    leave_out(train, sheet.failed)
    text = render(data, train, val, held, init=init, decoded=decode, picture=picture.name)
    (folder / "check.md").write_text(f"{text}\n## Rules\n\n{rules()}\n", encoding="utf-8")
    print(text)
    print(f"written: {folder / 'check.md'}, {picture}")
    return PROBLEM if any(any(one.problems.values()) for one in (train, held) if one) else 0
