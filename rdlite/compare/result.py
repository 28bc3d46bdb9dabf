"""What came out of a comparison."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from rdlite.results import Detections
from rdlite.storage.partial import write_whole
from rdlite.wording import count

if TYPE_CHECKING:
    from rdlite.notebook import Picture

BINS: Final = 20
"""Cells of a score in `Agreement.scores`: from 0.00, 0.05 ... 0.95."""

AGREED, ALONE, UNKNOWN = 0, 1, 2
"""States of a box: another model has it too, none has it, no other model knows its class."""


@dataclass(frozen=True, slots=True)
class ModelTotals:
    """One model's part in all pictures.

    Attributes:
        name: What it was called.
        arithmetic: "fp32" or "int8".
        sha256: Hexadecimal SHA-256 of the model file.
        objects: Boxes found, by class name.
        ms: Mean milliseconds per picture, without decoding it; 0 where there was none.
        dropped_nonfinite: Boxes left out because the network gave NaN or infinity.
    """

    name: str
    arithmetic: str
    sha256: str
    objects: Mapping[str, int]
    ms: float
    dropped_nonfinite: int

    @property
    def total(self) -> int:
        """Boxes found."""
        return sum(self.objects.values())


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """How the first model and another one agree in the classes that both know.

    Attributes:
        first: Name of the first model.
        other: Name of the other one.
        per_class: Boxes that both have, only the first, and only the other, by class name.
        scores: int64 `(BINS, BINS)`, how many boxes that both have got this score by the first
            (row) and by the other (column).
        not_compared: Boxes of classes that only the first knows, and that only the other knows.
        renamed: The other model's spelling of a class and the first's, where they differ.
        notes: A sentence for each way in which the classes of the two differ.
    """

    first: str
    other: str
    per_class: Mapping[str, tuple[int, int, int]]
    scores: npt.NDArray[np.int64]
    not_compared: tuple[int, int]
    renamed: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def totals(self) -> tuple[int, int, int]:
        """Boxes that both have, that only the first has, and that only the other has."""
        both, first, other = np.array([*self.per_class.values(), (0, 0, 0)]).sum(axis=0).tolist()
        return both, first, other

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, without `scores`."""
        keys = ("both", "only_first", "only_other")
        return {
            "first": self.first,
            "other": self.other,
            **dict(zip(keys, self.totals, strict=True)),
            "per_class": {
                name: dict(zip(keys, counts, strict=True))
                for name, counts in self.per_class.items()
            },
            "not_compared": list(self.not_compared),
        }


@dataclass(frozen=True, slots=True, eq=False)
class ComparedPicture:
    """One picture that all models have looked at.

    Attributes:
        name: Path of the image, or of the video and the second.
        number: Its place among all pictures, counted from 0.
        difference: How much the other models differ from the first, see `compare`.
        found: What each model found.
        states: uint8 `(n,)` for each model: `AGREED`, `ALONE` or `UNKNOWN` for each of its boxes.
        jpeg: The picture, made smaller, as a JPEG file.
    """

    name: str
    number: int
    difference: float
    found: tuple[Detections, ...]
    states: tuple[npt.NDArray[np.uint8], ...]
    jpeg: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Comparison:
    """What models found in the same pictures.

    Attributes:
        models: All models, in their order.
        agreements: The first model with each of the others.
        images: How many pictures were compared.
        pictures: Those that differ most, the most different first.
        failed: (file, reason) of what could not be read; it counts for nothing.
        options: Of the detection, as JSON values.
    """

    models: tuple[ModelTotals, ...]
    agreements: tuple[Agreement, ...]
    images: int
    pictures: tuple[ComparedPicture, ...]
    failed: tuple[tuple[str, str], ...]
    options: Mapping[str, Any]

    def __repr__(self) -> str:
        names = ", ".join(model.name for model in self.models)
        return f"<Comparison of {names} in {count(self.images, 'picture')}>"

    def summary(self) -> str:
        """Return the numbers as a table and a few sentences."""
        width = max(len("model"), *(len(model.name) for model in self.models))
        lines = [f"{'model':{width}} {'objects':>9} {'ms per picture':>15}"]
        lines += [f"{m.name:{width}} {m.total:9,} {m.ms:15.1f}" for m in self.models]
        for one in self.agreements:
            both, first, other = one.totals
            lines.append(
                f"{one.first} and {one.other}: {both:,} boxes by both, {first:,} by {one.first} "
                f"alone, {other:,} by {one.other} alone"
            )
        lines += [f"note: {sentence}" for sentence in self.notes()]
        return "\n".join(lines)

    def notes(self) -> list[str]:
        """Return a sentence for each thing that was not compared or was left out."""
        return [sentence for one in self.agreements for sentence in one.notes] + [
            "left out because they were not finite: "
            f"{count(model.dropped_nonfinite, 'box', 'boxes')} of {model.name}"
            for model in self.models
            if model.dropped_nonfinite
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; `pictures` are those that differ most, without their boxes."""
        return {
            "models": [
                {
                    "name": model.name,
                    "arithmetic": model.arithmetic,
                    "sha256": model.sha256,
                    "objects": dict(model.objects),
                    "ms": round(model.ms, 3),
                    "dropped_nonfinite": model.dropped_nonfinite,
                }
                for model in self.models
            ],
            "agreements": [one.to_dict() for one in self.agreements],
            "notes": self.notes(),
            "images": self.images,
            "pictures": [
                {
                    "name": one.name,
                    "difference": round(one.difference, 3),
                    "objects": [len(found) for found in one.found],
                }
                for one in self.pictures
            ],
            "failed": [{"input": name, "error": reason} for name, reason in self.failed],
            "options": dict(self.options),
        }

    def picture(self, rows: int = 10) -> Picture:
        """Return a row for each of the pictures that differ most, a column for each model.

        Args:
            rows: Most rows.

        Raises:
            OptionError: There is no picture.
        """
        from rdlite.compare.picture import side_by_side

        return side_by_side(self, rows)

    def page(self) -> str:
        """Return a self-contained HTML page; it holds as many of `pictures` as 20 MB do."""
        from rdlite.compare.page import comparison_page

        return comparison_page(self)

    def _repr_html_(self) -> str:
        from rdlite.notebook import table

        models = [(m.name, f"{m.total:,}", f"{m.ms:.1f}") for m in self.models]
        agreements = [(one.first, one.other, *one.totals) for one in self.agreements]
        failed = f", {len(self.failed)} failed" if self.failed else ""
        caption = f"{count(self.images, 'picture')} compared{failed}"
        heads = ("first", "other", "by both", "by the first alone", "by the other alone")
        return table(caption, ("model", "objects", "ms per picture"), models) + table(
            "objects found", heads, agreements
        )

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the page, or the picture where the name ends as one of a picture.

        Args:
            path: A file that ends in .html, or as `rdlite.notebook.Picture.save` wants it.
            overwrite: Replace a file that exists.

        Raises:
            OptionError: The file exists and `overwrite` is False, or it cannot be written.
        """
        if Path(path).suffix.lower() == ".html":
            write_whole(path, self.page().encode(), overwrite=overwrite)
        else:
            self.picture().save(path, overwrite=overwrite)
