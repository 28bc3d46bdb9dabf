"""Which classes two models have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rdlite.detector import Detector
from rdlite.errors import OptionError
from rdlite.evaluate.classnames import match_classes, some


class Shared(NamedTuple):
    """The classes that two models both know.

    Attributes:
        names: Their names, as the first model has them.
        first: int64, place in `names` of each class of the first model, -1 where only it knows it.
        other: The same for the other model.
        renamed: The other model's spelling of a common class and the first's, where they differ.
        notes: A sentence for each way in which the classes of the two differ.
    """

    names: tuple[str, ...]
    first: npt.NDArray[np.int64]
    other: npt.NDArray[np.int64]
    renamed: Mapping[str, str]
    notes: tuple[str, ...]


def share(first: tuple[str, Detector], other: tuple[str, Detector]) -> Shared:
    """Find the common classes of two models by their names, as `match_classes` does.

    Args:
        first: Name and detector.
        other: Name and detector.

    Raises:
        OptionError: They have no class in common.
    """
    names = first[1].names, other[1].names
    rows = match_classes(names[1], names[0])
    common = sorted(row for row in rows if row is not None)
    if not common:
        raise OptionError(
            f"{first[0]} and {other[0]} have no class in common, so nothing can be compared: "
            f"{some(names[0])} against {some(names[1])}"
        )
    place = {row: number for number, row in enumerate(common)}
    renamed = {
        name: names[0][row]
        for name, row in zip(names[1], rows, strict=True)
        if row is not None and name != names[0][row]
    }
    spelled = [f"{name} = {known}" for name, known in renamed.items()]
    unknown = [name for name, row in zip(names[1], rows, strict=True) if row is None]
    return Shared(
        tuple(names[0][row] for row in common),
        np.array([place.get(row, -1) for row in range(len(names[0]))], np.int64),
        np.array([-1 if row is None else place[row] for row in rows], np.int64),
        renamed,
        (
            *_only(
                first[0], other[0], [name for row, name in enumerate(names[0]) if row not in place]
            ),
            *_only(other[0], first[0], unknown),
            *([f"spelled differently, taken as one: {some(spelled)}"] if spelled else []),
        ),
    )


def _only(model: str, other: str, names: list[str]) -> list[str]:
    return [f"{model} alone knows, so not compared with {other}: {some(names)}"] if names else []
