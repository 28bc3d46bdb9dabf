from __future__ import annotations

import csv
import json
import multiprocessing
import shutil
import threading
import time
from pathlib import Path

import pytest

from rdlite.errors import OptionError
from train.__main__ import main
from train.ablate import ablate, parse_seeds, plan
from train.ablate_report import Record, read_record, summarise, write_record, write_report
from train.checkpoint import load_checkpoint
from train.engine import Trainer

GIVEN = {"data": "a.json", "images": "images", "val": "val.json", "out": "runs", "epochs": 1.0}


def planned(rows: str, *, seeds=(0,), recipes=(), **options):
    return plan(rows=rows.split(), seeds=seeds, recipes=recipes, given=GIVEN | options)


def record(row: str, seed: int = 0, **values) -> Record:
    (run,) = planned("c")
    measured = {"ap": 0.25, "ap50": 0.5, "ap75": 0.125, "parameters": 10_100_000}
    if "failed" in values:
        measured = {}
    return Record(row=row, seed=seed, settings=run.config.to_dict(), **measured | values)


def test_every_row_takes_its_first_seed_before_any_takes_the_second(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('extends = "o"\nwidth = 48')
    runs = planned(f"a {mine}", seeds=(0, 1), recipes=["basic"], lr=0.5)
    assert [str(run.folder) for run in runs] == [
        str(Path("runs", name)) for name in ("a-0", "mine-0", "a-1", "mine-1")
    ]
    assert [run.config.seed for run in runs] == [0, 0, 1, 1]
    assert [run.config.giou for run in runs] == [False, True, False, True]
    assert [run.config.width for run in runs] == [72, 48, 72, 48]
    assert {(run.config.optimizer, run.config.lr, run.config.epochs) for run in runs} == {
        ("sgd", 0.5, 1)
    }


@pytest.mark.parametrize(
    ("rows", "options", "expected"),
    [
        ("a a", {}, "rows must be different ones, at least one, got a, a"),
        ("a x", {}, "no recipe 'x'"),
        ("a o", {"giou": True}, "row a sets giou itself"),
        ("a", {"val": None, "holdout": 0.0}, "nothing to measure AP on"),
    ],
)
def test_rows_that_cannot_be_compared_are_refused(rows, options, expected) -> None:
    with pytest.raises(OptionError, match=expected):
        planned(rows, **options)


def test_unequal_budgets_are_refused_with_both(tmp_path: Path) -> None:
    given = {key: value for key, value in GIVEN.items() if key != "epochs"}
    mine = tmp_path / "mine.toml"
    mine.write_text("epochs = 3")
    rows = {"rows": [str(mine), "basic"], "seeds": [0], "recipes": []}
    with pytest.raises(OptionError, match=r"epochs differs between .* \(mine: 3.0, basic: 250.0\)"):
        plan(**rows, given=given)
    assert plan(**rows, given=given | {"minutes": 5.0})  # minutes go before epochs


def test_seeds_are_whole_numbers() -> None:
    assert parse_seeds("0,1,12") == [0, 1, 12]
    with pytest.raises(OptionError, match=r"seeds must look like 0,1,2, got '0-2'"):
        parse_seeds("0-2")


def test_seeds_become_mean_and_spread_and_failures_keep_their_reason() -> None:
    # percent 20, 30, 40: mean 30, sample standard deviation 10
    records = [
        record("o", 0, ap=0.2),
        record("mine", 0, ap=None),
        record("o", 1, ap=0.3),
        record("o", 2, ap=0.4),
        record("o", 3, failed="the loss is not finite"),
    ]
    o, mine = summarise(records, {"o": 43.0})
    assert o["AP"] == pytest.approx(30) and o["± AP"] == pytest.approx(10)
    assert (o["AP50"], o["± AP50"]) == (50, 0)
    assert (o["ms/pic"], o["parameters"], o["seeds"]) == (43, 10_100_000, "0 1 2")
    assert (o["paper AP"], o["paper ms/pic"]) == (29.6, 131)
    assert o["failed"] == "seed 3: the loss is not finite"
    assert (mine["AP"], mine["AP50"], mine["± AP50"], mine["paper AP"]) == (None, 50, None, None)


def test_the_report_holds_rows_failures_and_what_is_still_to_run(tmp_path: Path) -> None:
    records = [record("c"), record("o", ap=0.3), record("a", failed="killed by signal 9")]
    write_report(records, {"c": 40.0, "o": 41.0}, tmp_path, waiting=["c-1", "o-1"])
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "| c | 0 | 25.0 | 50.0 | 12.5 | 40.0 | 10.10 M | 26.8 | 130 |" in table
    assert "| a | - | - | - | - | - | - | 24.7 | 150 |" in table
    assert "Failed: a, seed 0: killed by signal 9" in table
    assert "Still to run: c-1, o-1" in table
    assert "for 1 epochs, measured on val.json" in table
    assert [row["AP"] for row in json.loads((tmp_path / "table.json").read_text())] == [
        25,
        pytest.approx(30),
        None,
    ]
    with open(tmp_path / "table.csv", encoding="utf-8") as file:
        assert [row["AP50"] for row in csv.DictReader(file)] == ["50.0", "50.0", ""]
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_rows_without_numbers_get_a_table_and_no_chart(tmp_path: Path) -> None:
    write_report([record("mine", failed="no")], {}, tmp_path, waiting=[])
    assert "Failed: mine" in (tmp_path / "table.md").read_text(encoding="utf-8")
    assert not (tmp_path / "chart.png").exists()


def test_a_record_reads_back_as_it_was_written(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    write_record(tmp_path / "c-0", record("c"))
    assert read_record(tmp_path / "c-0") == record("c")


def test_the_command_line_tells_given_options_from_defaults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.toml").write_text('data = "a.json"\nimages = "i"\nout = "o"\nepochs = 3')
    command = ["ablate", "--recipe", str(tmp_path / "run.toml"), "--rows"]
    assert main([*command, "c,basic"]) == 1  # 3 from the file, 250 from the row; no default
    assert "(c: 3.0, basic: 250.0)" in capsys.readouterr().err
    assert main([*command, "c,basic", "--epochs", "2", "--multi-task", "true"]) == 1
    assert "row c sets multi_task itself" in capsys.readouterr().err
    assert main([*command, "c", "--seeds", "x"]) == 1
    assert "seeds must look like" in capsys.readouterr().err


def kill_first_child() -> None:
    while not (children := multiprocessing.active_children()):
        time.sleep(0.01)
    children[0].kill()


@pytest.mark.slow
def test_failed_rows_are_recorded_a_broken_one_goes_on_and_finished_ones_are_skipped(
    shapes: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str], break_off
) -> None:
    data, images = map(str, shapes)
    (tmp_path / "bad.toml").write_text('extends = "c"\ninit = "nowhere.safetensors"')
    val = shutil.copy(data, tmp_path / "val.json")
    given = {"data": data, "images": images, "val": str(val), "out": str(tmp_path / "out")}
    given |= {"cache": str(tmp_path / "cache"), "width": 16, "batch": 8, "resolution": "96"}
    given |= {"workers": 0, "threads": 1, "lr": 1e-3, "epochs": 2.0, "save_every": 4}
    asked = {"seeds": [0], "recipes": [], "given": given}
    bad, out = str(tmp_path / "bad.toml"), tmp_path / "out"

    break_off(Trainer(plan(rows=["o"], **asked)[0].config))
    killer = threading.Thread(target=kill_first_child)
    killer.start()
    assert ablate(rows=["c", bad, "o"], **asked) == 3
    killer.join()
    assert "from step 4" in capfd.readouterr().out
    assert load_checkpoint(out / "o-0")["step"] == 6
    killed, failed, finished = json.loads((out / "table.json").read_text())
    assert "killed by signal 9" in killed["failed"] and killed["AP"] is None
    assert "nowhere.safetensors" in failed["failed"]
    assert not finished["failed"] and 0 <= finished["AP"] <= finished["AP50"] <= 100
    assert finished["ms/pic"] > 0 and finished["parameters"] < 10_000_000
    assert (out / "chart.png").exists()

    assert ablate(rows=[bad, "o"], **asked) == 3
    said = capfd.readouterr().out
    assert (out / "table.md").read_text(encoding="utf-8") in said
    assert "bad-0: training" in said and "o-0: training" not in said
    with pytest.raises(OptionError, match=r"epochs: 2.0 there, 3.0 here"):
        ablate(rows=[bad, "o"], **asked | {"given": given | {"epochs": 3.0}})
