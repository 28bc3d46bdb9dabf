from __future__ import annotations

from dataclasses import replace

import pytest

from rdlite.errors import OptionError
from train.config import TrainConfig, parse_resolution
from train.defaults import explain, settle
from train.schedule import Schedule


def config(**options) -> TrainConfig:
    options = {"resolution": "320", "lr": 1e-3} | options
    return TrainConfig(data="d", images="i", out="o", **options)


def test_resolution_follows_the_shares_of_the_schedule() -> None:
    schedule = Schedule(config(epochs=10, resolution="192:0.5,256:0.8,320:1"), 10)
    assert [schedule.resolution(step) for step in (0, 49, 50, 79, 80, 99)] == [
        192,
        192,
        256,
        256,
        320,
        320,
    ]


def test_cosine_warms_up_and_ends_at_zero() -> None:
    schedule = Schedule(config(epochs=10, lr=1.0, warmup=10), 10)
    assert schedule.lr(0) == pytest.approx(0.1)
    assert schedule.lr(50) == pytest.approx(0.5)
    assert schedule.lr(100) == pytest.approx(0.0)


def test_step_schedule_has_the_paper_s_three_rates() -> None:
    schedule = Schedule(config(epochs=250, lr=4e-3, warmup=0, schedule="step"), 1)
    assert [schedule.lr(epoch) for epoch in (149, 150, 200)] == pytest.approx([4e-3, 4e-4, 4e-5])


def test_minutes_count_the_earlier_parts_of_a_run() -> None:
    schedule = Schedule(config(minutes=10), 1, elapsed=300)
    assert schedule.progress(0) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("300", "multiples of 16"),
        ("64", "from 96 on"),
        ("192:0.5", "rise to 1"),
        ("192:0.5,256:0.4,320:1", "rise to 1"),
        ("big", "must look like"),
    ],
)
def test_an_impossible_resolution_schedule_is_refused(text: str, reason: str) -> None:
    with pytest.raises(OptionError, match=reason):
        parse_resolution(text)


@pytest.mark.parametrize(
    "wrong", [{"lr": -1}, {"batch": -1}, {"optimizer": "lion"}, {"minutes": -1}, {"freeze": "head"}]
)
def test_impossible_settings_are_refused_by_name(wrong: dict) -> None:
    with pytest.raises(OptionError, match=next(iter(wrong))):
        config(**wrong)


def test_warm_up_takes_no_more_than_a_tenth_of_a_short_schedule() -> None:
    schedule = Schedule(config(epochs=5, lr=1.0, warmup=200), 10)
    assert [round(schedule.lr(step), 2) for step in range(6)] == [0.01, 0.2, 0.4, 0.59, 0.79, 0.98]


def test_warm_up_takes_no_more_than_a_tenth_of_the_minutes() -> None:
    schedule = Schedule(config(minutes=10, lr=1.0, warmup=200), 10, elapsed=60)
    assert schedule.lr(5) == pytest.approx(0.976, abs=0.01)


def test_what_is_left_open_is_chosen_by_the_size_of_the_set() -> None:
    told = TrainConfig(data="d", images="i", out="o", init="default")
    samples = []
    for images in (24, 100, 1_000, 16_000, 100_000):
        chosen = settle(told, images)
        samples.append(chosen.epochs * images)
        assert settle(chosen, images) == chosen
        assert f"epochs {chosen.epochs}" in explain(told, chosen, images)
    assert samples == sorted(samples) and 9_000 < samples[0] and samples[-1] < 400_000
    assert (settle(told, 24).batch, settle(told, 1_000).batch) == (6, 16)
    scratch = replace(told, init=None)
    assert settle(scratch, 1_000).epochs == pytest.approx(3 * settle(told, 1_000).epochs, rel=0.01)
    assert settle(scratch, 1_000).lr == 2 * settle(told, 1_000).lr


def test_what_was_told_is_not_chosen() -> None:
    told = TrainConfig(
        data="d", images="i", out="o", batch=3, epochs=2.5, lr=0.02, resolution="128"
    )
    assert settle(told, 500) == told
    assert explain(told, settle(told, 500), 500) == ""
