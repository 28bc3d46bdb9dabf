"""What a model file says about itself: the JSON metadata stored beside the graph."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from rdlite.errors import ModelError

__all__ = ["ModelSpec"]

Floats: TypeAlias = npt.NDArray[np.float32]

OUTPUTS: Final = ("arm_loc", "arm_conf", "odm_loc", "odm_conf")
"""Names of a graph's outputs."""

Outputs: TypeAlias = tuple[Floats, Floats, Floats, Floats]
"""A network's answer to one image: `(A, 4)`, `(A, 2)`, `(A, 4)` and `(A, K)`, as in `OUTPUTS`."""

SCHEMA: Final = 1
"""Version of the metadata layout written by this release."""

DECODERS: Final = ("refinedet",)
"""Decoders this release can run."""

_PREFIX: Final = "rdlite."
_KEYS: Final = (
    "names",
    "category_ids",
    "anchors",
    "variances",
    "input",
    "decode",
    "weights_sha256",
    "provenance",
)
_INPUT: Final = {"name": "image", "dtype": "uint8", "layout": "NHWC", "color": "BGR"}
_MAX_SIDE: Final = 4096


@dataclass(frozen=True, slots=True, eq=False)
class ModelSpec:
    """Everything needed to feed a network and to decode what it returns.

    Attributes:
        names: Foreground class names; index = class id.
        category_ids: Dataset (COCO) category id of each class, same order as `names`.
        anchors: float32 `(A, 4)`, centre x, centre y, width, height as fractions of the
            network input; read-only.
        variances: Offset scales of centre and size (0.1 and 0.2 in SSD, arXiv 1512.02325).
        input_size: Height and width of the network input, pixels.
        decoder: Name of the decoding scheme, one of `DECODERS`.
        weights_sha256: Hexadecimal SHA-256 of the weights the graph was exported from.
        provenance: Data, recipe, date and measured accuracy; any JSON object.

    Raises:
        ModelError: A value is missing, of the wrong type or out of range.
    """

    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    anchors: npt.NDArray[np.float32]
    variances: tuple[float, float]
    input_size: tuple[int, int]
    decoder: str = "refinedet"
    weights_sha256: str = "0" * 64
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "names", _names(self.names))
        put(self, "category_ids", _category_ids(self.category_ids, len(self.names)))
        put(self, "anchors", _anchors(self.anchors))
        put(self, "variances", _variances(self.variances))
        put(self, "input_size", _input_size(self.input_size))
        if self.decoder not in DECODERS:
            raise ModelError(f"decoder must be one of {DECODERS}, got {_short(self.decoder)}")
        if not isinstance(self.weights_sha256, str) or not re.fullmatch(
            "[0-9a-f]{64}", self.weights_sha256
        ):
            raise ModelError(
                "weights_sha256 must be 64 lower-case hexadecimal digits, "
                f"got {_short(self.weights_sha256)}"
            )
        if not isinstance(self.provenance, dict):
            raise ModelError(f"provenance must be an object, got {_short(self.provenance)}")

    @property
    def arithmetic(self) -> str:
        """What the network computes in: "int8" where the provenance tells of a quantization."""
        return "int8" if "quantization" in self.provenance else "fp32"

    def to_metadata(self) -> dict[str, str]:
        """Return the ONNX metadata entries, every value JSON.

        Anchors are written with enough digits to come back as the same float32 values.
        """
        height, width = self.input_size
        values: dict[str, Any] = {
            "schema": SCHEMA,
            "names": self.names,
            "category_ids": self.category_ids,
            "anchors": self.anchors.tolist(),
            "variances": self.variances,
            "input": _INPUT | {"height": height, "width": width},
            "decode": self.decoder,
            "weights_sha256": self.weights_sha256,
            "provenance": self.provenance,
        }
        return {
            _PREFIX + key: json.dumps(value, ensure_ascii=False, separators=(",", ":"))
            for key, value in values.items()
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], *, source: str) -> ModelSpec:
        """Read the ONNX metadata entries of a model.

        Args:
            metadata: Key to JSON text, as `to_metadata` returns it; other keys are ignored.
            source: Name of the file, used in error messages.

        Raises:
            ModelError: An entry is missing or wrong; the text names it.
        """
        try:
            _check_schema(metadata)
            values = {key: _parse(metadata, key) for key in _KEYS}
            values["input_size"] = _input_entry(values.pop("input"))
            values["decoder"] = values.pop("decode")
            return cls(**values)
        except ModelError as error:
            raise ModelError(f"{source}: {error}") from error


def _check_schema(metadata: Mapping[str, str]) -> None:
    if _PREFIX + "schema" not in metadata:
        raise ModelError(
            "not an rdlite model: the metadata has no rdlite.schema; "
            "export it with `python -m train export`"
        )
    schema = _parse(metadata, "schema")
    if schema != SCHEMA or isinstance(schema, bool):
        raise ModelError(
            f"rdlite.schema is {_short(schema)} and this release reads {SCHEMA}; "
            "use the rdlite release that wrote the model"
        )
    missing = [_PREFIX + key for key in _KEYS if _PREFIX + key not in metadata]
    if missing:
        raise ModelError(f"the metadata lacks {', '.join(missing)}; export the model again")


def _parse(metadata: Mapping[str, str], key: str) -> Any:
    try:
        return json.loads(metadata[_PREFIX + key])
    except (ValueError, RecursionError) as error:
        raise ModelError(f"metadata entry rdlite.{key} is not valid JSON ({error})") from error


def _input_entry(value: Any) -> tuple[Any, Any]:
    if not isinstance(value, dict):
        raise ModelError(f"input must be an object, got {_short(value)}")
    for key, wanted in _INPUT.items():
        if value.get(key) != wanted:
            raise ModelError(f"input {key} must be {wanted!r}, got {_short(value.get(key))}")
    return value.get("height"), value.get("width")


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not value:
        raise ModelError(f"names must be a non-empty list of class names, got {_short(value)}")
    for name in value:
        if not isinstance(name, str) or not name.strip():
            raise ModelError(f"names must be non-empty strings, got {_short(name)}")
        if re.search("[\ud800-\udfff]", name):
            raise ModelError(f"names must be text that UTF-8 can hold, got {_short(name)}")
    if len(set(value)) != len(value):
        twice = sorted({name for name in value if value.count(name) > 1})
        raise ModelError(f"names must be unique, got {_short(twice)} more than once")
    return tuple(value)


def _category_ids(value: Any, count: int) -> tuple[int, ...]:
    if not isinstance(value, (list, tuple)) or not all(_is_int(item) for item in value):
        raise ModelError(f"category_ids must be a list of integers, got {_short(value)}")
    if len(value) != count:
        raise ModelError(
            f"category_ids must have one id for each of {count} names, got {len(value)}"
        )
    if len(set(value)) != count:
        raise ModelError(f"category_ids must be unique, got {_short(value)}")
    return tuple(value)


def _anchors(value: Any) -> npt.NDArray[np.float32]:
    try:
        given = np.array(value)
    except ValueError:
        raise ModelError("anchors must be rows of 4 numbers, got rows of other lengths") from None
    if given.ndim != 2 or given.shape[1] != 4 or not len(given) or given.dtype.kind not in "fi":
        raise ModelError(
            f"anchors must be rows of 4 numbers, got shape {given.shape} of {given.dtype}"
        )
    with np.errstate(over="ignore"):  # too large becomes infinity, which is refused below
        anchors = given.astype(np.float32)
    if not np.isfinite(anchors).all():
        raise ModelError("anchors must be finite, got NaN or infinity")
    if anchors[:, :2].min() < 0 or anchors[:, :2].max() > 1:
        raise ModelError("anchors must have their centres in [0, 1], got one outside the input")
    if anchors[:, 2:].min() <= 0:
        raise ModelError("anchors must have positive width and height, got one that has not")
    anchors.flags.writeable = False
    return anchors


def _variances(value: Any) -> tuple[float, float]:
    pair = isinstance(value, (list, tuple)) and len(value) == 2
    if not pair or not all(_is_number(item) and 0 < item < 100 for item in value):
        raise ModelError(f"variances must be two positive numbers, got {_short(value)}")
    return float(value[0]), float(value[1])


def _input_size(value: Any) -> tuple[int, int]:
    pair = isinstance(value, (list, tuple)) and len(value) == 2
    if not pair or not all(_is_int(item) and 0 < item <= _MAX_SIDE for item in value):
        raise ModelError(
            f"input height and width must be whole numbers from 1 to {_MAX_SIDE}, "
            f"got {_short(value)}"
        )
    return value[0], value[1]


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
