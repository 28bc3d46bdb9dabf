"""The choices one detection is made with, checked at the public edge."""

from __future__ import annotations

import difflib
import math
import numbers
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from rdlite.errors import OptionError

MOST_THREADS: Final = 256
"""Of a network or an encoder. onnxruntime starts what it is told to: 99,999 threads stopped a whole
machine, which could start no process any more."""

NMS: Final = ("hard", "linear", "gaussian")
"""Ways to suppress overlapping boxes of one class (see `Detector`)."""

Classes: TypeAlias = str | int | Sequence[str | int]
"""One class or several, each by name or by index into the model's names. Text is a name where the
model has it, otherwise an index."""


@dataclass(frozen=True, slots=True, eq=False)
class Options:
    """Checked choices of one detection; the attributes are explained in `Detector`.

    Attributes:
        conf: Lowest score kept.
        iou: Overlap above which boxes are suppressed.
        nms: One of `NMS`.
        max_det: Most objects returned.
        class_mask: uint8 `(K - 1,)`, 1 for each foreground class wanted.
    """

    conf: float
    iou: float
    nms: str
    max_det: int
    class_mask: npt.NDArray[np.uint8]

    @classmethod
    def checked(
        cls,
        *,
        conf: float,
        iou: float,
        nms: str,
        max_det: int,
        classes: Classes | None,
        names: Sequence[str],
    ) -> Options:
        """Return the options, or raise `OptionError` saying which one cannot be used."""
        return cls(
            check_fraction("conf", conf),
            check_fraction("iou", iou),
            check_nms(nms),
            check_count("max_det", max_det),
            class_mask(classes, names),
        )


def check_fraction(name: str, value: Any) -> float:
    """Return `value` as a float from 0 to 1, or raise `OptionError`."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or math.isnan(value):
        raise OptionError(f"{name} must be a number between 0 and 1, got {value!r}")
    number = float(value)
    if not 0 <= number <= 1:
        hint = f"; did you mean {number / 100:g}?" if 1 < number <= 100 else ""
        raise OptionError(f"{name} must be between 0 and 1, got {number:g}{hint}")
    return number


def check_count(name: str, value: Any, *, most: int | None = None) -> int:
    """Return `value` as a whole number from 1 to `most`, or raise `OptionError`."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < 1 or (most is not None and value > most):
        limits = "of at least 1" if most is None else f"from 1 to {most}"
        raise OptionError(f"{name} must be a whole number {limits}, got {value!r}")
    return int(value)


def check_nms(value: Any) -> str:
    """Return `value` if it is one of `NMS`, or raise `OptionError`."""
    if value not in NMS:
        raise OptionError(f"nms must be one of {', '.join(NMS)}, got {value!r}")
    return str(value)


def plain(value: Any) -> Any:
    """Return an option's value as JSON knows it: arrays, sets and ranges become lists."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    return [plain(item) for item in value]


def class_mask(classes: Classes | None, names: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Return uint8 `(len(names),)`: 1 for each class wanted, all of them for None.

    Raises:
        OptionError: A name or an index is not one of the model's, or nothing is wanted.
    """
    if classes is None:
        return np.ones(len(names), np.uint8)
    # An array of no dimension has no length, so it is looked at as one class.
    single = isinstance(classes, (str, numbers.Integral)) or getattr(classes, "ndim", 1) == 0
    wanted = [classes] if single else classes
    if not isinstance(wanted, (list, tuple, set, frozenset, range, np.ndarray)):
        raise OptionError(f"classes must be names or indices, got {type(classes).__name__}")
    if not len(wanted):
        raise OptionError("classes is empty; name at least one class, or give None for all")
    mask = np.zeros(len(names), np.uint8)
    for item in wanted:
        mask[_class_index(item, names)] = 1
    return mask


def _class_index(item: Any, names: Sequence[str]) -> int:
    if isinstance(item, str):
        if item in names:
            return names.index(item)
        if not re.fullmatch(r"[0-9]{1,9}", item):
            near = difflib.get_close_matches(item.lower(), names, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it knows {', '.join(names)}"
            raise OptionError(f"classes: the model has no class {item!r}; {hint}")
        item = int(item)
    if not isinstance(item, numbers.Integral) or isinstance(item, bool):
        raise OptionError(f"classes must be names or indices, got {item!r}")
    index = int(item)
    if not 0 <= index < len(names):
        raise OptionError(f"classes: an index must be from 0 to {len(names) - 1}, got {index}")
    return index
