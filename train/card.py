"""The model card: how well a detector does, and how it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rdlite.errors import OptionError
from rdlite.evaluate import EvalResult


def keep_existing(model: Path) -> None:
    """Refuse to write a model file and its card where either is already.

    Raises:
        OptionError: One of them exists.
    """
    present = [str(file) for file in (model, model.with_suffix(".md")) if file.exists()]
    if present:
        raise OptionError(
            f"{' and '.join(present)} would be replaced; give --overwrite or another -o"
        )


def model_card(
    path: Path,
    provenance: Mapping[str, Any],
    results: Mapping[str, EvalResult],
    *,
    difference: float,
    curves: str | None,
    nms: str,
) -> str:
    """Write the card of a model file, in Markdown.

    Args:
        path: The model file.
        provenance: What the file says about its making; "note" opens the card.
        results: What was measured, by the name of the set.
        difference: Largest difference of any output between onnxruntime and PyTorch.
        curves: Name of the picture of its training curves, if there is one.
        nms: Suppression that was measured with.
    """
    return "\n".join(
        [
            f"# Model card: {path.stem}",
            "",
            str(provenance.get("note", "")),
            "",
            *_accuracy(results, nms),
            *_training(provenance),
            *(["", f"![Loss and learning rate of the last run]({curves})"] if curves else []),
            "",
            f"onnxruntime against PyTorch, largest difference of any output: {difference:.2g}.",
            "",
            *(line for name, result in results.items() for line in _classes(name, result)),
        ]
    )


def _accuracy(results: Mapping[str, EvalResult], nms: str) -> list[str]:
    suppression = "hard NMS at 0.5" if nms == "hard" else f"{nms} soft-NMS"
    rows = []
    for name, r in results.items():
        numbers = (r.ap, r.ap50, r.ap75, r.ap_small, r.ap_medium, r.ap_large)
        rows.append((name, str(r.images), *map(_percent, numbers)))
    head = ("set", "images", "AP", "AP50", "AP75", "small", "medium", "large")
    notes = [f"* {name}: {note}" for name, r in results.items() for note in r.notes()]
    return [
        "## Accuracy",
        "",
        f"COCO protocol, score ≥ 0.01, {suppression}, at most 100 boxes an image.",
        "",
        *table(head, rows),
        "",
        *([*notes, ""] if notes else []),
    ]


def _training(provenance: Mapping[str, Any]) -> list[str]:
    parts = provenance.get("mean", ())
    rows = [(f"{p['share']:.4g} of {p['source']}", _list(_told(p))) for p in parts]
    rows += [(key, str(value)) for key, value in _told(provenance).items()]
    return ["## Training", "", *table(("setting", "value"), rows)] if rows else []


def _told(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Facts and settings of a run, or of what the runs behind a mean have in common."""
    elsewhere = ("recipe", "results", "note", "mean", "source", "share")
    facts = {k: v for k, v in provenance.items() if k not in elsewhere}
    # The minutes that a run took say more than those it was given.
    return facts | {k: v for k, v in provenance.get("recipe", {}).items() if k not in facts}


def _list(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in facts.items())


def _classes(name: str, result: EvalResult) -> list[str]:
    rows = [(c, _percent(one.ap), _percent(one.ap50)) for c, one in result.per_class.items()]
    return [f"## {name}, by class", "", *table(("class", "AP", "AP50"), rows), ""]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (head, *rows)]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return [lines[0], "|" + "---|" * len(head), *lines[1:]]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}" if share == share else "-"
