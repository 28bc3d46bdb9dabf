"""Ablation: several recipes trained under one budget, one after the other, and compared."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rdlite.errors import OptionError, RdliteError
from rdlite.evaluate import EvalResult
from train.ablate_report import CHART, TABLE, Record, read_record, write_record, write_report
from train.checkpoint import check_same_run
from train.config import TrainConfig
from train.recipes import TABLE3, load_recipe, make_config

MAY_CHANGE = ("out", "cache", "device", "workers", "threads", "save_every")
"""Settings that decide nothing about the accuracy of a finished run."""
EQUAL = ("minutes", "epochs", "val", "val_images", "holdout", "out")
"""Settings that must be the same in every row."""
TIMED_SIZE = (640, 480)
"""Width and height of the picture that a model is timed on, pixels; the usual size in COCO."""
TIMED_CALLS = 100
"""Turns that each model takes when the models are timed."""
SOME_FAILED, NONE_FINISHED = 3, 1


@dataclass(frozen=True, slots=True)
class Run:
    """One recipe with one seed.

    Attributes:
        row: Name of the recipe, as in the table.
        config: Its settings; `out` is its own folder.
    """

    row: str
    config: TrainConfig

    @property
    def folder(self) -> Path:
        """Where it is, named after row and seed."""
        return Path(self.config.out)

    def record(self, **outcome: Any) -> Record:
        """A record of how it ended."""
        return Record(
            row=self.row, seed=self.config.seed, settings=self.config.to_dict(), **outcome
        )


def ablate(
    *,
    rows: Sequence[str],
    seeds: Sequence[int],
    recipes: Sequence[str],
    given: Mapping[str, Any],
) -> int:
    """Train and measure every row with every seed; finished runs are skipped, broken ones go on.

    Each run is a process of its own: it gives back its memory, begins with untouched global state
    (threads, random numbers), and when the system kills it, the others still run. After each run
    `table.md`, `table.csv`, `table.json` and `chart.png` are written into the `out` folder.

    Args:
        rows: Recipes to compare: names or .toml files.
        seeds: Seeds to train each with. All rows take the first before any takes the second.
        recipes: Recipes that all rows begin with.
        given: Options for all rows, which go before the recipes. `out` is the folder for all.

    Returns:
        Exit code: 0 all finished, 3 some failed, 1 none finished.

    Raises:
        OptionError: The rows cannot be compared, or the folder holds runs with other settings.
    """
    runs = plan(rows=rows, seeds=seeds, recipes=recipes, given=given)
    records = {run.folder: record for run in runs if (record := _finished(run))}
    _report(runs, records)
    for run in runs:
        if run.folder not in records:
            name = run.folder.name
            print(f"{name}: training; {len(records)} of {len(runs)} runs done", flush=True)
            records[run.folder] = _run_in_process(run)
            print(f"{name}: {records[run.folder].summary()}", flush=True)
            _report(runs, records)
    out = runs[0].folder.parent
    print(f"{(out / TABLE).read_text(encoding='utf-8')}\nAlso in {out}, with {CHART}")
    failed = sum(record.failed is not None for record in records.values())
    return NONE_FINISHED if failed == len(runs) else SOME_FAILED if failed else 0


def _report(runs: Sequence[Run], records: Mapping[Path, Record]) -> None:
    ended = [run for run in runs if run.folder in records]
    if ended:
        write_report(
            [records[run.folder] for run in ended],
            _times([run for run in ended if records[run.folder].failed is None]),
            runs[0].folder.parent,
            waiting=[run.folder.name for run in runs if run not in ended],
        )


def _times(finished: Sequence[Run]) -> dict[str, float]:
    """Milliseconds per picture by row: one thread, a whole call, the median of `TIMED_CALLS`.

    The models take turns, and are timed again for each report, so that whatever else the machine
    does slows them alike: rows timed hours apart differed by half for the same network.
    """
    if not finished:
        return {}
    from rdlite import Detector
    from rdlite.bench import bench, synthetic_image
    from train.checkpoint import MODEL

    detectors = {
        run.row: Detector(
            run.folder / MODEL, nms="gaussian" if run.config.soft_nms else "hard", threads=1
        )
        for run in finished
    }
    results = bench(list(detectors.values()), synthetic_image(*TIMED_SIZE), runs=TIMED_CALLS)
    return {row: one.median["whole"] for row, one in zip(detectors, results, strict=True)}


def _finished(run: Run) -> Record | None:
    """The record of a run that needs no more training; a failed one is tried again."""
    record = read_record(run.folder)
    if record is None or record.failed is not None:
        return None
    check_same_run(record.settings, run.config, may_change=MAY_CHANGE)
    return record


def plan(
    *,
    rows: Sequence[str],
    seeds: Sequence[int],
    recipes: Sequence[str],
    given: Mapping[str, Any],
) -> list[Run]:
    """The runs of an ablation, in their order; see `ablate` for the arguments and errors."""
    names = [Path(row).stem if row.endswith(".toml") else row for row in rows]
    _check_distinct("rows", names)
    _check_distinct("seeds", seeds)
    configs = {}
    for name, row in zip(names, rows, strict=True):
        _check_switches(row, given)
        configs[name] = make_config((*recipes, row), given)
    _check_comparable(configs)
    return [
        Run(name, replace(config, seed=seed, out=str(Path(config.out) / f"{name}-{seed}")))
        for seed in seeds
        for name, config in configs.items()
    ]


def parse_seeds(text: str) -> list[int]:
    """Read "0,1,2".

    Raises:
        OptionError: It is something else.
    """
    try:
        return [int(seed) for seed in text.split(",")]
    except ValueError as error:
        raise OptionError(f"seeds must look like 0,1,2, got {text!r}") from error


def _check_distinct(what: str, values: Sequence[object]) -> None:
    if not values or len(set(values)) < len(values):
        listed = ", ".join(str(value) for value in values) or "nothing"
        raise OptionError(f"{what} must be different ones, at least one, got {listed}")


def _check_switches(row: str, given: Mapping[str, Any]) -> None:
    """Refuse options that would undo what a row stands for."""
    undone = given.keys() & load_recipe(TABLE3[0]).keys() & load_recipe(row).keys()
    if undone:
        raise OptionError(
            f"row {row} sets {', '.join(sorted(undone))} itself; leave the option out, or compare "
            "a recipe file that extends the row"
        )


def _check_comparable(configs: Mapping[str, TrainConfig]) -> None:
    first = next(iter(configs.values()))
    for field in EQUAL:
        values = {row: getattr(config, field) for row, config in configs.items()}
        if field == "epochs" and first.minutes is not None:
            continue  # minutes go before them
        if len(set(values.values())) > 1:
            listed = ", ".join(f"{row}: {value}" for row, value in values.items())
            raise OptionError(
                f"{field} differs between the rows ({listed}), so that they cannot be compared; "
                f"give --{field.replace('_', '-')}"
            )
    if first.val is None and not first.holdout:
        raise OptionError("there is nothing to measure AP on; give --val, or --holdout above 0")


def _run_in_process(run: Run) -> Record:
    """Train and measure in a new process; what that leaves behind is the record."""
    write_record(run.folder, run.record(failed="it ended before it could say why"))
    process = multiprocessing.get_context("spawn").Process(target=_train, args=(run,))
    process.start()
    try:
        process.join()
    finally:
        process.terminate()  # an interrupt may reach this process alone; no effect after its end
    record = read_record(run.folder)
    if process.exitcode and process.exitcode < 0:
        reason = f"killed by signal {-process.exitcode}" + (
            ", which the system sends when memory runs out" if process.exitcode == -9 else ""
        )
        record = run.record(failed=reason)
        write_record(run.folder, record)
    assert record is not None
    return record


def _train(run: Run) -> None:
    """What the process of a run does."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        from train.fit import fit

        write_record(run.folder, _measured(run, fit(run.config)))
    except KeyboardInterrupt:
        sys.exit(130)
    except RdliteError as error:
        write_record(run.folder, run.record(failed=str(error)))
        sys.exit(1)
    except Exception as error:
        # The other rows go on, whatever it is; the traceback still reaches the terminal.
        write_record(run.folder, run.record(failed=f"{type(error).__name__}: {error}"))
        raise


def _end_with_parent() -> None:
    """Leave no run behind that a repeated command would meet in its folder."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _measured(run: Run, results: Mapping[str, EvalResult]) -> Record:
    """The record of a finished run, from what `train.fit.fit` returned."""
    from rdlite.session import Session
    from train.build import build_model
    from train.checkpoint import MODEL

    if not results:
        raise OptionError("no image was held out to measure AP on; give --val")
    (result,) = results.values()
    scores = result.to_dict()
    model = build_model(run.config, len(Session(run.folder / MODEL).spec.names))
    return run.record(
        ap=scores["ap"],
        ap50=scores["ap50"],
        ap75=scores["ap75"],
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )
