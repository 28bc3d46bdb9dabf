"""What the detector found in one image, and the formats it can be turned into."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from rdlite.errors import OptionError
from rdlite.vocxml import voc_annotation

if TYPE_CHECKING:
    import pandas
    import supervision

    from rdlite.image import ImageSource
    from rdlite.notebook import Picture

__all__ = ["Detection", "Detections"]

# A thousandth of a pixel and a millionth of a score are finer than what onnxruntime repeats
# from one CPU type to another, and half the text of an exact float32.
_PIXEL_DIGITS = 3
_SCORE_DIGITS = 6
_LARGEST = (1 << 31) - 1  # pixels of a side


class Detection(NamedTuple):
    """One object.

    Attributes:
        xyxy: Box in pixels of the upright image: x1, y1, x2, y2.
        confidence: Score in (0, 1].
        class_id: Index into the model's names.
        name: Class name.
    """

    xyxy: tuple[float, float, float, float]
    confidence: float
    class_id: int
    name: str


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Detections:
    """All objects found in one image, best first. Empty is a normal value.

    `len(d)`, iteration (yields `Detection`) and indexing work: an integer gives one
    `Detection`; a slice, a list of integers or a boolean mask gives a smaller `Detections`.

    Attributes:
        xyxy: float32 `(n, 4)`, pixels of the upright image, x1 y1 x2 y2; read-only.
        confidence: float32 `(n,)`; read-only.
        class_id: int64 `(n,)`, index into `names`; read-only.
        names: The model's class names.
        category_ids: Dataset (COCO) category id of each class, same order as `names`.
        image_size: Width and height of the upright image, pixels.
        speed: Milliseconds spent in `preprocess`, `inference` and `postprocess`.
        dropped_nonfinite: Candidate boxes removed because the network returned NaN or infinity.

    Raises:
        OptionError: The arrays disagree in length, or a class id has no name.

    Example:
        >>> found = Detector()("street.jpg")
        >>> people = found[found.class_id == found.names.index("person")]
        >>> [detection.xyxy for detection in people]
    """

    xyxy: npt.NDArray[np.float32]
    confidence: npt.NDArray[np.float32]
    class_id: npt.NDArray[np.int64]
    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    image_size: tuple[int, int]
    speed: Mapping[str, float] = field(default_factory=dict)
    dropped_nonfinite: int = 0

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "xyxy", _read_only(self.xyxy, np.float32))
        put(self, "confidence", _read_only(self.confidence, np.float32))
        put(self, "class_id", _read_only(self.class_id, np.int64))
        put(self, "speed", MappingProxyType(dict(self.speed)))
        n = len(self.class_id)
        shapes = self.xyxy.shape, self.confidence.shape, self.class_id.shape
        if shapes != ((n, 4), (n,), (n,)):
            raise OptionError(
                f"xyxy must be ({n}, 4), confidence and class_id ({n},) for {n} class ids, "
                f"got {', '.join(map(str, shapes))}"
            )
        if len(self.category_ids) != len(self.names):
            raise OptionError(
                f"category_ids must have one id for each of {len(self.names)} names, "
                f"got {len(self.category_ids)}"
            )
        if n and not 0 <= self.class_id.min() <= self.class_id.max() < len(self.names):
            raise OptionError(
                f"class_id must be from 0 to {len(self.names) - 1}, "
                f"got {self.class_id.min()} to {self.class_id.max()}"
            )

    @classmethod
    def empty(
        cls,
        *,
        names: Sequence[str] = (),
        category_ids: Sequence[int] = (),
        image_size: tuple[int, int] = (0, 0),
    ) -> Detections:
        """Return a value that holds no object.

        Args:
            names: As the attribute, and so are the others.
            category_ids: See `names`.
            image_size: See `names`.
        """
        return cls(
            xyxy=np.empty((0, 4), np.float32),
            confidence=np.empty(0, np.float32),
            class_id=np.empty(0, np.int64),
            names=tuple(names),
            category_ids=tuple(category_ids),
            image_size=image_size,
        )

    @classmethod
    def from_dict(
        cls, line: Mapping[str, Any], *, names: Sequence[str], category_ids: Sequence[int]
    ) -> Detections:
        """Return what `to_dict` described, as precise as that is, without `speed`.

        `to_dict` of the result is the same again.

        Args:
            line: What `to_dict` returned, or a line of a file of JSON lines.
            names: The model's class names, as in the file's header.
            category_ids: Dataset (COCO) category id of each class, likewise.

        Raises:
            OptionError: It is something else, or the names are those of another model.
        """
        try:
            objects = line["detections"]
            width, height = line["width"], line["height"]
            if not all(isinstance(side, int) and 1 <= side <= _LARGEST for side in (width, height)):
                raise ValueError(f"size {width!r} x {height!r}")
            lost = line.get("dropped_nonfinite", 0)
            if not isinstance(lost, int) or lost < 0:
                raise ValueError(f"dropped_nonfinite {lost!r}")
            with np.errstate(over="ignore"):  # what is not finite is refused below
                found = cls(
                    xyxy=np.array([one["xyxy"] for one in objects], np.float32).reshape(-1, 4),
                    confidence=np.array([one["confidence"] for one in objects], np.float32),
                    class_id=np.array([one["class_id"] for one in objects], np.int64),
                    names=tuple(names),
                    category_ids=tuple(category_ids),
                    image_size=(width, height),
                    dropped_nonfinite=lost,
                )
            given = [one["class_name"] for one in objects]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise OptionError(f"not detections as to_dict describes them: {error!r}") from error
        if found.class_names != given:
            raise OptionError(f"the classes are {found.class_names} by number, {given} by name")
        scores = found.confidence
        if not (np.isfinite(found.xyxy).all() and ((scores >= 0) & (scores <= 1)).all()):
            raise OptionError("boxes must be finite numbers, and scores from 0 to 1")
        return found

    @property
    def class_names(self) -> list[str]:
        """Class name of each object."""
        return [self.names[index] for index in self.class_id.tolist()]

    def __len__(self) -> int:
        return len(self.class_id)

    def __iter__(self) -> Iterator[Detection]:
        rows = zip(
            self.xyxy.tolist(), self.confidence.tolist(), self.class_id.tolist(), strict=True
        )
        for box, score, index in rows:
            yield Detection(tuple(box), score, index, self.names[index])

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> Detection: ...
    @overload
    def __getitem__(
        self, index: slice | Sequence[int] | Sequence[bool] | npt.NDArray[Any]
    ) -> Detections: ...
    def __getitem__(self, index: Any) -> Detection | Detections:
        if isinstance(index, (int, np.integer)):
            return next(iter(self._take([int(index)])))
        return self._take(index)

    def _take(self, index: Any) -> Detections:
        if not isinstance(index, slice):
            index = np.asarray(index)
            if index.dtype != bool:
                # NumPy types an empty list as float64, which cannot index.
                index = index.astype(np.intp) if index.size == 0 else index
        return Detections(
            self.xyxy[index],
            self.confidence[index],
            self.class_id[index],
            self.names,
            self.category_ids,
            self.image_size,
            self.speed,
            self.dropped_nonfinite,
        )

    def __repr__(self) -> str:
        counts = Counter(self.class_names).most_common()
        found = ", ".join(f"{count} {name}" for name, count in counts) or "nothing"
        width, height = self.image_size
        return f"<Detections {found} in {width}x{height}>"

    def plot(self, image: ImageSource, *, color: str = "bgr") -> Picture:
        """Return the picture with a box and a label for every object; a notebook shows it.

        Detections do not keep the picture they were found in, so that a million of them fit
        into memory.

        Args:
            image: That picture: a path, bytes, a uint8 array or a PIL image.
            color: Channel order of an array, "bgr" or "rgb".

        Raises:
            ImageError: It cannot be read.
            OptionError: It has another size than the picture they were found in.

        Example:
            >>> Detector()("street.jpg").plot("street.jpg").save("boxes.png")
        """
        from rdlite.notebook import plot

        return plot(image, self, color=color)

    def _repr_html_(self) -> str:
        from rdlite.notebook import detections_html

        return detections_html(self)

    def __reduce__(self) -> tuple[Any, ...]:
        # Rebuilding through the constructor keeps the arrays read-only in the other process.
        values = [getattr(self, item.name) for item in fields(self)]
        return type(self), tuple(dict(v) if isinstance(v, Mapping) else v for v in values)

    def _rounded(self) -> Iterator[Detection]:
        """Yield what files hold: every format is made from the same numbers."""
        for one in self:
            x1, y1, x2, y2 = (round(value, _PIXEL_DIGITS) for value in one.xyxy)
            score = round(one.confidence, _SCORE_DIGITS)
            yield one._replace(xyxy=(x1, y1, x2, y2), confidence=score)

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for `json.dumps`.

        Returns:
            `width` and `height` of the upright image and `detections`, a list of
            `{"xyxy": [x1, y1, x2, y2], "confidence", "class_id", "class_name"}`; boxes are
            rounded to 0.001 pixel and scores to 0.000001. `dropped_nonfinite` only if not 0.
        """
        width, height = self.image_size
        lost = {"dropped_nonfinite": self.dropped_nonfinite} if self.dropped_nonfinite else {}
        return lost | {
            "width": width,
            "height": height,
            "detections": [
                {
                    "xyxy": list(one.xyxy),
                    "confidence": one.confidence,
                    "class_id": one.class_id,
                    "class_name": one.name,
                }
                for one in self._rounded()
            ],
        }

    def to_coco(self, image_id: int | str) -> list[dict[str, Any]]:
        """Return COCO results entries; `bbox` is x, y, width, height in pixels.

        Args:
            image_id: The id of this image in the COCO annotation file.
        """
        return [
            {
                "image_id": image_id,
                "category_id": self.category_ids[one.class_id],
                "bbox": [round(value, _PIXEL_DIGITS) for value in _xywh(one.xyxy)],
                "score": one.confidence,
            }
            for one in self._rounded()
        ]

    def to_yolo(self, *, confidence: bool = True) -> str:
        """Return one line per object: class id, centre x, centre y, width, height, confidence.

        The four box values are fractions of the image's width and height.

        Args:
            confidence: False leaves it out; the files that trainers read have no such column.
        """
        width, height = self.image_size
        lines = []
        for one in self._rounded():
            x, y, w, h = _xywh(one.xyxy)
            box = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
            score = (one.confidence,) if confidence else ()
            values = " ".join(f"{value:.6f}" for value in (*box, *score))
            lines.append(f"{one.class_id} {values}\n")
        return "".join(lines)

    def to_voc(self, filename: str) -> str:
        r"""Return a Pascal VOC annotation as XML text.

        Boxes follow VOC: whole pixels counted from 1, the last one included. Control characters
        and bytes that are not UTF-8 are written as escapes, such as `\u0001`.

        Args:
            filename: The image's file name, stored in the annotation.
        """
        return voc_annotation(self._rounded(), self.image_size, filename)

    def to_pandas(self) -> pandas.DataFrame:
        """Return a pandas DataFrame, one row per object.

        Columns: x_min, y_min, x_max, y_max (pixels), class_id, class_name, confidence.

        Raises:
            ImportError: pandas is not installed.
        """
        pandas = import_optional("pandas")
        frame = pandas.DataFrame(self.xyxy.copy(), columns=["x_min", "y_min", "x_max", "y_max"])
        return frame.assign(
            class_id=self.class_id.copy(),
            class_name=self.class_names,
            confidence=self.confidence.copy(),
        )

    def to_supervision(self) -> supervision.Detections:
        """Return a `supervision.Detections` with the class names in `data["class_name"]`.

        Raises:
            ImportError: supervision is not installed.
        """
        found: supervision.Detections = import_optional("supervision").Detections(
            xyxy=self.xyxy.copy(),
            confidence=self.confidence.copy(),
            class_id=self.class_id.copy(),
            data={"class_name": np.array(self.class_names, dtype=str)},
        )
        return found


def import_optional(name: str) -> Any:
    """Return a package that rdlite does without, but for the method `to_` and its name.

    Raises:
        ImportError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"to_{name} needs {name}; run `pip install {name}`") from error


def _read_only(values: Any, dtype: type[np.generic]) -> npt.NDArray[Any]:
    array = np.array(values, dtype=dtype)
    array.flags.writeable = False
    return array


def _xywh(xyxy: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = xyxy
    return x1, y1, x2 - x1, y2 - y1
