from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rdlite.errors import ModelError
from rdlite.evaluate.classnames import match_classes
from rdlite.session import Session
from train.__main__ import main
from train.anchors import ANCHORS_PER_CELL, DEFAULT_SHAPES, AnchorShapes
from train.card import model_card
from train.export import export_onnx
from train.model import RefineDetLite
from train.trained import load_trained
from train.weights import load_weights, write_weights


def network(classes: int, seed: int) -> RefineDetLite:
    torch.manual_seed(seed)
    return RefineDetLite(classes, width=16).eval()


def class_rows(model: RefineDetLite) -> torch.Tensor:
    """The first level's class predictor: (anchors, background and classes, channels)."""
    return model.odm_conf[0].weight.detach().reshape(ANCHORS_PER_CELL, -1, model.head_channels)


def test_every_class_of_voc_begins_from_one_of_the_embedded_model() -> None:
    voc = (
        "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
        "person pottedplant sheep sofa train tvmonitor"
    ).split()
    names = Session().spec.names
    rows = match_classes(voc, names)
    assert None not in rows and len(set(rows)) == 20
    assert names[rows[voc.index("tvmonitor")]] == "tv"


def test_known_classes_begin_from_their_row_and_new_ones_are_drawn_like_them(
    tmp_path: Path,
) -> None:
    source = network(3, seed=0)
    with torch.no_grad():  # rows unlike each other
        for name, value in source.named_parameters():
            if name.startswith("odm_conf"):
                value.normal_(std=0.05)
    path = tmp_path / "source.onnx"
    export_onnx(
        source, path, names=["cat", "dog", "bus"], category_ids=[1, 2, 3], provenance={}, half=False
    )
    model = network(2, seed=1)
    loaded = load_weights(model, path, names=["gizmo", "Bus"])

    assert (loaded.classes, loaded.new) == (1, ("gizmo",))
    assert "1 classes begin" in str(loaded) and "gizmo" in str(loaded)
    before, after = class_rows(source), class_rows(model)
    assert torch.equal(after[:, 0], before[:, 0])  # background
    assert torch.equal(after[:, 2], before[:, 3])
    drawn = (after[:, 1] - before[:, 1:].mean(dim=1)) / before[:, 1:].std(dim=1, unbiased=False)
    assert abs(drawn.mean()) < 0.1 and drawn.std() == pytest.approx(1, abs=0.1)
    assert torch.equal(model.arm_loc[0].weight, source.arm_loc[0].weight)


def test_a_backbone_file_fills_the_backbone_and_nothing_else(tmp_path: Path) -> None:
    source, model, untouched = network(3, seed=0), network(2, seed=1), network(2, seed=1)
    path = tmp_path / "backbone.safetensors"
    state = source.state_dict()
    save_file({k: v for k, v in state.items() if k.startswith("backbone.")}, path)
    loaded = load_weights(model, path, names=["a", "b"])
    assert loaded.backbone_only and "all else starts at random" in str(loaded)
    x = torch.rand(1, 3, 96, 96) * 255
    with torch.no_grad():
        for ours, theirs in zip(model.backbone(x), source.backbone(x), strict=True):
            assert torch.equal(ours, theirs)
    assert torch.equal(model.odm_conf[0].weight, untouched.odm_conf[0].weight)


def test_rows_without_names_are_refused_when_their_number_differs(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_weights(network(3, seed=0), path)
    assert load_weights(network(3, seed=1), path, names=["a", "b", "c"]).classes == 3
    with pytest.raises(ModelError, match="3 classes without names, the data has 2"):
        load_weights(network(2, seed=1), path, names=["a", "b"])


def test_a_model_of_one_class_can_start_one_of_others(tmp_path: Path) -> None:
    path = tmp_path / "dog.onnx"
    source = network(1, seed=0)
    export_onnx(source, path, names=["dog"], category_ids=[1], provenance={}, half=False)
    model = network(2, seed=1)
    assert load_weights(model, path, names=["red", "green"]).new == ("red", "green")
    rows = class_rows(model)
    assert torch.isfinite(rows).all() and not torch.equal(rows[:, 1], rows[:, 2])


def test_the_average_of_two_networks_is_their_weighted_mean(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{name}.safetensors") for name in ("a", "b", "mean")]
    a, b = network(2, seed=0), network(2, seed=1)
    for model, path in zip((a, b), paths, strict=False):
        write_weights(model, path)
    assert main(["average", *paths[:2], "--shares", "0.75,0.25", "-o", paths[2]]) == 0
    mean = network(2, seed=2)
    load_weights(mean, paths[2])
    wanted = 0.75 * a.odm_conf[0].weight + 0.25 * b.odm_conf[0].weight
    torch.testing.assert_close(mean.odm_conf[0].weight, wanted)


@pytest.mark.parametrize("shares", ["0.5", "0.5,0.6", "a,b"])
def test_shares_that_do_not_make_a_mean_are_refused(
    tmp_path: Path, shares: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "a.safetensors")
    write_weights(network(2, seed=0), path)
    assert main(["average", path, path, "--shares", shares, "-o", path]) == 1
    assert "shares must" in capsys.readouterr().err


def test_networks_of_different_classes_have_no_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(tmp_path / f"{k}.safetensors") for k in (2, 3)]
    for k, path in zip((2, 3), paths, strict=True):
        write_weights(network(k, seed=0), path)
    assert main(["average", *paths, "--shares", "0.5,0.5", "-o", paths[0]]) == 1
    assert "another architecture or classes" in capsys.readouterr().err


def test_networks_of_different_anchors_have_no_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(tmp_path / f"{name}.onnx") for name in ("a", "b")]
    shapes = (DEFAULT_SHAPES, AnchorShapes.parse("20,40,80,160,300", "0.25,1,4"))
    for path, own in zip(paths, shapes, strict=True):
        export_onnx(
            network(2, seed=0),
            path,
            names=["a", "b"],
            category_ids=[1, 2],
            provenance={},
            half=False,
            shapes=own,
        )
    out = str(tmp_path / "mean.safetensors")
    assert main(["average", *paths, "--shares", "0.5,0.5", "-o", out]) == 1
    assert "has other anchors" in capsys.readouterr().err
    assert not Path(out).exists()


def test_a_mean_says_of_which_networks_it_is(tmp_path: Path) -> None:
    shapes = AnchorShapes.parse("20,40,80,160,300", "0.25,1,4")
    facts = ({"steps": 8, "note": "old"}, {"steps": 9, "results": {}})
    rates = (0.1, 0.2)
    for name, told, rate in zip("ab", facts, rates, strict=True):
        export_onnx(
            network(2, seed=0),
            tmp_path / f"{name}.onnx",
            names=["cat", "dog"],
            category_ids=[17, 18],
            provenance=told | {"recipe": {"batch": 4, "lr": rate}},
            half=False,
            shapes=shapes,
        )
    write_weights(network(2, seed=0), tmp_path / "c.safetensors")
    a, b, c, ab, abc = (
        str(tmp_path / name)
        for name in ("a.onnx", "b.onnx", "c.safetensors", "ab.safetensors", "abc.safetensors")
    )
    assert main(["average", a, b, "--shares", "0.75,0.25", "-o", ab]) == 0
    trained = load_trained(ab)
    assert (trained.names, trained.category_ids) == (["cat", "dog"], [17, 18])
    assert trained.shapes == shapes and trained.resolution == 320
    assert trained.provenance == {
        "recipe": {"batch": 4},
        "mean": [
            {"source": "a.onnx", "share": 0.75, "steps": 8, "recipe": {"lr": 0.1}},
            {"source": "b.onnx", "share": 0.25, "steps": 9, "recipe": {"lr": 0.2}},
        ],
    }
    assert main(["average", c, ab, "--shares", "0.2,0.8", "-o", abc]) == 0
    assert load_trained(abc).provenance == {
        "recipe": {},
        "mean": [
            {"source": "c.safetensors", "share": 0.2, "recipe": {}},
            {
                "source": "a.onnx",
                "share": 0.8 * 0.75,
                "steps": 8,
                "recipe": {"batch": 4, "lr": 0.1},
            },
            {
                "source": "b.onnx",
                "share": 0.8 * 0.25,
                "steps": 9,
                "recipe": {"batch": 4, "lr": 0.2},
            },
        ],
    }


def test_the_card_of_a_mean_tells_its_parts(tmp_path: Path) -> None:
    runs = {"source": "x/checkpoint.pt", "share": 0.5, "steps": 8, "recipe": {"lr": 0.1}}
    provenance = {"recipe": {"batch": 4}, "mean": [runs, runs | {"share": 1 / 3}]}
    card = model_card(Path("m.onnx"), provenance, {}, difference=0.0, curves=None, nms="hard")
    assert "| 0.5 of x/checkpoint.pt | steps 8, lr 0.1 |\n" in card
    assert "| 0.3333 of x/checkpoint.pt | steps 8, lr 0.1 |\n| batch | 4 |\n" in card


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("text.pt", "text.pt cannot be read"),
        ("module.pt", "module.pt cannot be read"),
        ("foreign.pt", "foreign.pt is no checkpoint of `python -m train fit`"),
        ("text.safetensors", "text.safetensors cannot be read"),
        ("about.safetensors", "about.safetensors cannot be read"),
    ],
)
def test_weights_that_are_damaged_or_of_others_are_one_sentence(
    tmp_path: Path, name: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    path.write_text("these are no weights " * 20)
    if name == "module.pt":
        torch.save(torch.nn.Linear(2, 2), path)
    elif name == "foreign.pt":
        torch.save({"ema": {}, "model": {}}, path)
    elif name == "about.safetensors":
        save_file({"a": torch.zeros(1)}, path, metadata={"rdlite": "{"})
    assert main(["export", str(path), "-o", str(tmp_path / "new.onnx")]) == 1
    error = capsys.readouterr().err
    assert reason in error and error.count("\n") == 1
