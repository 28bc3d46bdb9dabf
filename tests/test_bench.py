from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdlite import Detector, OptionError, registry
from rdlite.bench import STAGES, bench, synthetic_image
from rdlite.cli import bench as cli_bench
from rdlite.cli.bench import advice
from tests.command import Printed, cli
from tests.conftest import ModelWriter, Ship


def test_the_stages_make_up_the_whole(tiny_model: Path) -> None:
    detectors = [Detector(tiny_model), Detector(tiny_model, conf=0.9)]
    results = bench(detectors, synthetic_image(), runs=20, warmup=2)
    assert len(results) == len(detectors)
    for result in results:
        parts = sum(result.median[stage] for stage in STAGES if stage != "whole")
        assert 0 < parts <= result.median["whole"] * 1.5
        assert all(result.median[stage] <= result.p90[stage] for stage in STAGES)
        assert result.images_per_second == pytest.approx(1e3 / result.median["whole"])


def test_detectors_take_turns(tiny_model: Path) -> None:
    order = []

    class Watched(Detector):
        def __call__(self, image: Any, **options: Any) -> Any:
            order.append(self.options["conf"])
            return super().__call__(image, **options)

    bench([Watched(tiny_model, conf=c) for c in (0.1, 0.2)], synthetic_image(), runs=2, warmup=1)
    assert order == [0.1, 0.2] * 3


def test_the_synthetic_image_is_always_the_same() -> None:
    assert np.array_equal(synthetic_image(64, 48), synthetic_image(64, 48))
    assert synthetic_image(64, 48).shape == (48, 64, 3)


def test_no_runs_are_refused(tiny_model: Path) -> None:
    with pytest.raises(OptionError, match="runs"):
        bench([Detector(tiny_model)], synthetic_image(), runs=0)


def test_models_stand_side_by_side(
    tiny_model: Path, write_model: ModelWriter, capsys: Printed
) -> None:
    other = write_model(provenance={"quantization": "made up"})
    arguments = ("bench", "--runs", 3, "--model", tiny_model, other)
    assert cli(*arguments) == 0
    printed = capsys.readouterr().out
    assert all(stage in printed for stage in STAGES)
    rows = [line for line in printed.splitlines() if line.startswith(str(tiny_model.parent.parent))]
    assert [line.split()[:2] for line in rows[:2]] == [
        [str(tiny_model), "fp32"],
        [str(other), "int8"],
    ]
    assert cli(*arguments, "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["runs"], content["width"], content["threads"]) == (3, 1280, 1)
    assert content["cpu"] and content["onnxruntime"] and content["rdlite"]
    assert [row["arithmetic"] for row in content["models"]] == ["fp32", "int8"]
    assert content["advice"]


def test_all_the_models_that_have_a_name(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    (tmp_path / "mine.onnx").write_bytes(tiny_model.read_bytes())
    monkeypatch.setenv("RDLITE_MODELS", str(tmp_path))
    assert cli("bench", "--all", "--runs", 1, "--json") == 0
    names = [row["model"] for row in json.loads(capsys.readouterr().out)["models"]]
    assert "mine" in names and len(names) > 1
    assert cli("bench", "--all", "--model", "mine") == 1
    assert "--all" in capsys.readouterr().err


def test_all_goes_on_without_the_models_that_cannot_be_opened(
    ship: Ship, own_models: Path, tiny_model: Path, capsys: Printed
) -> None:
    ship(tiny_model, "small", "default")
    (own_models / "bad.onnx").write_text("this is no model")
    (own_models / "dir.onnx").mkdir()
    assert cli("bench", "--all", "--runs", 1, "--json") == 3
    printed = capsys.readouterr()
    assert [row["model"] for row in json.loads(printed.out)["models"]] == ["small"]
    bad, folder = printed.err.splitlines()
    assert "bad.onnx: is not an ONNX file" in bad and "dir.onnx: is a directory" in folder
    assert cli("bench", "--runs", 1, "--model", "small", "bad") == 1
    (registry.DATA / "small.onnx").write_text("damaged")
    capsys.readouterr()
    assert cli("bench", "--all", "--runs", 1) == 1
    printed = capsys.readouterr()
    assert "none of the models" in printed.err.splitlines()[-1] and not printed.out
    assert printed.err.count("\n") == 4


def test_models_may_be_named_one_by_one(
    ship: Ship, tiny_model: Path, write_model: ModelWriter, capsys: Printed
) -> None:
    ship(tiny_model, "small", "default")
    other = write_model()
    names = ["default", str(tiny_model), str(other)]
    arguments = ("--model", names[0], names[1], "--runs", 1, "--model", names[2], "--json")
    assert cli("bench", *arguments) == 0
    assert [row["model"] for row in json.loads(capsys.readouterr().out)["models"]] == names


def test_a_model_that_is_named_twice_is_refused(
    ship: Ship, tiny_model: Path, tmp_path: Path, capsys: Printed
) -> None:
    path = ship(tiny_model, "small", "default")
    link = tmp_path / "link.onnx"
    link.symlink_to(path)
    for twin in ("default", "small", path, link):
        assert cli("bench", "--runs", 1, "--model", "default", twin) == 1
        error = capsys.readouterr().err
        assert f"{path} twice, as 'default' and {str(twin)!r}" in error and error.count("\n") == 1


def test_json_has_every_option_that_the_times_depend_on(tiny_model: Path, capsys: Printed) -> None:
    options = {"conf": 0.4, "iou": 0.6, "nms": "hard", "max_det": 7, "threads": 2}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    arguments = ("--model", tiny_model, "--runs", 1, "--json", "--classes", "person", *flags)
    assert cli("bench", *arguments) == 0
    content = json.loads(capsys.readouterr().out)
    assert {name: content[name] for name in options} == options
    assert content["classes"] == ["person"]


@pytest.mark.parametrize(("features", "recommended"), [(("avx_vnni",), True), ((), False)])
def test_the_advice_follows_the_cpu(
    features: tuple[str, ...],
    recommended: bool,
    write_model: ModelWriter,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Printed,
) -> None:
    monkeypatch.setattr(cli_bench, "int8_instructions", lambda: features)
    path = write_model(provenance={"quantization": {}})
    assert cli("bench", "--model", path, "--runs", 1, "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["int8_instructions"] == list(features)
    assert ("use fp32 models" in content["advice"]) != recommended


def row(model: str, ms: float, weights: str = "a") -> dict[str, Any]:
    arithmetic = "int8" if "int8" in model else "fp32"
    times = {"whole": ms}
    return {
        "model": model,
        "arithmetic": arithmetic,
        "weights_sha256": weights,
        "median_ms": times,
    }


CARD = ", and see its model card for the AP of both"


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ([row("default", 20)], []),
        ([row("int8", 20)], []),
        (
            [row("default", 20), row("int8", 8)],
            [f"int8 is 2.5 times as fast here as default, {{}}: use int8{CARD}"],
        ),
        (
            [row("default", 10), row("int8", 12)],
            ["default is 1.2 times as fast here as int8, {}: use default"],
        ),
        (
            [row("int8", 19), row("default", 20)],
            ["default and int8 have the same weights and are equally fast here: use default"],
        ),
        (
            [row("int8", 19), row("int8-b", 20)],
            ["int8 and int8-b have the same weights and are equally fast here: use either"],
        ),
        (
            [row("copy", 40), row("default", 20)],
            ["default is 2.0 times as fast here as copy, {}: use default"],
        ),
        (
            [row("default", 20), row("copy", 20), row("int8", 10)],
            [
                f"int8 is 2.0 times as fast here as default, {{}}: use int8{CARD}",
                f"int8 is 2.0 times as fast here as copy, {{}}: use int8{CARD}",
            ],
        ),
        (
            [row("default", 20), row("small", 19, "b"), row("small-int8", 9.5, "b")],
            [
                f"small-int8 is 2.0 times as fast here as small, {{}}: use small-int8{CARD}",
                "small-int8 is 2.1 times as fast as default and has other weights: "
                "compare what they find with rdlite eval",
            ],
        ),
        (
            [row("default", 20), row("int8", 8), row("small", 4, "b")],
            [
                f"int8 is 2.5 times as fast here as default, {{}}: use int8{CARD}",
                "small is 2.0 times as fast as int8 and has other weights: "
                "compare what they find with rdlite eval",
            ],
        ),
        ([row("default", 20), row("large", 40, "b")], []),
    ],
)
def test_what_to_use(rows: list[dict[str, Any]], wanted: list[str]) -> None:
    same = "which has the same weights"
    assert advice(rows, int8=True) == "; ".join(text.format(same) for text in wanted)


@pytest.mark.parametrize("ms", [1, 20, 100])
def test_int8_is_never_advised_without_int8_instructions(ms: float) -> None:
    rows = [row("default", 20), row("int8", ms), row("small-int8", ms, "b")]
    found = advice(rows, int8=False)
    assert found.startswith("no int8 dot products are known of this CPU")
    assert "use fp32 models, whatever the times" in found and "times as fast" not in found
    assert advice(rows[1:], int8=False) == found
    assert advice(rows[:1], int8=False) == ""
    assert "small is 4.0 times as fast as default" in advice(
        [*rows, row("small", 5, "b")], int8=False
    )
