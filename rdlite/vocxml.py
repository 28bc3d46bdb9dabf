"""An annotation of Pascal VOC as XML, and text that XML can hold."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from rdlite.results import Detection

_NOT_XML = re.compile("[^\t\n -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def voc_annotation(objects: Iterable[Detection], size: tuple[int, int], filename: str) -> str:
    """Return the annotation of an image; see `Detections.to_voc`.

    Args:
        objects: Boxes in pixels of the image.
        size: Width and height of the image.
        filename: Its file name.
    """
    root = ElementTree.Element("annotation")
    _leaf(root, "filename", filename)
    entry = ElementTree.SubElement(root, "size")
    for tag, value in zip(("width", "height", "depth"), (*size, 3), strict=True):
        _leaf(entry, tag, value)
    for one in objects:
        _add_object(root, one, size)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def xml_text(text: str) -> str:
    r"""Return text with what XML cannot hold, which names can, as in JSON: \u0001, \udcff."""
    return _NOT_XML.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _add_object(root: ElementTree.Element, one: Detection, size: tuple[int, int]) -> None:
    entry = ElementTree.SubElement(root, "object")
    _leaf(entry, "name", one.name)
    _leaf(entry, "confidence", one.confidence)
    box = ElementTree.SubElement(entry, "bndbox")
    for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), _whole(one.xyxy, size), strict=True):
        _leaf(box, tag, value)


def _whole(
    xyxy: tuple[float, float, float, float], size: tuple[int, int]
) -> tuple[int, int, int, int]:
    x1, y1, x2, y2 = (round(value) for value in xyxy)
    x1, y1 = min(x1, size[0] - 1), min(y1, size[1] - 1)
    return x1 + 1, y1 + 1, max(x2, x1 + 1), max(y2, y1 + 1)


def _leaf(parent: ElementTree.Element, tag: str, value: object) -> None:
    ElementTree.SubElement(parent, tag).text = xml_text(str(value))
