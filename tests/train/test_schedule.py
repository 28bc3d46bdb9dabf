from __future__ import annotations

import pytest

from rdlite.errors import OptionError
from train.config import TrainConfig, parse_resolution
from train.schedule import Schedule


def config(**options) -> TrainConfig:
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


@pytest.mark.parametrize("wrong", [{"lr": 0}, {"batch": 0}, {"optimizer": "lion"}, {"minutes": -1}])
def test_impossible_settings_are_refused_by_name(wrong: dict) -> None:
    with pytest.raises(OptionError, match=next(iter(wrong))):
        config(**wrong)
