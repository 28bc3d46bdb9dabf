"""What a run leaves on disk to go on from: its checkpoint."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import pickle
import tempfile
from pathlib import Path
from typing import Any

import torch

from rdlite.errors import OptionError
from rdlite.registry import find, shipped
from rdlite.storage.partial import remove_leftovers, write_whole
from train.config import RunConfig

CHECKPOINT = "checkpoint.pt"
MODEL = "model.onnx"
"""What `fit` calls the model file of a run, in the run's folder."""

SETTINGS = "settings.json"
LOG = "log.jsonl"
MAY_CHANGE = (
    "out",
    "val",
    "val_images",
    "cache",
    "device",
    "workers",
    "threads",
    "save_every",
    "minutes",
)
"""Settings that a resumed run may change: they decide nothing about what is learned, except the
length in minutes: with a longer one, learning rate and resolution go back to where it puts them."""


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        OptionError: It cannot be written.
    """
    content = io.BytesIO()  # in a file, PyTorch calls a full disk an unexpected position
    torch.save(state, content)
    write_whole(folder / CHECKPOINT, content.getvalue(), overwrite=True)


def clean(folder: Path) -> None:
    """Remove what a run leaves in its folder that is killed while it saves."""
    for name in (CHECKPOINT, SETTINGS, LOG):
        remove_leftovers(folder / name)


def source_path(source: str | Path) -> Path:
    """The file or folder that a command was given: a model's that comes with rdlite, or a path."""
    return find(source) if shipped(source) else Path(source)


def checkpoint_path(run: str | Path) -> Path:
    """The checkpoint in a run's folder; a path of another kind is returned as it is."""
    path = Path(run)
    return path / CHECKPOINT if path.is_dir() else path


def load_checkpoint(run: str | Path) -> dict[str, Any]:
    """The state that `save_checkpoint` wrote; plain tensors and JSON types.

    Args:
        run: Folder of a run, or the file.

    Raises:
        OptionError: There is no checkpoint, or it cannot be read.
    """
    path = checkpoint_path(run)
    if not path.is_file():
        raise OptionError(f"{run} holds no {CHECKPOINT}; give the --out folder of a training run")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, LookupError, EOFError, ValueError, pickle.UnpicklingError) as e:
        reason = str(e).partition("\n")[0]  # PyTorch goes on for a page
        raise OptionError(
            f"{path} cannot be read ({reason}); give a sound checkpoint or another --out"
        ) from e
    if not isinstance(state, dict) or not {"ema", "config", "names"} <= state.keys():
        raise OptionError(f"{path} is no checkpoint of `python -m train fit` or `pretrain`")
    return state


def make_folder(path: str | Path) -> Path:
    """Make a run's folder, before anything is spent on the run.

    Raises:
        OptionError: It cannot be made, or nothing can be written there.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise OptionError(
            f"{folder} is no folder to write to ({error.strerror}); give another --out"
        ) from error


def save_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Write a run's settings when it begins, so that it can go on without being told again."""
    text = json.dumps(settings, indent=1) + "\n"
    write_whole(folder / SETTINGS, text.encode(), overwrite=True)


def saved_settings(folder: str | Path) -> dict[str, Any]:
    """The settings of the run in a folder; empty when there is none."""
    path = Path(folder) / SETTINGS
    if not path.is_file():
        return {}
    try:
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise OptionError(
            f"{path} is not JSON ({error}); delete it or give another --out"
        ) from error
    return settings


def check_same_run(
    saved: dict[str, Any], config: RunConfig, *, may_change: tuple[str, ...] = MAY_CHANGE
) -> None:
    """Refuse to continue a run with other settings than it began with.

    Args:
        saved: The settings it began with; what an older version did not know has its default.
        config: Those it was given now; `out` names its folder.
        may_change: Settings that decide nothing about what is learned.

    Raises:
        OptionError: Something else differs; both values are named.
    """
    now = config.to_dict()
    saved = {f.name: f.default for f in dataclasses.fields(config) if f.name in now} | saved
    changed = [k for k in now if k not in may_change and saved[k] != now[k]]
    otherwise_timed = (saved["minutes"] is None) != (now["minutes"] is None)
    if otherwise_timed and "minutes" not in changed:  # epochs cannot become minutes
        changed.append("minutes")
    if changed:
        raise OptionError(
            f"{now['out']} holds a run with other settings ("
            + ", ".join(f"{k}: {saved[k]!r} there, {now[k]!r} here" for k in changed)
            + "); give the same settings to continue it, or another --out"
        )


def truncate_log(log: Path, step: int) -> None:
    """Drop what an interrupted part logged after its last checkpoint: it is done again."""
    rows = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    kept = "".join(f"{row}\n" for row in rows if _step_of(row) <= step)
    write_whole(log, kept.encode(), overwrite=True)


def _step_of(row: str) -> float:
    try:
        return float(json.loads(row)["step"])
    except ValueError:
        return math.inf  # cut off by whatever stopped the run
