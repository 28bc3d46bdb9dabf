"""Detections as tasks for Label Studio, to be corrected by people."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote
from xml.etree import ElementTree

from rdlite.errors import OptionError
from rdlite.results import Detections
from rdlite.sinks.base import STDOUT, Sink, Where
from rdlite.storage.journal import dump_line
from rdlite.storage.partial import PartialFolder
from rdlite.vocxml import xml_text

_TASKS, _CONFIG = "tasks.json", "label_config.xml"
_FROM, _TO = "label", "image"
_LOCAL_FILES: Final = "/data/local-files/?d="


class LabelStudioSink(Sink):
    """A folder with `tasks.json` to import and `label_config.xml`, the project's interface.

    Each image is a task that has the objects as a prediction, with scores; boxes are percentages
    of the image. A task names its image by `/data/local-files/?d=` and the image's name, as Label
    Studio serves the files below its `LOCAL_FILES_DOCUMENT_ROOT`; a name that is an address
    (`s3://...`) stays as it is. Frame 123 of `clip.mp4` is the image `clip.mp4/000123.jpg`, which
    has to be made.

    Args:
        path: The folder.
        header: What the detections depend on; see `jsonl_header`.
        overwrite: Replace an existing folder, provided that it holds such files alone.

    Raises:
        OptionError: The folder exists already or cannot be made.
        RdliteError: The files cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        header: Mapping[str, Any],
        *,
        overwrite: bool = False,
    ) -> None:
        super().__init__(path)
        if path == STDOUT:
            raise OptionError("Label Studio's files cannot go to standard output; name a folder")
        self._version = f"rdlite {header.get('model_sha256') or '':.12}".rstrip()
        self._folder = PartialFolder(path, endings=(_TASKS, _CONFIG), overwrite=overwrite)
        self._tasks = 0
        with self._naming_errors():
            self._file = open(self._folder.partial / _TASKS, "w", encoding="ascii")
        try:
            with self._naming_errors():
                config = label_config(header["names"])
                (self._folder.partial / _CONFIG).write_text(config, encoding="utf-8")
        except BaseException:
            self.abort()
            raise

    def _add(self, found: Detections, where: Where) -> None:
        task = dump_line(_task(found, where, self._version)).rstrip()
        with self._naming_errors(Path(self._path, _TASKS)):
            self._file.write((",\n" if self._tasks else "[\n") + task)
        self._tasks += 1

    def close(self) -> None:
        """Finish the files and give the folder its final name.

        Raises:
            RdliteError: They cannot be written.
        """
        with self._naming_errors(Path(self._path, _TASKS)):
            self._file.write("\n]\n" if self._tasks else "[]\n")
            self._file.close()
        self._folder.commit()

    def abort(self) -> None:
        """Remove the unfinished folder."""
        with contextlib.suppress(OSError):  # closing writes, and fails again on a full disk
            self._file.close()
        self._folder.discard()


def label_config(names: Sequence[str]) -> str:
    """Return the labelling interface of a project with these classes, as XML text."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name=_TO, value="$image", zoom="true")
    labels = ElementTree.SubElement(view, "RectangleLabels", name=_FROM, toName=_TO)
    for name in names:
        ElementTree.SubElement(labels, "Label", value=xml_text(name))
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def _task(found: Detections, where: Where, version: str) -> dict[str, Any]:
    name, data = where.image or "", {}
    if where.frame is not None:
        name = f"{name or 'video'}/{where.frame:06d}.jpg"
        data = {"frame": where.frame, "time": where.time}
    if "://" not in name:
        name = _LOCAL_FILES + quote(name, errors="surrogateescape")
    objects = found.to_dict()["detections"]
    result = [_region(number, one, found.image_size) for number, one in enumerate(objects)]
    score = sum(one["confidence"] for one in objects) / max(1, len(objects))
    prediction = {"model_version": version, "score": round(score, 6), "result": result}
    return {"data": {"image": name, **data}, "predictions": [prediction]}


def _region(number: int, one: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    x1, y1, x2, y2 = one["xyxy"]
    width, height = size
    return {
        "id": str(number),
        "type": "rectanglelabels",
        "from_name": _FROM,
        "to_name": _TO,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "score": one["confidence"],
        "value": {
            "x": round(100 * x1 / width, 6),
            "y": round(100 * y1 / height, 6),
            "width": round(100 * (x2 - x1) / width, 6),
            "height": round(100 * (y2 - y1) / height, 6),
            "rotation": 0,
            "rectanglelabels": [xml_text(one["class_name"])],
        },
    }
