"""The metadata in a model file: exact round trip, and one sentence for each thing wrong."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from rdlite.errors import ModelError
from rdlite.modelfile import ModelSpec


def spec(**changes: Any) -> ModelSpec:
    values: dict[str, Any] = {
        "names": ("person", "köttbulle"),
        "category_ids": (1, 90),
        "anchors": np.random.default_rng(0).random((50, 4), np.float32) + np.float32(1e-6),
        "variances": (0.1, 0.2),
        "input_size": (320, 256),
        "weights_sha256": "0123456789abcdef" * 4,
        "provenance": {"data": "COCO", "ap": 0.29},
    }
    return ModelSpec(**(values | changes))


def read(metadata: dict[str, str]) -> ModelSpec:
    return ModelSpec.from_metadata(metadata, source="some.onnx")


def test_metadata_round_trip_is_exact() -> None:
    ours = spec()
    again = read(ours.to_metadata())
    assert again.anchors.dtype == np.float32
    np.testing.assert_array_equal(again.anchors, ours.anchors)
    for name in (
        "names",
        "category_ids",
        "variances",
        "input_size",
        "decoder",
        "weights_sha256",
        "provenance",
    ):
        assert getattr(again, name) == getattr(ours, name), name


def test_every_metadata_value_is_json_under_an_rdlite_key() -> None:
    metadata = spec().to_metadata()
    assert all(key.startswith("rdlite.") for key in metadata)
    values = {key.removeprefix("rdlite."): json.loads(text) for key, text in metadata.items()}
    assert values["schema"] == 1
    assert values["names"] == ["person", "köttbulle"]
    assert (values["input"]["height"], values["input"]["width"]) == (320, 256)
    assert values["decode"] == "refinedet"


def test_other_metadata_keys_are_ignored() -> None:
    assert read(spec().to_metadata() | {"author": "someone"}).names == ("person", "köttbulle")


def test_anchors_are_read_only_and_apart_from_the_given_array() -> None:
    given = np.full((3, 4), 0.5, np.float32)
    ours = spec(anchors=given)
    given[:] = 0.1
    assert (ours.anchors == 0.5).all()
    with pytest.raises(ValueError, match="read-only"):
        ours.anchors[0, 0] = 0


def test_a_quantised_network_says_so_in_its_provenance() -> None:
    assert spec().arithmetic == "fp32"
    assert spec(provenance={"quantization": {"activations": "uint8"}}).arithmetic == "int8"


def test_a_file_without_rdlite_metadata_is_not_an_rdlite_model() -> None:
    with pytest.raises(ModelError, match=r"^some\.onnx: not an rdlite model.*train export"):
        read({"names": "{0: 'person'}"})


def test_missing_entries_are_all_named() -> None:
    metadata = spec().to_metadata()
    del metadata["rdlite.anchors"], metadata["rdlite.input"]
    with pytest.raises(ModelError, match=r"some\.onnx: .*lacks rdlite\.anchors, rdlite\.input;"):
        read(metadata)


@pytest.mark.parametrize("schema", ["2", "true", '"1"', "null"])
def test_another_schema_is_refused(schema: str) -> None:
    with pytest.raises(ModelError, match=r"rdlite\.schema is .* and this release reads 1"):
        read(spec().to_metadata() | {"rdlite.schema": schema})


@pytest.mark.parametrize("text", ["{0: 'person'}", "", "[1,", "[" * 100_000, "1" * 5000])
def test_text_that_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match=r"rdlite\.names is not valid JSON"):
        read(spec().to_metadata() | {"rdlite.names": text})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("names", [], "names must be a non-empty list"),
        ("names", {"0": "person"}, "names must be a non-empty list"),
        ("names", ["person", 3], "names must be non-empty strings, got 3"),
        ("names", ["person", " "], "names must be non-empty strings"),
        ("names", ["person", "a\ud800"], "names must be text that UTF-8 can hold"),
        ("names", ["dog", "dog"], r"names must be unique, got \['dog'\]"),
        ("category_ids", "1,90", "category_ids must be a list of integers"),
        ("category_ids", [1, 2.5], "category_ids must be a list of integers"),
        ("category_ids", [1, True], "category_ids must be a list of integers"),
        ("category_ids", [1], "one id for each of 2 names, got 1"),
        ("category_ids", [1, 1], "category_ids must be unique"),
        ("anchors", [], "anchors must be rows of 4 numbers"),
        ("anchors", [[0.5, 0.5, 1]], "anchors must be rows of 4 numbers, got shape"),
        ("anchors", [[0.5] * 4, [0.5] * 3], "got rows of other lengths"),
        ("anchors", [["0.5"] * 4], "anchors must be rows of 4 numbers"),
        ("anchors", [[10**30] * 4], "anchors must be rows of 4 numbers"),
        ("anchors", {"a": 1}, "anchors must be rows of 4 numbers"),
        ("anchors", [[0.5, 0.5, float("nan"), 1]], "anchors must be finite"),
        ("anchors", [[0.5, 0.5, float("inf"), 1]], "anchors must be finite"),
        ("anchors", [[0.5, 0.5, 1e39, 1]], "anchors must be finite"),
        ("anchors", [[1.5, 0.5, 1, 1]], "centres in"),
        ("anchors", [[0.5, -0.1, 1, 1]], "centres in"),
        ("anchors", [[0.5, 0.5, 0, 1]], "positive width and height"),
        ("variances", [0.1], "variances must be two positive numbers"),
        ("variances", [0.1, 0], "variances must be two positive numbers"),
        ("variances", [0.1, float("nan")], "variances must be two positive numbers"),
        ("variances", 0.1, "variances must be two positive numbers"),
        ("input", [320, 320], "input must be an object"),
        ("input", {}, "input name must be 'image', got None"),
        ("decode", "yolo", r"decoder must be one of .*'refinedet'.*, got 'yolo'"),
        ("decode", ["refinedet"], "decoder must be one of"),
        ("weights_sha256", "ABC", "64 lower-case hexadecimal digits, got 'ABC'"),
        ("weights_sha256", 5, "64 lower-case hexadecimal digits, got 5"),
        ("provenance", "COCO", "provenance must be an object, got 'COCO'"),
    ],
)
def test_each_wrong_entry_has_its_own_sentence(key: str, value: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        read(spec().to_metadata() | {f"rdlite.{key}": json.dumps(value)})
    assert str(caught.value).startswith("some.onnx: ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 0}, "whole numbers from 1 to 4096"),
        ({"width": 320.5}, "whole numbers from 1 to 4096"),
        ({"width": 100_000}, "whole numbers from 1 to 4096"),
        ({"height": None}, "whole numbers from 1 to 4096"),
        ({"dtype": "float32"}, "input dtype must be 'uint8', got 'float32'"),
        ({"layout": "NCHW"}, "input layout must be 'NHWC'"),
        ({"color": "RGB"}, "input color must be 'BGR', got 'RGB'"),
    ],
)
def test_each_wrong_input_value_has_its_own_sentence(changes: dict[str, Any], message: str) -> None:
    metadata = spec().to_metadata()
    entry = json.loads(metadata["rdlite.input"]) | changes
    with pytest.raises(ModelError, match=message):
        read(metadata | {"rdlite.input": json.dumps(entry)})


def test_the_exporter_cannot_build_a_spec_that_would_not_load() -> None:
    with pytest.raises(ModelError, match="positive width and height"):
        spec(anchors=np.zeros((3, 4), np.float32))
