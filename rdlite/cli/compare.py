"""`rdlite compare`: what several models find in the same pictures, as one page and one picture."""

from __future__ import annotations

import glob
import json as jsonlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rdlite import registry
from rdlite.cli.batch import make_detector
from rdlite.cli.exits import FAILED, INTERRUPTED, OK, SOME_FAILED
from rdlite.cli.inputs import Found, find
from rdlite.cli.options import hint
from rdlite.compare import Comparison
from rdlite.compare.run import Comparer
from rdlite.errors import OptionError
from rdlite.storage.partial import PartialFile
from rdlite.wording import count

_ENDINGS: Final = (".html", ".png")


def compare(
    *,
    arguments: list[str],
    output: str,
    frames: int,
    limit: int,
    overwrite: bool,
    quiet: bool,
    json: bool,
    **detection: Any,
) -> int:
    """Compare models; see `rdlite compare --help`."""
    models, sources = _split(arguments)
    found = find(sources, images=True, video_ending=".html", outside=Path(output))
    outputs = _outputs(Path(output), found, overwrite=overwrite)
    detectors = {model: make_detector(model=model, **detection) for model in models}
    comparer = Comparer(detectors, frames=frames, limit=limit)
    interrupted = _run(comparer, found, frames, quiet=quiet)
    result = comparer.result()
    for reason in [text for _, text in (*found.failed, *result.failed)]:
        print(f"rdlite: {reason}", file=sys.stderr)
    if result.images:
        for path in outputs:
            path.parent.mkdir(exist_ok=True)
            result.save(path, overwrite=overwrite)
    _say(result, found, outputs, quiet=quiet, json=json)
    if interrupted:
        return INTERRUPTED
    if not result.images:
        return FAILED
    return SOME_FAILED if found.failed or result.failed else OK


def _run(comparer: Comparer, found: Found, frames: int, *, quiet: bool) -> bool:
    """Compare all inputs; returns whether the user stopped it, which keeps what is done."""
    from tqdm import tqdm

    if note := found.skipped_note():
        print(f"rdlite: {note}", file=sys.stderr)
    images = [one.path for one in found.files if not one.video]
    videos = [one.path for one in found.files if one.video]
    total = len(images) + frames * len(videos)
    disable = True if quiet else None
    with tqdm(total=total, unit="img", disable=disable, delay=2, file=sys.stderr) as bar:
        try:
            comparer.run(images, videos, progress=bar.update)
        except KeyboardInterrupt:
            return True
    return False


def _say(
    result: Comparison, found: Found, outputs: Sequence[Path], *, quiet: bool, json: bool
) -> None:
    failed = len(found.failed) + len(result.failed)
    written = [str(path) for path in outputs] if result.images else []
    if json:
        unfound = [{"input": name, "error": reason} for name, reason in found.failed]
        content = result.to_dict()
        content["failed"] = unfound + content["failed"]
        print(jsonlib.dumps({**content, "written": written}))
    elif not quiet and result.images:
        print(result.summary())
        print(f"{count(result.images, 'picture')}, {failed} failed; written: {', '.join(written)}")


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tell models from what they are to look at, by what `rdlite compare --help` says."""
    known = {name for one in registry.present() for name in (one.name, *one.aliases)}
    sources = [one for one in arguments if not _is_model(one, known)]
    for word in sources:
        plain = os.path.basename(word) == word and not os.path.splitext(word)[1]
        if word and plain and not glob.has_magic(word) and not os.path.lexists(word):
            raise OptionError(
                f"{word!r} is neither a model (see rdlite models) nor a file{hint(word, known)}"
            )
    models = _distinct([one for one in arguments if _is_model(one, known)])
    if len(models) < 2:
        raise OptionError(
            "a comparison needs two models or more, names of rdlite models or .onnx files, "
            f"got {models[0] if models else 'none'}"
        )
    if not sources:
        same = [f"./{one}" for one in models if one in known and os.path.exists(one)]
        raise OptionError(
            "there is nothing to look at: name images, videos, folders or patterns as well"
            + (f", such as {same[0]}, which is not the model of this name" if same else "")
        )
    return models, sources


def _is_model(word: str, known: set[str]) -> bool:
    return word.lower().endswith(".onnx") or word in known or registry.shipped(word) is not None


def _distinct(models: Sequence[str]) -> list[str]:
    """Return the models, or refuse one that is named twice, by whatever names."""
    first: dict[str, str] = {}
    for name in models:
        path = os.path.realpath(registry.find(name))
        if path in first:
            raise OptionError(f"{path} is there twice, as {first[path]!r} and {name!r}")
        first[path] = name
    return list(first.values())


def _outputs(output: Path, found: Found, *, overwrite: bool) -> list[Path]:
    """Return the files to write, after a look at whether they can be; nothing is left by that."""
    if output.is_dir() or not (output.suffix or output.exists()):
        paths = [output / f"compare{ending}" for ending in _ENDINGS]
    elif output.suffix.lower() in _ENDINGS:
        paths = [output]
    else:
        raise OptionError(f"-o {output} must end in .html or .png, or name a folder for both")
    inputs = {os.path.realpath(one.path) for one in found.files}
    for path in paths:
        if os.path.realpath(path) in inputs:
            raise OptionError(f"{path} is an input, which is never replaced; use another -o")
        # Of a folder that is still to be made, the place of the folder itself is looked at.
        PartialFile(path if path.parent.is_dir() else output, overwrite=overwrite)
    return paths
