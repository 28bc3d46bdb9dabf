from __future__ import annotations

from pathlib import Path

from train.speed import measure_speed


def test_every_resolution_of_the_run_is_measured_and_its_folder_untouched(settings) -> None:
    run = settings("run", resolution="96:0.5,128:1")
    header, *rows = measure_speed(run, seconds=0.1).splitlines()
    assert header.split() == ["side", "loader", "img/s", "steps", "img/s"]
    assert [row.split()[0] for row in rows] == ["96", "128"]
    assert all(float(number) > 0 for row in rows for number in row.split()[1:])
    assert not Path(run.out).exists()
