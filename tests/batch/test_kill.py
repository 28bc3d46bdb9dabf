"""Batches that are killed or interrupted end, gone on with, as if they had not been."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.batches import content
from tests.command import cli, command, lines


def kill(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def kill_and_resume(arguments: list[str], out: Path, chance: random.Random) -> int:
    """Run a command that is killed at random moments until it ends; returns how often it was."""
    for kills in range(100):
        process = subprocess.Popen(
            [*arguments, "--resume"],
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while not (out / ".rdlite" / "lock").exists() and process.poll() is None:
            time.sleep(0.002)
        patience = chance.uniform(0, 0.3 * kills + 0.1) if kills < 4 else 60
        try:
            _, errors = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            kill(process)
            continue
        assert process.returncode == 3, errors  # two of the inputs are damaged
        return kills
    raise AssertionError("it never ends")


ROUNDS = pytest.mark.parametrize(
    "rounds", [1, pytest.param(20, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])]
)


@pytest.mark.parametrize("workers", [1, 2])
@ROUNDS
def test_killed_at_any_moment_it_goes_on_to_the_same_end(
    rounds: int,
    workers: int,
    source: Path,
    expected: dict[str, bytes],
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    chance, kills = random.Random(workers), 0
    options = ("--model", tiny_model, "--workers", workers)
    for number in range(rounds):
        out = tmp_path / str(number)
        kills += kill_and_resume(command("detect", source, "-o", out, *options), out, chance)
        assert content(out) == expected
    assert kills >= rounds


@ROUNDS
def test_annotation_killed_at_any_moment_goes_on_to_the_same_end(
    rounds: int, source: Path, tiny_model: Path, tmp_path: Path
) -> None:
    chance, kills = random.Random(0), 0
    arguments = ("annotate", source / "videos", "--model", tiny_model, "-o")
    assert cli(*arguments, tmp_path / "whole", "--quiet") == 3
    for number in range(rounds):
        out, workers = tmp_path / str(number), 1 + number % 2
        kills += kill_and_resume(command(*arguments, out, "--workers", workers), out, chance)
        assert content(out) == content(tmp_path / "whole")
    assert kills >= rounds


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_stops_all_workers(
    signal_number: int,
    source: Path,
    expected: dict[str, bytes],
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    arguments = command("detect", source, "-o", out, "--model", tiny_model, "--workers", 2)
    process = subprocess.Popen(
        arguments, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    record = out / ".rdlite" / "images.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (record.exists() and len(lines(record)) > 3):
        time.sleep(0.002)
    os.killpg(process.pid, signal_number)  # as a terminal does: to the workers as well
    # Ends only when the workers, which have the same pipes, are gone as well.
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "interrupted" in printed and "Traceback" not in errors
    assert subprocess.run([*arguments, "--resume"], capture_output=True).returncode == 3
    assert content(out) == expected
