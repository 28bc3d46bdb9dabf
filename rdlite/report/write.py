"""From a file of detections to a page: totals, charts, and a gallery with the boxes drawn."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Final, TypeAlias
from urllib.parse import quote

import numpy as np

import rdlite
from rdlite import registry
from rdlite.errors import OptionError
from rdlite.report.pack import Collected, box_steps, pack
from rdlite.report.page import asset, data_block, json_block, make_page
from rdlite.report.pictures import MAX_BYTES as PICTURE_BYTES
from rdlite.report.pictures import Pictures, choose, take_pictures
from rdlite.resultfile import ResultFile, open_results
from rdlite.storage.outputs import utf8_name
from rdlite.storage.partial import PartialFile, write_whole

MAX_BYTES: Final = 20_000_000
"""Of a page."""

MAX_PICTURES: Final = 500
"""On a page."""

_OTHER_BYTES: Final = 300_000  # of a page beside its data and pictures
# Blue, orange, magenta, green, purple, red, teal, olive, pink, lime: neighbours far apart in hue,
# all with a contrast of 3:1 or more to the grounds of both schemes in page.css.
_COLORS: Final = (
    "#0277e6",
    "#ce6a00",
    "#d446a1",
    "#068b40",
    "#8859e3",
    "#d8362e",
    "#0a939f",
    "#918801",
    "#ad48c3",
    "#688a03",
)
_SCRIPTS: Final = ("data", "filter", "draw", "charts", "gallery", "viewer", "report")

Progress: TypeAlias = Callable[[str, int, int | None], object]
"""See `write_report`."""


@dataclass(frozen=True, slots=True)
class Report:
    """What `write_report` has written.

    Attributes:
        path: The page.
        size: Bytes of it.
        frames: Images and frames in the file of detections.
        objects: Objects in it.
        pictures: Frames whose picture is in the page.
        damaged: One sentence for each thing that is missing or damaged in the file of detections.
        warnings: These, and a sentence for each thing that the page leaves out; it says them too.
    """

    path: Path
    size: int
    frames: int
    objects: int
    pictures: int
    damaged: tuple[str, ...]
    warnings: tuple[str, ...]


def write_report(
    results: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    media: str | os.PathLike[str] | None = None,
    pictures: int = 120,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Write a self-contained HTML page on a file of detections.

    It shows totals, objects over time, a histogram of scores, and a gallery of the frames with
    boxes drawn over them, filtered by class, score and name. It needs no network and stays below
    20 MB: of more than 131,072 frames or about a million objects every second, fourth, eighth ...
    frame is on the page, and the page says so.

    Boxes are drawn over the picture of at most `pictures` frames, small JPEGs inside the page, and
    over an empty area of the frame's shape elsewhere. Half of these frames are spread over the
    file, the others are those with most objects of each class.

    Args:
        results: File of JSON lines, as `rdlite detect` and `rdlite annotate` write it.
        output: The page; its name ends in .html.
        media: The video, or the folder in which it or the images are. None looks for them where
            the file of detections says, relative to the current folder and then to its own.
        pictures: Most frames with a picture, 0 to 500.
        overwrite: Replace an existing page.
        progress: Called with what is counted ("frame" or "picture"), how many are done, and how
            many there are, None where that is not known.

    Raises:
        OptionError: `output` does not end in .html, exists already, has no folder or cannot be
            written, `media` does not exist, or `pictures` is out of range.
        ResultFileError: `results` is no file of detections, or one of another version.

    Example:
        >>> report = write_report("clip.jsonl", "clip.html")
        >>> report.warnings
    """
    results, output = Path(results), Path(output)
    _check(results, output, media, pictures)
    PartialFile(output, overwrite=overwrite)  # refuses now what could not be written later
    show = progress or (lambda *_: None)
    file = open_results(results)
    found = _collect(file, show)
    sections, packed = _pack(found, pictures)
    images = take_pictures(
        found,
        choose(found, pictures),
        file.header,
        _folders(results, media),
        lambda done, total: show("picture", done, total),
    )
    damaged = tuple(file.warnings())
    warnings = (*damaged, *_left_out(found), *(images.warnings if pictures else ()))
    meta = _meta(file, found, images, warnings, output) | {"sections": sections}
    page = _page(meta, packed, images).encode()
    write_whole(output, page, overwrite=overwrite)
    return Report(
        output, len(page), found.frames, found.objects, len(images.jpegs), damaged, warnings
    )


def _check(
    results: Path, output: Path, media: str | os.PathLike[str] | None, pictures: int
) -> None:
    if output.suffix.lower() not in (".html", ".htm"):
        raise OptionError(f"a report is a page, so its name must end in .html, got {output}")
    if output.exists() and results.exists() and output.samefile(results):
        raise OptionError(f"{output} is the file of detections itself; name another page")
    if media is not None and not os.path.exists(media):
        raise OptionError(f"{media} does not exist; name the video or a folder (--media)")
    if not 0 <= pictures <= MAX_PICTURES:
        raise OptionError(
            f"there must be 0 to {MAX_PICTURES} pictures (--pictures), got {pictures}"
        )


def _folders(results: Path, media: str | os.PathLike[str] | None) -> list[Path]:
    return [Path(), results.parent] if media is None else [Path(media)]


def _collect(file: ResultFile, progress: Progress) -> Collected:
    found = Collected()
    for record in file:
        found.add(record)
        progress("frame", found.frames, None)
    return found


def _pack(found: Collected, pictures: int) -> tuple[list[dict[str, Any]], bytes]:
    """Pack the frames, thinned until they leave room for the rest of the page."""
    room = MAX_BYTES * 3 // 4 - _OTHER_BYTES - (PICTURE_BYTES if pictures else 0)
    sections, packed = pack(found)
    while len(packed) > room:
        found.thin()
        sections, packed = pack(found)
    return sections, packed


def _left_out(found: Collected) -> list[str]:
    sentences = []
    if found.step > 1:
        sentences.append(
            f"The page has {found.kept:,} of {found.frames:,} frames, one in {found.step}, to "
            "stay small: the totals at its top are of all, charts and gallery of these."
        )
    if found.dropped_nonfinite:
        sentences.append(
            f"{found.dropped_nonfinite} boxes were dropped when objects were detected, because the "
            "network returned NaN or infinity."
        )
    return sentences


def _page(meta: dict[str, Any], packed: bytes, images: Pictures) -> str:
    return make_page(
        f"{meta['title']}: rdlite report",
        asset("report.html"),
        styles=[asset("page.css"), asset("report.css")],
        scripts=[asset(f"{name}.js") for name in _SCRIPTS],
        blocks=[
            json_block("meta", meta),
            data_block("data", packed),
            *(data_block(f"picture-{n}", jpeg) for n, jpeg in enumerate(images.jpegs.values())),
        ],
    )


def _meta(
    file: ResultFile, found: Collected, images: Pictures, warnings: Sequence[str], output: Path
) -> dict[str, Any]:
    """Return all that the page's scripts are told beside the frames."""
    noun = "image" if file.source is None else "frame"
    return {
        "kind": f"rdlite report · {'images' if file.source is None else 'video'}",
        "title": PurePath(utf8_name(file.source or file.path)).name,
        "video": file.source is not None,
        "noun": noun,
        "range": _range(found) if file.source is not None else None,
        "steps": box_steps(found),
        "least": _hundredths(found),
        "kept": found.kept,
        "objects": len(found.scores),
        "figures": _figures(file, found, noun),
        "facts": _facts(file),
        "warnings": list(warnings),
        "names": list(file.names),
        "colors": _colors(file, found),
        "classes": [number for number, _ in found.by_class.most_common()],
        "pictures": list(images.jpegs),
        "folder": _link(images.found, output),
    }


def _colors(file: ResultFile, found: Collected) -> list[str]:
    """Return a colour for each class: by rank, so that the frequent ones lie far apart."""
    colors = [_COLORS[0]] * len(file.names)
    for rank, (number, _) in enumerate(found.by_class.most_common()):
        colors[number] = _COLORS[rank % len(_COLORS)]
    return colors


def _hundredths(found: Collected) -> int:
    """Return where the slider of scores begins: the lowest one, in whole hundredths."""
    lowest = np.asarray(found.scores, np.float64).min(initial=1.0)
    return min(99, int(np.rint(lowest * 1_000_000)) // 10_000) if len(found.scores) else 0


def _range(found: Collected) -> list[float] | None:
    seconds = np.asarray(found.seconds)
    known = seconds[np.isfinite(seconds)]
    return [float(known.min()), float(known.max())] if len(known) else None


def _figures(file: ResultFile, found: Collected, noun: str) -> list[list[str]]:
    share = 100 * found.with_objects / found.frames if found.frames else 0
    mean = found.objects / found.frames if found.frames else 0
    return [
        [f"{noun}s", f"{found.frames:,}"],
        ["objects", f"{found.objects:,}"],
        [f"objects per {noun}", f"{mean:.2f}"],
        [f"of {noun}s have objects", f"{share:.0f} %"],
        [f"of {len(file.names)} classes found", f"{len(found.by_class)}"],
    ]


def _facts(file: ResultFile) -> list[list[str]]:
    sha256 = file.header.get("model_sha256")
    names = [name for name, row in registry.table().items() if row.sha256 == sha256]
    model = f"{names[0]} ({sha256:.12})" if names else f"with SHA-256 {sha256}"
    options = [f"{key} {value}" for key, value in file.options.items() if value is not None]
    return [
        ["Detections", utf8_name(file.path)],
        *([["Video", utf8_name(file.source)]] if file.source is not None else []),
        ["Model", "not stated" if sha256 is None else model],
        ["Options", ", ".join(options) or "not stated"],
        ["Page made by", f"rdlite {rdlite.__version__}"],
    ]


def _link(folder: Path | None, output: Path) -> str | None:
    """Return the address, relative to the page, of the folder that images are named in."""
    if folder is None:
        return None
    try:
        relative = os.path.relpath(folder, output.parent)
    except ValueError:  # another drive
        return None
    return quote(os.fsencode(Path(relative).as_posix())) + "/"
