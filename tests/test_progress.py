"""The curves of `benchmarks/progress.py`, on numbers whose curve is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.progress import CHART, RUNS, Progress, draw, main, per_core_hour, read_progress
from rdlite.session import Session

pytest.importorskip("scipy")

SAMPLES = np.array([1000.0, 2000.0, 4000.0, 8000.0, 16000.0])


@pytest.mark.parametrize(
    ("curve", "measured", "next_one"),
    [("line", [10, 15, 20, 25, 30], 35), ("error law", [20, 36, 48.8, 59.04, 67.232], 73.7856)],
)
def test_each_curve_goes_on_as_the_numbers_do(
    curve: str, measured: list[float], next_one: float
) -> None:
    found = Progress("AP", SAMPLES, np.array(measured, float)).foretell(curve, 32_000)
    assert found == pytest.approx((next_one,) * 3)


def test_the_interval_is_that_of_a_regression() -> None:
    """By hand: x = 0 1 2 3 in doublings, y = 0 2 1 3; slope 0.8, residual variance 0.9."""
    one = Progress("AP", SAMPLES[:4], np.array([0.0, 2, 1, 3]))
    found = one.foretell("line", SAMPLES[4])
    away = 4.302653 * np.sqrt(0.9 * (1 + 1 / 4 + 2.5**2 / 5))  # t for 95 % and two degrees
    assert found == pytest.approx((3.5, 3.5 - away, 3.5 + away), rel=1e-5)


def test_ap_does_not_pass_100_by_the_error_law() -> None:
    one = Progress("AP", SAMPLES, np.array([30.0, 52, 60, 71, 81]))
    expected, low, high = one.foretell("error law", 1e9)
    assert low < expected < high < 100


def test_a_run_is_foretold_from_those_before_it_alone() -> None:
    first = Progress("AP", SAMPLES, np.array([10.0, 15, 20, 25, 99]))
    assert first.foretell("line", SAMPLES[4], 4) == pytest.approx((30, 30, 30))
    assert "| 8 thousand | 25.0 | 30.0 (30.0 to 30.0) |" in first.table()
    assert "| 16 thousand | 99.0 |  |  |" in first.table()


def test_runs_are_read_in_the_order_of_their_samples() -> None:
    runs = [{"samples": 20, "AP": 2.0}, {"samples": 10, "AP": 1.0, "core_minutes": 3}]
    (one,) = read_progress({"runs": runs})
    assert one.name == "AP"
    assert one.samples.tolist() == [10, 20]
    assert one.measured.tolist() == [1, 2]


@pytest.mark.parametrize("broken", [{"AP": 0.0}, {"AP": 101.0}, {}, {"AP": 3.0, "AP50": 5.0}])
def test_a_row_that_cannot_be_compared_is_refused(broken: dict[str, float]) -> None:
    runs = [{"samples": 10, "AP": 1.0}, {"samples": 20} | broken]
    with pytest.raises(ValueError, match=r"the run of 20 samples has .*each of AP"):
        read_progress({"runs": runs})


def test_the_rate_is_of_runs_that_had_a_core_to_themselves() -> None:
    runs = [
        {"samples": 1000},
        {"samples": 9000},
        {"samples": 12_000, "core_minutes": 90},
        {"samples": 13_000, "core_minutes": 30},
    ]
    assert per_core_hour({"runs": runs}) == 2000


def test_without_such_a_run_there_is_no_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "progress.json"
    record.write_text(
        json.dumps({"runs": [{"samples": 10, "AP": 1.0}, {"samples": 20, "AP": 2.0}]})
    )
    monkeypatch.setattr("benchmarks.progress.RUNS", record)
    with pytest.raises(SystemExit):
        main([])
    assert f"{record}: no run after the first has core_minutes" in capsys.readouterr().err


def test_the_last_run_is_the_embedded_model() -> None:
    results = Session().spec.provenance["results"]
    for one in read_progress(json.loads(RUNS.read_text(encoding="utf-8"))):
        number, name = one.name.split(" on ")
        assert one.measured[-1] == round(100 * results[name][number.lower()], 1)


@pytest.mark.parametrize("hours", ["0", "-3", "nan", "inf"])
def test_hours_that_are_none_are_refused(hours: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--hours", hours])
    assert "--hours must be a finite number above 0" in capsys.readouterr().err


def test_the_record_is_told_and_drawn(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    chart = tmp_path / CHART.name
    monkeypatch.setattr("benchmarks.progress.CHART", chart)
    main(["--hours", "10"])
    told = capsys.readouterr().out
    assert chart.stat().st_size > 5000
    for run in json.loads(RUNS.read_text(encoding="utf-8"))["runs"]:
        assert f"| {run['samples'] / 1e3:.0f} thousand | {run['AP50 on dev-voc']:.1f} |" in told
    assert "10 core-hours more" in told


def test_one_panel_is_enough(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw([Progress("AP", SAMPLES, SAMPLES / 1000)], 20_000, tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 5000
