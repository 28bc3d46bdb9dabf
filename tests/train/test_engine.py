from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rdlite import Detector
from rdlite.errors import ModelError, OptionError
from rdlite.evaluate import evaluate
from tests.samples import small_disk
from tests.train.teacher import options
from train.__main__ import main
from train.anchors import AnchorShapes, make_anchors
from train.checkpoint import load_checkpoint
from train.engine import Trainer
from train.optim import NonFiniteLossError

ADVANCED = {"giou": True, "iou_guided": True, "class_weights": True, "multi_task": True}


@pytest.mark.parametrize("recipe", ["basic", "advanced", "mimic"])
def test_a_resumed_run_is_bit_equal_to_an_uninterrupted_one(
    settings, break_off, teacher_file: Path, recipe: str
) -> None:
    wanted = {"basic": {"workers": 1}, "advanced": ADVANCED, "mimic": options(teacher_file)}[recipe]
    wanted |= {"resolution": "128:0.5,192:1" if recipe == "mimic" else "96:0.5,128:1"}
    whole = Trainer(settings("whole", **wanted))
    whole.fit()
    first = Trainer(settings("parts", save_every=5, **wanted))
    break_off(first)
    assert first.step == 5
    second = Trainer(settings("parts", **wanted))
    second.fit()

    assert second.step == whole.step == 12
    a, b = load_checkpoint(whole.out), load_checkpoint(second.out)
    for part in ("objective", "ema"):
        assert all(torch.equal(a[part][k], b[part][k]) for k in a[part])
    assert not torch.equal(a["objective"]["model.odm_conf.0.weight"], a["ema"]["odm_conf.0.weight"])


def test_a_run_learns_and_leaves_checkpoint_curves_log_and_tensorboard_events(settings) -> None:
    trainer = Trainer(settings("run", epochs=40, lr=4e-3, resolution="96"))
    trainer.fit()
    assert (trainer.out / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list(trainer.out.glob("events.out.tfevents.*"))
    rows = [json.loads(line) for line in (trainer.out / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(20, 121, 20))
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]
    assert rows[0].keys() >= {"loss", "arm_loc", "arm_cls", "odm_loc", "odm_cls", "lr"}


def test_another_run_s_folder_is_refused_with_the_difference(settings) -> None:
    Trainer(settings("run", epochs=1)).fit()
    with pytest.raises(OptionError, match=r"lr: 0.001 there, 0.01 here"):
        Trainer(settings("run", epochs=1, lr=0.01))


def test_a_resumed_run_refuses_other_data(settings, tmp_path: Path) -> None:
    run = settings("run", epochs=1)
    Trainer(run).fit()
    content = json.loads(Path(run.data).read_text())
    content["categories"].reverse()
    (tmp_path / "other.json").write_text(json.dumps(content))
    state = load_checkpoint(run.out)
    state["config"]["data"] = str(tmp_path / "other.json")
    torch.save(state, Path(run.out) / "checkpoint.pt")
    with pytest.raises(OptionError, match="is not the data"):
        Trainer(settings("run", epochs=1, data=str(tmp_path / "other.json")))


def test_the_log_has_no_step_twice_after_a_killed_run(settings) -> None:
    Trainer(settings("run", epochs=8)).fit()
    log = Path(settings("run").out) / "log.jsonl"
    with log.open("a") as file:
        file.write(log.read_text().replace('"step": 2', '"step": 4'))
    Trainer(settings("run", epochs=8))
    assert [json.loads(row)["step"] for row in log.read_text().splitlines()] == [20, 24]


def test_a_short_run_exports_what_it_learned_not_what_it_began_with(settings) -> None:
    trainer = Trainer(settings("run", epochs=4))
    before = trainer.model.odm_conf[0].weight.detach().clone()
    trainer.fit()
    now = trainer.model.odm_conf[0].weight.detach()
    averaged = trainer.ema.module.odm_conf[0].weight.detach()
    assert (averaged - now).norm() < 0.5 * (now - before).norm()


def test_the_average_begins_anew_when_the_resolution_changes(settings) -> None:
    trainer = Trainer(settings("run", resolution="96:0.5,128:1"))  # 12 steps, the change after 6
    trainer.fit()
    assert int(trainer.ema.n_averaged) == 6


def test_a_gradient_that_is_not_finite_leaves_the_checkpoint_sound(settings) -> None:
    trainer = Trainer(settings("run", save_every=1))
    trainer.save()
    trainer.model.odm_loc[3].bias.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(NonFiniteLossError, match=r"the gradient is not finite .* is sound"):
        trainer.fit()
    weights = load_checkpoint(trainer.out)["objective"]
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_a_run_of_an_older_version_goes_on_with_what_was_fixed_then(settings) -> None:
    first = Trainer(settings("run", epochs=1))
    first.fit()
    state = torch.load(first.out / "checkpoint.pt", weights_only=True)
    del state["config"]["mosaic"]
    torch.save(state, first.out / "checkpoint.pt")
    assert Trainer(settings("run", epochs=1)).step == first.step
    with pytest.raises(OptionError, match=r"mosaic: 0\.0 there, 0\.5 here"):
        Trainer(settings("run", epochs=1, mosaic=0.5))


def test_mosaics_need_a_side_below_the_last(settings) -> None:
    with pytest.raises(OptionError, match="none below it"):
        settings("run", mosaic=0.5, resolution="128:0.5,96:1")


def test_epochs_cannot_be_continued_as_minutes(settings) -> None:
    Trainer(settings("run", epochs=1)).fit()
    with pytest.raises(OptionError, match="minutes"):
        Trainer(settings("run", epochs=1, minutes=5))


def test_a_loss_that_is_not_finite_stops_the_run_and_names_its_terms(settings) -> None:
    trainer = Trainer(settings("run"))
    torch.nn.init.constant_(trainer.model.odm_loc[0].bias, float("nan"))
    with pytest.raises(NonFiniteLossError, match=r"not finite at step \d: .*'odm_loc': nan"):
        trainer.fit()


def test_the_command_line_trains_measures_and_exports_a_detector_that_works(
    settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = settings("run", epochs=14, ema=0.9)
    given = {k.replace("_", "-"): v for k, v in run.to_dict().items() if v is not None}
    arguments = [f"--{k}={v}" for k, v in given.items()]
    assert main(["fit", *arguments]) == 0
    truth = ["--set", run.data, run.images]
    model = tmp_path / "shapes.onnx"
    assert main(["export", run.out, "-o", str(model), "--note", "Squares.", *truth]) == 0
    assert "differ by at most" in capsys.readouterr().out

    detector = Detector(model)
    assert detector.names == ("red", "green")
    card = model.with_suffix(".md").read_text()
    assert "Squares." in card and "| red |" in card and "shapes-curves.png" in card
    measured = evaluate(detector, run.data, run.images, nms="hard")
    assert detector.spec.provenance["results"]["shapes"]["ap50"] == round(measured.ap50, 4)

    assert main(["eval", str(model), *truth, "-o", str(tmp_path / "report")]) == 0
    report = json.loads((tmp_path / "report" / "results.json").read_text())
    assert report["shapes"]["ap"] == measured.ap
    assert (tmp_path / "report" / "precision-recall.png").exists()

    capsys.readouterr()
    val = shutil.copy(run.data, tmp_path / "val.json")
    ruin = {"init": run.out, "out": tmp_path / "ruin", "val": val, "lr": 0.1, "epochs": 1}
    assert main(["fit", *arguments, *(f"--{k}={v}" for k, v in ruin.items())]) == 0
    printed = capsys.readouterr().out
    start = f"its start, {run.out}, with an input of 128 pixels: AP {100 * measured.ap:.1f}, "
    assert start in printed
    assert "the run ended below its start" in printed
    rows = (tmp_path / "ruin" / "log.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [
        3
    ]  # the last, in a run shorter than the interval


def test_a_missing_annotation_file_is_one_sentence_and_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(tmp_path / "no.json"), "--images", str(tmp_path)]
    assert main(["fit", *arguments, "--out", str(tmp_path / "run")]) == 1
    assert "no.json" in capsys.readouterr().err


def test_anchor_recall_counts_boxes_by_size(
    shapes: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["anchors", "--data", str(shapes[0])]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    # The squares have sides from a third to a half of the image: 107 to 160 of 320 pixels.
    assert [int(row[-2]) for row in rows[:2]] == [0, 0]
    assert int(rows[-1][-2]) == 36 and float(rows[-1][-1]) > 0.9


def test_an_image_that_is_damaged_between_two_parts_of_a_run_is_noticed(
    settings, shapes: tuple[Path, Path], tmp_path: Path
) -> None:
    shutil.copytree(shapes[1], tmp_path / "copy")
    data, images = str(tmp_path / "copy" / shapes[0].name), str(tmp_path / "copy")
    run = settings("run", epochs=1, data=data, images=images)
    Trainer(run).fit()
    (tmp_path / "copy" / "3.png").write_bytes(b"no image")
    with pytest.raises(OptionError, match="is not the data that the run"):
        Trainer(run)


def test_images_held_out_do_not_come_into_the_training_of_a_run_that_goes_on(settings) -> None:
    run = settings("run", epochs=1, holdout=0.25)
    Trainer(run).fit()
    with pytest.raises(OptionError, match="is not the data that the run"):
        Trainer(replace(run, val=str(shutil.copy(run.data, f"{run.out}.json"))))


def test_a_log_that_was_cut_off_does_not_stop_a_run_from_going_on(settings) -> None:
    run = settings("run", epochs=8)
    Trainer(run).fit()
    log = Path(run.out) / "log.jsonl"
    log.write_text(log.read_text() + '{"minutes": 0.1, "st')
    Trainer(run)
    assert [json.loads(row)["step"] for row in log.read_text().splitlines()] == [20, 24]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_every_process_ends_a_run_after_the_step_and_saves_it(
    settings, number: int
) -> None:
    trainer = Trainer(settings("run", workers=2))
    step = trainer.train_step

    def interrupted(batch):
        row = step(batch)
        if trainer.step == 3:
            workers = multiprocessing.active_children()
            assert len(workers) == 2
            everyone = [os.getpid(), *(process.pid for process in workers)]
            subprocess.run(["kill", f"-{number:d}", *map(str, everyone)], check=True)
            for process in workers:
                process.join(0.3)
        return row

    trainer.train_step = interrupted
    usual = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    assert load_checkpoint(trainer.out)["step"] == 3
    assert signal.getsignal(number) == usual


def test_a_full_disk_is_one_sentence_and_the_run_goes_on_when_there_is_room(
    settings, capsys: pytest.CaptureFixture[str]
) -> None:
    run = settings("run", epochs=1)
    given = {k.replace("_", "-"): v for k, v in run.to_dict().items() if v is not None}
    with small_disk(1_000_000):  # the decoded images fit in
        assert main(["fit", *(f"--{k}={v}" for k, v in given.items())]) == 1
    checkpoint = Path(run.out, "checkpoint.pt")
    assert capsys.readouterr().err == f"error: {checkpoint} cannot be written: File too large\n"
    assert not list(Path(run.out).glob("*checkpoint*"))
    assert main(["fit", "--out", run.out]) == 0
    assert checkpoint.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="nothing stops a process there")
def test_minutes_do_not_pass_while_the_process_is_stopped(settings) -> None:
    trainer = Trainer(settings("run", epochs=1))
    step = trainer.train_step

    def stopped(batch):
        if trainer.step == 1:
            stop = f"kill -STOP {os.getpid()}; sleep 2; kill -CONT {os.getpid()}"
            subprocess.run(["sh", "-c", stop], check=True)
        return step(batch)

    trainer.train_step = stopped
    start = time.monotonic()
    trainer.fit()
    assert 0 < trainer.schedule.elapsed < time.monotonic() - start - 1.9


def test_every_switch_changes_the_terms_it_is_for_and_no_other(settings) -> None:
    """One batch, the same weights: which loss terms an option of `fit` reaches."""

    def terms(**options) -> dict[str, float]:
        trainer = Trainer(settings(f"run{len(options)}{sorted(options)}", **options))
        batch = next(trainer.batches())
        for target in batch["targets"]:
            target["score"] = torch.linspace(0.3, 0.9, len(target["score"]))
        return {k: v.item() for k, v in trainer.losses(batch)[1].items()}

    plain = terms()
    assert set(plain) == {"arm_loc", "arm_cls", "odm_loc", "odm_cls"}
    everything = set(plain)
    for switch, reached in (
        ({"giou": True}, {"arm_loc", "odm_loc"}),
        ({"iou_guided": True}, {"odm_cls"}),
        ({"class_weights": True}, {"odm_cls"}),
        ({"score_weights": True}, everything),
        ({"anchor_sizes": "20,40,80,160,300"}, everything),
        ({"anchor_ratios": "0.2,1,4"}, everything),
        ({"multi_task": True}, {f"log_var_{name}" for name in plain}),
    ):
        found = terms(**switch)
        changed = {name for name, value in found.items() if plain.get(name) != value}
        assert changed == reached, switch


def test_the_anchors_of_a_run_are_in_its_model_and_start_another_only_with_them(
    settings, tmp_path: Path
) -> None:
    anchors = {"anchor_sizes": "20,40,80,160,300", "anchor_ratios": "0.25,1,4"}
    run = Trainer(settings("run", epochs=0.1, **anchors))
    run.fit()
    model, again = tmp_path / "model.onnx", tmp_path / "again.onnx"
    assert main(["export", str(run.out), "-o", str(model)]) == 0
    assert main(["export", str(model), "-o", str(again)]) == 0
    wanted = make_anchors(128, AnchorShapes.parse(*anchors.values())).numpy()
    for path in (model, again):
        np.testing.assert_allclose(Detector(path).spec.anchors, wanted, rtol=1e-4)
    with pytest.raises(
        ModelError, match=r"--anchor-sizes 20,40,80,160,300 --anchor-ratios 0.25,1,4"
    ):
        Trainer(settings("other", init=str(model)))
    assert Trainer(settings("same", init=str(model), **anchors)).model.num_classes == 2


@pytest.mark.parametrize("out", ["file/run", "file"])
def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_decoded(
    settings, tmp_path: Path, out: str
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OptionError, match="is no folder to write to"):
        Trainer(settings(out))
    assert not (tmp_path / "cache").exists()


def test_a_checkpoint_that_is_cut_off_is_named(settings) -> None:
    trainer = Trainer(settings("run"))
    trainer.save()
    path = trainer.out / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(OptionError, match=r"checkpoint.pt cannot be read"):
        Trainer(settings("run"))


def test_a_run_opens_its_data_as_the_settings_say(settings) -> None:
    plain = Trainer(settings("plain", epochs=1)).dataset
    told = Trainer(settings("told", epochs=1, repeat=1.0, zoom_out=2.0)).dataset
    assert (plain.config.expand_max, told.config.expand_max) == (4.0, 2.0)
    assert len(plain.images) == len(told.images) == len(plain)
    assert len(told) > len(plain)  # some images lack a class
    pasted = Trainer(settings("pasted", epochs=1, mosaic=0.5)).dataset.config
    assert (pasted.mosaic_prob, pasted.mosaic_below) == (0.5, 128)
    with pytest.raises(OptionError, match="zoom_out must be 1 or more"):
        settings("wrong", zoom_out=0.5)
