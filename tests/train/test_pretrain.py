from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rdlite.errors import ModelError, OptionError, RdliteError
from rdlite.evaluate.dataset import DataError
from train.__main__ import main
from train.checkpoint import load_checkpoint
from train.classify_data import CROP_AREA, CROP_ASPECT, crop_window, open_classes, random_view
from train.model import RefineDetLite
from train.optim import NonFiniteLossError
from train.pretrain import Pretrainer
from train.pretrain_config import PretrainConfig
from train.weights import load_weights

COLOURS = {"green": (40, 220, 40), "red": (40, 40, 220)}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 noisy pictures of each of two colours, in folders of that name."""
    folder, rng = tmp_path_factory.mktemp("classes"), np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name / "deeper").mkdir(parents=True)
        for i in range(16):
            noise = rng.integers(-30, 31, (48, 56, 3))
            picture = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / name / ("deeper" if i % 2 else "") / f"{i}.png"), picture)
    return folder


@pytest.fixture
def colours(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "colours"))


@pytest.fixture
def settings(colours: Path, quick: Callable[..., Any]) -> Callable[..., PretrainConfig]:
    return quick(PretrainConfig, images=str(colours), holdout=0.25, resolution="32")


def opened(colours: Path, tmp_path: Path, **options: object):
    return open_classes(colours, cache=tmp_path / "cache", max_side=64, **options)


def test_two_colours_are_learned_and_the_command_leaves_every_result(
    settings, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings("run", epochs=16, resolution="32:0.5,48:1", ema=0.9)
    given = {k.replace("_", "-"): v for k, v in config.to_dict().items() if v is not None}
    assert main(["pretrain", *(f"--{k}={v}" for k, v in given.items())]) == 0
    out = Path(config.out)
    assert json.loads((out / "results.json").read_text()) == {
        "top1": 1.0,
        "top5": 1.0,
        "images": 8,
    }
    text = capsys.readouterr()
    assert "24 images of 2 classes, 8 to measure accuracy on" in text.out + text.err
    assert "top-1 100.0 %" in text.out + text.err
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    trained = [row for row in rows if "loss" in row]
    assert [row["step"] for row in trained] == [20, 40, 48]
    assert [row["resolution"] for row in trained] == [32, 48, 48]
    assert rows[-1]["step"] == 48 and rows[-1]["val_top1"] == 1.0
    assert trained[0].keys() >= {"top1", "lr", "img_s", "loader_wait"}
    assert list(out.glob("events.out.tfevents.*"))


def test_the_backbone_file_fits_the_detector_and_gives_the_same_features(settings) -> None:
    trainer = Pretrainer(settings("run", epochs=1))
    trainer.fit()
    weights = load_file(trainer.out / "backbone.safetensors")
    assert all(name.startswith("backbone.") for name in weights)
    detector = RefineDetLite(3, width=16).to(memory_format=torch.channels_last)
    assert load_weights(detector, trainer.out / "backbone.safetensors").backbone_only
    image = 255 * torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        ours = trainer.ema.module.backbone.eval()(image)
        theirs = detector.backbone.eval()(image)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_resumed_run_is_bit_equal_to_an_uninterrupted_one(
    settings, break_off, precision: str
) -> None:
    whole = Pretrainer(settings("whole", precision=precision))
    whole.fit()
    break_off(Pretrainer(settings("parts", precision=precision, save_every=5)))
    second = Pretrainer(settings("parts", precision=precision, workers=1))
    assert second.step == 5
    second.fit()

    a, b = load_checkpoint(whole.out), load_checkpoint(second.out)
    assert a["step"] == b["step"] == 12
    for part in ("objective", "ema"):
        assert all(torch.equal(a[part][k], b[part][k]) for k in a[part])
    assert not torch.equal(a["objective"]["classifier.weight"], a["ema"]["classifier.weight"])


def test_two_processes_learn_what_one_learns_from_the_whole_batch(settings, launch) -> None:
    same = {"precision": "fp32", "optimizer": "sgd", "lr": 1e-2, "warmup": 0, "epochs": 0.3}
    one, two = settings("one", **same), settings("two", **same)
    before = Pretrainer(settings("before", **same)).model.state_dict()
    launch("pretrain", one, processes=1)
    launch("pretrain", two, processes=2)
    alone, together = load_checkpoint(one.out), load_checkpoint(two.out)
    assert alone["step"] == together["step"] == 1
    for name, value in alone["objective"].items():
        moved = (value.float() - before[name].float()).norm()
        difference = (together["objective"][name].float() - value.float()).norm()
        assert difference <= 0.1 * moved + 1e-6, name
    assert json.loads((Path(two.out) / "results.json").read_text())["images"] == 8


def test_a_finished_run_is_not_trained_again(settings) -> None:
    first = Pretrainer(settings("run", epochs=1))
    result = first.fit()
    again = Pretrainer(settings("run", epochs=1))
    assert again.fit() == result
    assert again.step == first.step == 3
    assert len(again.history) == len(first.history)


def test_a_run_goes_on_with_the_settings_it_had_and_as_no_other_kind_of_run(
    settings, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings("run", epochs=1)
    Pretrainer(config).fit()
    assert main(["pretrain", "--out", config.out]) == 0
    assert "is at the end of its schedule" in capsys.readouterr().out
    assert main(["pretrain", "--out", config.out, "--epochs", "2"]) == 1
    assert "epochs: 1 there, 2.0 here" in capsys.readouterr().err
    assert main(["fit", "--out", config.out]) == 1
    assert "holds a run of another kind, with label_smoothing" in capsys.readouterr().err
    assert main(["pretrain", "--out", f"{config.out}-other"]) == 1
    assert "images is missing; give --images" in capsys.readouterr().err


def test_other_settings_or_other_images_are_refused(settings, colours: Path) -> None:
    Pretrainer(settings("run", epochs=1)).fit()
    with pytest.raises(OptionError, match=r"label_smoothing: 0.1 there, 0.2 here"):
        Pretrainer(settings("run", epochs=1, label_smoothing=0.2))
    (colours / "red" / "0.png").rename(colours / "green" / "more.png")
    with pytest.raises(OptionError, match="is not the data that the run in"):
        Pretrainer(settings("run", epochs=1))


@pytest.mark.parametrize("file", ["backbone.safetensors", "checkpoint.pt"])
def test_a_run_starts_from_another_one_s_backbone(settings, file: str) -> None:
    first = Pretrainer(settings("first", epochs=1))
    first.fit()
    second = Pretrainer(settings("second", init=str(first.out / file)))
    expected = load_file(first.out / "backbone.safetensors")
    state = second.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in expected.items())
    with pytest.raises(ModelError, match=r"does not fit this backbone: \d+ .* check width"):
        Pretrainer(settings("third", width=32, init=str(first.out / file)))


def test_labels_are_smoothed_over_all_classes(settings) -> None:
    trainer = Pretrainer(settings("run", label_smoothing=0.5, warmup=0))
    torch.nn.init.zeros_(trainer.model.classifier.weight)
    trainer.model.classifier.bias.data = torch.tensor([0.0, 2.0])
    targets = [{"labels": torch.tensor([label])} for label in (0, 1)]
    images = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    loss = trainer.train_step({"images": images, "targets": targets})["loss"]
    # Softmax of (0, 2): 0.1192 and 0.8808; labels (0.75, 0.25) and (0.25, 0.75).
    # -0.75 ln 0.1192 - 0.25 ln 0.8808 = 1.6269 and -0.25 ln 0.1192 - 0.75 ln 0.8808 = 0.6269.
    assert loss == pytest.approx((1.6269 + 0.6269) / 2, abs=2e-4)


def test_top_1_and_top_5_count_the_right_class_among_the_best(
    made: Path, settings, tmp_path: Path
) -> None:
    folder = tmp_path / "seven"
    for name in "abcdefg":
        shutil.copytree(made / "red", folder / name)
    trainer = Pretrainer(settings("run", images=str(folder)))
    classifier = trainer.ema.module.classifier
    torch.nn.init.zeros_(classifier.weight)
    classifier.bias.data = torch.arange(7.0)  # g is always first, c to g are in five
    accuracy = trainer.measure()
    assert accuracy == {"val_top1": pytest.approx(1 / 7), "val_top5": pytest.approx(5 / 7)}


def test_a_loss_that_is_not_finite_stops_the_run_and_says_how_to_go_on(settings) -> None:
    trainer = Pretrainer(settings("run"))
    torch.nn.init.constant_(trainer.model.classifier.bias, float("nan"))
    with pytest.raises(
        NonFiniteLossError, match=r"the loss is not finite .*no checkpoint yet; begin a new"
    ):
        trainer.fit()


def test_accuracy_is_measured_on_a_folder_whose_classes_are_matched_by_name(
    settings, made: Path, tmp_path: Path
) -> None:
    val = tmp_path / "val"
    shutil.copytree(made / "red", val / "red")
    trainer = Pretrainer(settings("run", val=str(val)))
    assert len(trainer.dataset) == 32 and len(trainer.val) == 16
    assert set(trainer.val.labels.tolist()) == {1}  # red, after green
    shutil.copytree(made / "red", val / "blue")
    with pytest.raises(DataError, match=r"1 classes that the training images lack \(blue\)"):
        Pretrainer(settings("other", val=str(val)))


def test_every_class_keeps_an_image_to_learn_from(colours: Path, tmp_path: Path) -> None:
    for path in sorted((colours / "red").rglob("*.png"))[1:]:
        path.unlink()
    train, val = opened(colours, tmp_path).split(0.99)
    assert sorted(train.labels.tolist()) == [0, 1] and len(val) == 15
    assert not set(train.files) & set(val.files)


def test_what_is_left_out_is_counted_and_named(colours: Path, tmp_path: Path) -> None:
    (colours / "red" / "0.png").write_bytes(b"no picture")
    (colours / "red" / "notes.txt").touch()
    (colours / "stray.png").touch()
    (colours / "empty").mkdir()
    (colours / ".hidden").mkdir()
    dataset = opened(colours, tmp_path)
    assert len(dataset) == 31 and dataset.names == ("green", "red")
    report = "\n".join(dataset.report)
    assert "2 files passed over for their place or ending: 1 .png, 1 .txt" in report
    assert "1 classes without a readable image left out: empty" in report
    assert "1 unreadable images left out" in report and "red/0.png: " in report


def test_a_folder_without_two_classes_of_images_is_refused(colours: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere is no folder; give a folder of class/image"):
        opened(tmp_path / "nowhere", tmp_path)
    with pytest.raises(DataError, match="has no class folders"):
        opened(colours / "red" / "deeper", tmp_path)
    (tmp_path / "bare" / "a").mkdir(parents=True)
    with pytest.raises(DataError, match="1 class folders but no images in them"):
        opened(tmp_path / "bare", tmp_path)
    (tmp_path / "bare" / "a" / "0.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"none of the 1 images can be read; .*a/0.png"):
        opened(tmp_path / "bare", tmp_path)
    shutil.rmtree(colours / "green")
    with pytest.raises(DataError, match="images of one class only, red; give two"):
        opened(colours, tmp_path)


@pytest.mark.parametrize(
    ("option", "error"),
    [("out", "is no folder to write to"), ("cache", "the cache folder .* cannot be made")],
)
def test_a_file_in_place_of_a_folder_to_write_is_refused(
    settings, colours: Path, option: str, error: str
) -> None:
    file = colours / "red" / "0.png"
    with pytest.raises(RdliteError, match=error):
        Pretrainer(settings("run", **{option: str(file)}))


def test_a_set_below_one_batch_is_refused(settings) -> None:
    with pytest.raises(DataError, match="24 readable images, fewer than one batch of 25"):
        Pretrainer(settings("run", batch=25))


def test_a_view_is_a_pure_function_of_its_random_numbers() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    before = image.copy()
    views = [random_view(image, resolution=32, rng=np.random.default_rng(s)) for s in (1, 1, 2)]
    assert views[0].shape == (32, 32, 3) and views[0].dtype == np.uint8
    assert np.array_equal(views[0], views[1]) and not np.array_equal(views[0], views[2])
    assert np.array_equal(image, before)


def test_crops_lie_in_the_image_and_keep_to_their_area_and_shape() -> None:
    rng = np.random.default_rng(0)
    crops = np.array([crop_window(200, 160, rng) for _ in range(300)])
    assert (crops[:, :2] >= 0).all() and (crops[:, 2:] <= (200, 160)).all()
    sides = crops[:, 2:] - crops[:, :2]
    share, aspect = sides.prod(axis=1) / (200 * 160), sides[:, 0] / sides[:, 1]
    drawn = share < 1
    assert share.min() > 0.98 * CROP_AREA[0] and share.std() > 0.1
    assert aspect[drawn].min() > 0.98 * CROP_ASPECT[0]
    assert aspect[drawn].max() < 1.02 * CROP_ASPECT[1]
    # No crop of the least area and these shapes fits into a strip: it is taken whole.
    assert crop_window(100, 2, rng) == (0, 0, 100, 2)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"resolution": "16"}, "multiples of 16 from 32 on"),
        ({"resolution": "64:0.5,96"}, None),
        ({"resolution": "large"}, "resolution must look like"),
        ({"batch": 1}, "batch must be 2 or more"),
        ({"label_smoothing": 1.0}, "label_smoothing must be at least 0 and below 1, got 1.0"),
        ({"holdout": -0.1}, "holdout must be at least 0 and below 1"),
        ({"optimizer": "lion"}, "optimizer must be one of adamw, sgd, got 'lion'"),
        ({"minutes": 0.0}, "minutes must be above 0"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"workers": -1}, "workers must be 0 or more"),
    ],
)
def test_settings_without_meaning_are_refused(options, sentence: str | None) -> None:
    if sentence is None:
        assert PretrainConfig(images="a", out="b", **options).largest_side == 96
    else:
        with pytest.raises(OptionError, match=sentence):
            PretrainConfig(images="a", out="b", **options)


def test_a_bad_folder_is_one_sentence_and_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pretrain", "--images", str(tmp_path), "--out", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "class folders" in error
