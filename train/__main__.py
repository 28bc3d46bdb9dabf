"""`python -m train fit|eval|export|anchors`: train, measure and export a detector.

python -m train fit --data train.json --images folder --out runs/a --minutes 90
python -m train eval runs/a --set dev.json folder
python -m train export runs/a -o detector.onnx
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import sys
import typing
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from rdlite.errors import OptionError, RdliteError
from train.config import TrainConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code, 0 or 1."""
    arguments = vars(_parser().parse_args(argv))
    run = arguments.pop("run")
    try:
        run(**arguments)
    except RdliteError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "interrupted; give the same command to go on from the last checkpoint", file=sys.stderr
        )
        return 130
    return 0


def fit(**options: Any) -> None:
    """Train, or continue the run in the `out` folder."""
    from train.engine import Trainer

    Trainer(TrainConfig(**options)).fit()


def evaluate(**options: Any) -> None:
    """Measure COCO AP of a run, a weights file or a model file, through the shipped run time."""
    from train.report import evaluate_sets

    evaluate_sets(**options)


def export(**options: Any) -> None:
    """Write a run or a weights file as .onnx, and its model card."""
    from train.report import export_with_card

    export_with_card(**options)


def anchors(*, data: str) -> None:
    """Print which share of the training boxes the anchors reach."""
    from train.report import anchor_recall

    print(anchor_recall(data))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("fit", help="train, or continue the run in --out")
    command.set_defaults(run=fit)
    _add_config(command)

    command = commands.add_parser("eval", help="COCO AP through the shipped run time")
    command.set_defaults(run=evaluate)
    _add_weights(command)
    command.add_argument("--nms", default="hard", choices=("hard", "linear", "gaussian"))
    command.add_argument(
        "--conf", type=float, default=0.01, help="least confidence (default %(default)s)"
    )
    command.add_argument("-o", "--out", help="folder for results.json and precision-recall.png")

    command = commands.add_parser("export", help="write one .onnx file and its model card")
    command.set_defaults(run=export)
    _add_weights(command)
    command.add_argument("-o", "--output", required=True, help=".onnx file to write")
    command.add_argument("--note", default="", help="a sentence for the model card: data, recipe")
    command.add_argument(
        "--full", dest="half", action="store_false", help="store kernels as float32, not float16"
    )

    command = commands.add_parser("anchors", help="recall of the anchors on a training set")
    command.set_defaults(run=anchors)
    command.add_argument("--data", required=True, help="COCO json")
    return parser


def _add_weights(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "weights", help="folder of a run, .safetensors, .pt or .onnx file, or default"
    )
    command.add_argument(
        "--classes", help="COCO json that names the classes, for .safetensors files"
    )
    command.add_argument(
        "--set",
        dest="sets",
        nargs=2,
        action="append",
        default=[],
        metavar=("JSON", "IMAGES"),
        help="COCO json and the folder of its images or tar shards; may be given several times",
    )


def _add_config(command: argparse.ArgumentParser) -> None:
    """One option for every field of TrainConfig, with the field's type and default."""
    types, explained = typing.get_type_hints(TrainConfig), _field_docs()
    for field in dataclasses.fields(TrainConfig):
        required = field.default is dataclasses.MISSING
        kind = next(
            t
            for t in (typing.get_args(types[field.name]) or (types[field.name],))
            if t is not type(None)
        )
        command.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=_boolean if kind is bool else kind,
            required=required,
            default=None if required else field.default,
            help=explained[field.name].replace("%", "%%")
            + ("" if required else " (default: %(default)s)"),
        )


def _field_docs() -> dict[str, str]:
    """The strings under the fields of TrainConfig, by field."""
    (definition,) = ast.parse(inspect.getsource(TrainConfig)).body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise OptionError(f"wanted true or false, got {text!r}")
    return text.lower() == "true"


if __name__ == "__main__":
    sys.exit(main())
