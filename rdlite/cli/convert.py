"""`rdlite convert`: results in another format."""

from __future__ import annotations

import glob
import json as json_module
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from rdlite.batch.feed import ERRORS
from rdlite.cli.exits import FAILED, OK, SOME_FAILED
from rdlite.convert import Converted
from rdlite.convert import convert as convert_files
from rdlite.errors import OptionError, RdliteError
from rdlite.sinks import FORMATS, STDOUT
from rdlite.wording import count

_ENDINGS = (".jsonl", ".jsonl.gz")


def convert(
    *,
    sources: list[str],
    format: str,
    output: str | None,
    join: bool,
    images: str | None,
    overwrite: bool,
    quiet: bool,
    json: bool,
) -> int:
    """Write results in another format; see `rdlite convert --help`."""
    from tqdm import tqdm

    named = [file for source in sources for file in _files(source)]
    files = list({os.path.realpath(file): file for file in named}.values())
    jobs = _jobs(sources, files, format, output, join=join)
    total, written = Converted(), []
    hidden = True if quiet else None  # None: shown at a terminal only
    with tqdm(
        total=sum(map(os.path.getsize, files)),
        unit="B",
        unit_scale=True,
        disable=hidden,
        delay=2,
        leave=False,
        file=sys.stderr,
    ) as bar:
        for place, group in jobs.items():
            try:
                if place != STDOUT:
                    _make_folder(Path(place).parent)
                done = convert_files(
                    group, format, place, overwrite=overwrite, images=images, progress=bar.update
                )
            except RdliteError as error:
                if len(jobs) == 1:
                    raise
                total.faults.append(str(error))
            else:
                written.append(place)
                total.add(done)
    _tell(total, written, quiet=quiet, json=json)
    if not written:
        return FAILED
    return SOME_FAILED if total.faults else OK


def _files(source: str) -> Iterator[str]:
    """Yield a file that is named, and of a folder or pattern all results."""
    if os.path.isdir(source):
        for folder, folders, names in os.walk(source, onerror=_stop):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                if name.endswith(_ENDINGS) and name != ERRORS and not name.startswith("."):
                    yield os.path.join(folder, name)
    elif not os.path.exists(source) and glob.has_magic(source):
        yield from sorted(filter(os.path.isfile, glob.glob(source, recursive=True)))
    else:
        yield source


def _stop(error: OSError) -> None:
    raise error  # or os.walk leaves out, without a word, what it cannot read


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"{folder} cannot be made: {error.strerror}; use another -o") from error


def _jobs(
    sources: list[str], files: list[str], format: str, output: str | None, *, join: bool
) -> dict[str, list[str]]:
    """Return what goes into each output."""
    if not files:
        raise OptionError(f"{', '.join(sources)}: no file there ends in {' or '.join(_ENDINGS)}")
    for file in files:
        os.stat(file)
    if join or output == STDOUT:
        if output is None or (len(files) > 1 and not join):
            raise OptionError("--join and -o go together: several files become the one it names")
        return {output: files}
    ending = FORMATS[format].ending
    if output is not None and files == sources and len(files) == 1:
        into = os.path.isdir(output) and not FORMATS[format].folder
        return {os.path.join(output, _stem(files[0]) + ending) if into else output: files}
    jobs: dict[str, list[str]] = {}
    top = "" if output is None else _top(files)
    for file in files:
        folder = os.path.dirname(file)
        if output is not None:
            folder = os.path.join(output, os.path.relpath(os.path.abspath(folder), top))
        place = os.path.normpath(os.path.join(folder, _stem(file) + ending))
        if place in jobs:
            raise OptionError(f"{file} and {jobs[place][0]} would both become {place}")
        jobs[place] = [file]
    return jobs


def _top(files: list[str]) -> str:
    """Return the folder that holds all files."""
    try:
        return os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in files])
    except ValueError as error:
        raise OptionError("files on several drives cannot go into one -o; leave it out") from error


def _stem(file: str) -> str:
    name = os.path.basename(file)
    return next((name.removesuffix(end) for end in _ENDINGS if name.endswith(end)), name)


def _tell(done: Converted, written: list[str], *, quiet: bool, json: bool) -> None:
    for sentence in done.faults:
        print(f"rdlite: {sentence}", file=sys.stderr)
    if json:
        stream = sys.stderr if written == [STDOUT] else sys.stdout
        print(json_module.dumps({**asdict(done), "written": written}), file=stream)
        return
    for sentence in done.notes:
        print(f"rdlite: {sentence}", file=sys.stderr)
    if not quiet and written and written != [STDOUT]:
        print(
            f"{count(done.records, 'image or frame', 'images and frames')}, "
            f"{count(done.objects, 'object')}; written: {', '.join(written)}"
        )
