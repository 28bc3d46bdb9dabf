"""What rdlite writes is what docs/schemas says: all of it, and nothing that is not there."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdlite import registry
from rdlite.convert import convert
from rdlite.detector import Detector
from rdlite.sinks import open_sink
from rdlite.sinks.base import to_line
from rdlite.storage.journal import dump_line
from tests.command import Printed, cli, lines
from tests.media import clip
from tests.samples import detections, found, header

jsonschema = pytest.importorskip("jsonschema")

SCHEMAS = Path(__file__).parents[1] / "docs" / "schemas"
NAMES = sorted(path.name.removesuffix(".schema.json") for path in SCHEMAS.glob("*.json"))


def schema(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
    return content


def closed(value: Any) -> Any:
    """The schema with no room for keys that it does not name."""
    if isinstance(value, list):
        return [closed(one) for one in value]
    if not isinstance(value, dict):
        return value
    inside = {key: closed(one) for key, one in value.items()}
    return ({"additionalProperties": False} | inside) if "properties" in value else inside


def check(name: str, value: Any) -> None:
    """Fails unless the schema describes all of a value."""
    jsonschema.Draft202012Validator(closed(schema(name))).validate(value)


def refused(name: str, value: Any) -> bool:
    return not jsonschema.Draft202012Validator(schema(name)).is_valid(value)


def check_results(path: Path) -> None:
    first, *others = lines(path)
    check("results-header", first)
    assert others
    for line in others:
        check("results-line", line)


@pytest.mark.parametrize("name", NAMES)
def test_each_is_a_schema_of_its_own_name_that_explains_every_key(name: str) -> None:
    content = schema(name)
    jsonschema.Draft202012Validator.check_schema(content)
    assert content["$id"].startswith(f"urn:rdlite:schema:{name}:")

    def explained(part: Any) -> bool:
        if isinstance(part, list):
            return all(map(explained, part))
        if not isinstance(part, dict):
            return True
        keys = part.get("properties", {}).values()
        return all(key.get("description") for key in keys) and all(map(explained, part.values()))

    assert explained({key: value for key, value in content.items() if key != "required"})


def test_detections_and_failures_of_images_and_videos(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    clip(tmp_path / "clip.mp4", 5)
    out = tmp_path / "out"
    arguments = (photos, tmp_path / "clip.mp4", "-o", out, "--model", tiny_model, "--json")
    assert cli("detect", *arguments, "--classes", "person,2", "--stride", 2) == 3
    check("summary", json.loads(capsys.readouterr().out))
    check_results(out / "detections.jsonl")
    check_results(out / "clip.jsonl")
    for line in lines(out / "errors.jsonl"):
        check("errors-line", line)
    assert cli("detect", *arguments, "--classes", "person,2", "--stride", 2, "--resume") == 3
    resumed = json.loads(capsys.readouterr().out)
    check("summary", resumed)
    assert resumed["earlier"] == 3


def test_detections_on_standard_output(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    clip(tmp_path / "clip.mp4", 3)
    assert (
        cli("detect", photos / "a.png", tmp_path / "clip.mp4", "-o", "-", "--model", tiny_model)
        == 0
    )
    (tmp_path / "printed.jsonl").write_text(capsys.readouterr().out)
    check_results(tmp_path / "printed.jsonl")


def test_results_of_several_models_that_were_joined(tmp_path: Path) -> None:
    files = [tmp_path / f"{sha256}.jsonl" for sha256 in ("ab" * 32, "cd" * 32)]
    for file in files:
        with open_sink("jsonl", file, header=header() | {"model_sha256": file.stem}) as sink:
            sink.write(found(), image=f"{file.stem}.jpg")
    convert(files, "jsonl", tmp_path / "joined.jsonl")
    check_results(tmp_path / "joined.jsonl")


def test_an_annotated_video(tiny_model: Path, tmp_path: Path, capsys: Printed) -> None:
    source = clip(tmp_path / "clip.mp4", 4, subtitles=True)
    assert cli("annotate", source, "-o", tmp_path / "out.mp4", "--model", tiny_model, "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    check("summary", summary)
    assert summary["videos"][0]["streams_dropped"] == {"subtitle": 1}
    check_results(tmp_path / "out.jsonl")


def test_a_measurement(
    squares: np.ndarray, tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    pytest.importorskip("faster_coco_eval")
    cv2.imwrite(str(tmp_path / "a.png"), squares)
    names = ("a.png", "missing.png")
    images = [{"id": n, "file_name": f, "width": 96, "height": 64} for n, f in enumerate(names, 1)]
    box = {"image_id": 1, "bbox": [16, 16, 16, 16], "area": 256, "iscrowd": 0}
    content = {
        "images": images,
        "annotations": [{"id": k, "category_id": k, **box} for k in (1, 2)],
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "unicorn"}],
    }
    (tmp_path / "dev.json").write_text(json.dumps(content))
    arguments = (tmp_path / "dev.json", tmp_path, "--model", tiny_model, "--json")
    assert cli("eval", *arguments) == 3
    result = json.loads(capsys.readouterr().out)
    check("eval", result)
    (measured,) = result["evaluations"]
    assert measured["ap_large"] is None and measured["unknown_classes"] == ["unicorn"]
    found = tmp_path / "found.json"
    found.write_text(json.dumps([{**box, "category_id": 1, "score": 0.5}]))
    assert cli("eval", *arguments, "--compare", found) == 3
    result = json.loads(capsys.readouterr().out)
    check("eval", result)
    assert [one["second"] for one in result["comparisons"]] == [str(found)]


def test_the_findings_of_check(capsys: Printed) -> None:
    cli("check", "--json")
    check("check", json.loads(capsys.readouterr().out))


def test_the_table_of_models() -> None:
    check("models", json.loads((registry.DATA / registry.TABLE).read_text()))


@given(detections(), st.text() | st.none(), st.integers(0, 10**9), st.none() | st.floats(0, 1e7))
def test_whatever_is_found(value: Any, image: str | None, frame: int, time: float | None) -> None:
    for line in (
        to_line(value, image=image),
        to_line(value, image=image, place="a/b.jpg"),
        to_line(value, frame=frame, pts=frame, time=time),
    ):
        check("results-line", json.loads(dump_line(line)))


def test_a_detector_s_options(tiny_model: Path) -> None:
    for classes in (None, "person", 1, ["person", 1]):
        options = Detector(tiny_model, classes=classes).options
        check("results-header", json.loads(dump_line(header(options=options))))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("results-header", header()),
        ("results-line", to_line(found(), frame=0, pts=0, time=0.0)),
        ("errors-line", {"input": "a", "error": "b"}),
    ],
)
def test_what_lacks_a_key_is_refused_and_what_has_another_is_not(name: str, value: Any) -> None:
    value = json.loads(dump_line(value))
    assert not refused(name, value | {"of a later version": 1})
    for key in value:
        less = copy.deepcopy(value)
        del less[key]
        assert refused(name, less), key
    if name == "results-line":
        for key in value["detections"][0]:
            less = copy.deepcopy(value)
            del less["detections"][0][key]
            assert refused(name, less), key
