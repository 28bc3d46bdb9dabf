"""`rdlite report`: a file of detections as a page to look at."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from rdlite.batch.feed import ERRORS, WORK
from rdlite.cli.exits import OK, SOME_FAILED
from rdlite.errors import OptionError
from rdlite.report import Progress, Report, write_report
from rdlite.wording import count


def report(
    *,
    results: str,
    output: str | None,
    media: str | None,
    pictures: int,
    overwrite: bool,
    quiet: bool,
    json: bool,
) -> int:
    """Write a page; see `rdlite report --help`."""
    results = _file_in(results)
    page = _beside(results) if output is None else Path(output)
    with _bars(hidden=quiet) as progress:
        written = write_report(
            results,
            page,
            media=media,
            pictures=pictures,
            overwrite=overwrite,
            progress=progress,
        )
    for sentence in written.warnings:
        print(f"rdlite: {sentence}", file=sys.stderr)
    if json:
        print(jsonlib.dumps(asdict(written) | {"path": str(written.path)}))
    elif not quiet:
        print(_summary(written))
    return SOME_FAILED if written.damaged else OK


def _file_in(results: str) -> str:
    """Return the file of detections: the one in it where a folder is named."""
    folder = Path(results)
    if not folder.is_dir():
        return results
    files = sorted(str(p) for p in folder.glob("*.jsonl") if p.name != ERRORS)
    if len(files) == 1:
        return files[0]
    if files:
        raise OptionError(f"{results} has {len(files)} files of detections; name one of them")
    if (folder / WORK).is_dir():
        raise OptionError(f"the run in {results} is not finished; go on with --resume, then report")
    raise OptionError(f"{results} has no file of detections (.jsonl); name one")


def _beside(results: str) -> Path:
    path = Path(results)
    return (path.with_suffix("") if path.suffix == ".gz" else path).with_suffix(".html")


def _summary(written: Report) -> str:
    return (
        f"{written.path}: {count(written.objects, 'object')} in "
        f"{count(written.frames, 'image or frame', 'images or frames')}; "
        f"{count(written.pictures, 'picture')}, {written.size / 1e6:.1f} MB"
    )


@contextmanager
def _bars(*, hidden: bool) -> Iterator[Progress]:
    """Show one bar after another, each for what is counted at the time."""
    from tqdm import tqdm

    bars: dict[str, tqdm] = {}

    def show(unit: str, done: int, total: int | None) -> None:
        if unit not in bars:
            for bar in bars.values():
                bar.close()
            bars[unit] = tqdm(
                total=total,
                unit=unit,
                disable=True if hidden else None,
                delay=2,
                leave=False,
                file=sys.stderr,
            )
        bars[unit].update(done - bars[unit].n)

    try:
        yield show
    finally:
        for bar in bars.values():
            bar.close()
