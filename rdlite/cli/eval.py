"""`rdlite eval`: average precision of models, or of what they have found, on annotated images."""

from __future__ import annotations

import json as jsonlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from rdlite import defaults
from rdlite.cli.batch import make_detector
from rdlite.cli.exits import OK, SOME_FAILED
from rdlite.detector import Detector
from rdlite.errors import OptionError
from rdlite.evaluate import Differences, EvalResult, compare_results, evaluate_all
from rdlite.evaluate.bootstrap import FEWEST_IMAGES
from rdlite.evaluate.classnames import some
from rdlite.evaluate.draw import draw_confusion, draw_f1, draw_precision_recall, import_figure
from rdlite.evaluate.result import CONF, NUMBERS, at_confidence, percent
from rdlite.evaluate.saved import ENDINGS
from rdlite.registry import DEFAULT
from rdlite.storage.outputs import refuse_existing

SCHEMA: Final = 1
"""Of the JSON that is printed and written; docs/schemas/eval.schema.json describes it."""

_JSON = "eval.json"
_PICTURES: Final = {
    "pr.png": draw_precision_recall,
    "f1.png": draw_f1,
    "confusion.png": draw_confusion,
}


def evaluate(
    *,
    annotations: str,
    images: str | None,
    results: str | None,
    compare: list[str] | None,
    output: str | None,
    overwrite: bool,
    model: str | None,
    quiet: bool,
    json: bool,
    **detection: Any,
) -> int:
    """Measure COCO AP; see `rdlite eval --help`."""
    folder = _folder(output, images, overwrite)
    names = _names(model, results, compare or [])
    if images is None and not all(map(_is_saved, names)):
        raise OptionError("a model needs IMAGES to be measured on; name their folder")
    _refuse_unused(names, detection)
    sources = {name: _open(name, detection) for name in names}
    measured_by = {name: detection[name] for name in ("conf", "max_det")}
    with _bar("img", quiet) as show:
        measured = evaluate_all(sources, annotations, images, **measured_by, progress=show)
    compared = _compare(measured, quiet)
    content = _content(annotations, sources, measured, compared)
    if folder is not None:
        _write(folder, content, measured)
    print(jsonlib.dumps(content) if json else "\n".join(_lines(measured, compared)))
    for name, result in measured.items():
        for warning in result.warnings():
            print(f"rdlite: warning: {name}: {warning}", file=sys.stderr)
    return OK if all(result.complete() for result in measured.values()) else SOME_FAILED


def _folder(output: str | None, images: str | None, overwrite: bool) -> Path | None:
    """Return where the files go, checked before the work begins."""
    if output is None:
        return None
    import_figure()
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise OptionError(f"-o {folder} is a file; name a folder")
    for name in (_JSON, *_PICTURES):
        refuse_existing(folder / name, overwrite=overwrite)
        if images and (folder / name).exists() and _may_be_image(folder, Path(images)):
            raise OptionError(f"{folder / name} may be one of the images; name another -o")
    return folder


def _may_be_image(folder: Path, images: Path) -> bool:
    """Whether a picture there is not from an earlier run, whose JSON would lie beside it."""
    ours = (folder / _JSON).exists()
    return not ours and folder.resolve().is_relative_to(images.resolve())


def _names(model: str | None, results: str | None, compare: Sequence[str]) -> list[str]:
    if model is not None and results is not None:
        raise OptionError(
            f"--model {model} and --results {results} are two things to measure; give one, and "
            "the other with --compare"
        )
    if results is not None and not _is_saved(results):
        raise OptionError(
            f"--results {results}: the name must end in one of {', '.join(ENDINGS)}; rename it"
        )
    names = [results or model or DEFAULT, *compare]
    for name in names:
        if names.count(name) > 1:
            raise OptionError(f"{name} would be compared with itself; name another with --compare")
    return names


def _is_saved(name: str) -> bool:
    return name.lower().endswith(ENDINGS)


def _refuse_unused(names: Sequence[str], detection: Mapping[str, Any]) -> None:
    """Refuse options that would make no box other than it is."""
    usual = {"conf": CONF, "iou": defaults.IOU, "nms": defaults.NMS}
    if all(map(_is_saved, names)):
        for option, value in usual.items():
            if detection[option] != value:
                raise OptionError(
                    f"--{option} {detection[option]} is for models, and the boxes of {names[0]} "
                    "are made already; leave it out"
                )


def _open(name: str, detection: Mapping[str, Any]) -> Detector | Path:
    return Path(name) if _is_saved(name) else make_detector(model=name, **detection)


@contextmanager
def _bar(unit: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    from tqdm import tqdm

    with tqdm(
        unit=unit, disable=True if quiet else None, delay=2, file=sys.stderr, leave=False
    ) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def _compare(measured: Mapping[str, EvalResult], quiet: bool) -> dict[str, Differences]:
    """Return how each differs from the first, by name."""
    (_, first), *others = measured.items()
    compared = {}
    for name, other in others:
        with _bar("resamples", quiet) as show:
            compared[name] = compare_results(first, other, progress=show)
    return compared


def _content(
    annotations: str,
    sources: Mapping[str, Detector | Path],
    measured: Mapping[str, EvalResult],
    compared: Mapping[str, Differences],
) -> dict[str, Any]:
    first = next(iter(measured))
    return {
        "schema": SCHEMA,
        "annotations": annotations,
        "evaluations": [
            {
                "name": name,
                "model_sha256": getattr(sources[name], "model_sha256", None),
                **result.to_dict(),
            }
            for name, result in measured.items()
        ],
        "comparisons": [
            {"first": first, "second": name, **one.to_dict()} for name, one in compared.items()
        ],
    }


def _write(folder: Path, content: Mapping[str, Any], measured: Mapping[str, EvalResult]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = jsonlib.dumps(content, indent=1, ensure_ascii=False) + "\n"
    (folder / _JSON).write_text(text, encoding="utf-8")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for name, draw in _PICTURES.items():
            draw(measured, folder / name)
    # Such as of letters that the font does not have: once for each, and again for each picture.
    if said := list(dict.fromkeys(str(one.message).rstrip(".") for one in caught)):
        print(f"rdlite: warning: pictures: {some(said, most=2)}", file=sys.stderr)


def _lines(measured: Mapping[str, EvalResult], compared: Mapping[str, Differences]) -> list[str]:
    if not compared:
        (result,) = measured.values()
        return [result.summary()]
    lines = [f"{name}: {result.protocol()}" for name, result in measured.items()]
    lines += ["", *_table(measured, compared), ""]
    resamples = next(iter(compared.values())).resamples
    lines.append(
        f"in brackets where 95 % of the differences lie of {resamples} draws from the "
        f"{next(iter(measured.values())).images} images, [?] where objects are in fewer than "
        f"{FEWEST_IMAGES} of them"
    )
    first = next(iter(measured))
    lines += [f"{name} against {first}: {one.verdict()}" for name, one in compared.items()]
    notes = [f"{name}: {note}" for name, result in measured.items() for note in result.notes()]
    return [*lines, *notes]


def _table(measured: Mapping[str, EvalResult], compared: Mapping[str, Differences]) -> list[str]:
    """The AP of each class, then the other numbers, a column for each model; and differences."""
    results = list(measured.values())
    rows = [["AP of class", *measured, *(f"{name}: difference" for name in compared)]]
    for name in results[0].per_class:
        values = [percent(result.per_class[name].ap) for result in results]
        rows.append([name, *values, *(str(one.per_class[name]) for one in compared.values())])
    rows.append([])
    for number, text in NUMBERS.items():
        values = [percent(getattr(result, number)) for result in results]
        known = [getattr(one, number, "") for one in compared.values()]
        rows.append([text, *values, *map(str, known)])
    rows.append(["best F1, at conf", *(at_confidence(*result.best_f1()) for result in results)])
    return _align(rows)


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[k]) for row in rows if k < len(row)) for k in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if k else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=False))
        ).rstrip()
        for row in rows
    ]
