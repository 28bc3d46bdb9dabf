"""`python -m train check`: everything about a data set that should be known before training."""

from __future__ import annotations

from pathlib import Path

from rdlite.errors import OptionError
from rdlite.evaluate.dataset import DataError
from train.check_report import render, render_failures
from train.contact_sheet import write_contact_sheet
from train.formats import refuse_same, rules
from train.survey import Survey, compare, leave_out, look_at_use, survey

REPORT = "check.md"

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
    used at all, and check.md lists all that is wrong.

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
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    sets = [(data, images, "train")] + ([(val, val_images or images, "val")] if val else [])
    train, *rest = _survey_all(sets, folder, decode=decode)
    held = rest[0] if rest else None
    if val and held:
        refuse_same(data, val)
        compare(train, held)
    look_at_use(train, held)
    picture = folder / "contact-sheet.png"
    sheet = write_contact_sheet(
        train.coco, images, picture, readable=train.readable, samples=samples, seed=seed
    )
    leave_out(train, sheet.failed)
    text = render(data, train, val, held, init=init, decoded=decode, picture=picture.name)
    _write(folder, text)
    print(text)
    print(f"written: {folder / REPORT}, {picture}")
    return PROBLEM if any(any(one.problems.values()) for one in (train, held) if one) else 0


def _survey_all(sets: list[tuple[str, str, str]], folder: Path, *, decode: bool) -> list[Survey]:
    """Survey (annotations, images, default split) of each set; where one fails, report on all.

    Raises:
        DataError: A set cannot be used; the first error of them.
    """
    found, failures = [], []
    for data, images, split in sets:
        try:
            found.append(survey(data, images, decode=decode, default_split=split))
        except DataError as error:
            failures.append((data, error))
    if failures:
        text = render_failures(failures)
        _write(folder, text)
        if len(failures) > 1 or failures[0][1].faults:  # more than the one sentence of the error
            print(text)
        raise failures[0][1]
    return found


def _write(folder: Path, text: str) -> None:
    (folder / REPORT).write_text(f"{text}\n## Rules\n\n{rules()}\n", encoding="utf-8")
