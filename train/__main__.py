"""`python -m train COMMAND`: look at data, train, compare, measure and export a detector.

python -m train check --data mine.json --images folder
python -m train fit --data mine.json --images folder --init default --out runs/mine
python -m train ablate --rows a,c,o --data train.json --images folder --out runs/ablate --epochs 12
python -m train pretrain --images folder-of-class-folders --out runs/pre --minutes 60
python -m train eval runs/a --set dev.json folder
python -m train errors runs/a --set dev.json folder -o errors
python -m train export runs/a -o detector.onnx
python -m train quantize detector.onnx --data mine.json --images folder -o detector-int8.onnx
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from rdlite.errors import OptionError, RdliteError
from rdlite.wording import one_sentence
from train.config import TrainConfig
from train.options import add_fields
from train.pretrain_config import PretrainConfig
from train.recipes import TABLE3


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = vars(_parser().parse_args(argv))
    run = arguments.pop("run")
    try:
        return run(**arguments) or 0
    except (RdliteError, OSError) as error:
        print(f"error: {one_sentence(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; give the same command to go on from what was saved", file=sys.stderr)
        return 130


def fit(*, recipe: list[str], **given: Any) -> None:
    """Train, or continue the run in the `out` folder."""
    from train import distributed
    from train.fit import fit, run_config

    try:
        fit(run_config(recipe, given))
    finally:
        distributed.leave()


def ablate(*, rows: str, seeds: str, recipe: list[str], **given: Any) -> int:
    """Train several recipes and compare them."""
    from train.ablate import ablate, parse_seeds

    return ablate(rows=rows.split(","), seeds=parse_seeds(seeds), recipes=recipe, given=given)


def pretrain(**given: Any) -> None:
    """Train the backbone alone to classify, or continue the run in the `out` folder."""
    from train import distributed
    from train.fit import run_config
    from train.pretrain import Pretrainer

    try:
        Pretrainer(run_config([], given, kind=PretrainConfig)).fit()
    finally:
        distributed.leave()


def speed(*, recipe: list[str], **given: Any) -> None:
    """Print how fast the loader and the optimiser steps are, each alone."""
    from train.recipes import make_config
    from train.speed import measure_speed

    print(measure_speed(make_config(recipe, given | {"out": "."})))


def average(*, weights: list[str], shares: str, output: str) -> None:
    """Write the mean of several trained networks."""
    from train.average import average_weights

    try:
        numbers = [float(share) for share in shares.split(",")]
    except ValueError as error:
        raise OptionError(f"shares must look like 0.75,0.25, got {shares!r}") from error
    average_weights(weights, numbers, output)
    print(output)


def recipes() -> None:
    """Print the named recipes."""
    from train.recipes import list_recipes

    print(list_recipes())


def evaluate(**options: Any) -> None:
    """Measure COCO AP of a run, a weights file or a model file, through the shipped run time."""
    from train.report import evaluate_sets

    evaluate_sets(**options)


def errors(**options: Any) -> None:
    """Say and show what a run, a weights file or a model file gets wrong."""
    from train.errors import write_errors

    write_errors(**options)


def export(**options: Any) -> None:
    """Write a run or a weights file as .onnx, and its model card."""
    from train.report import export_with_card

    export_with_card(**options)


def quantize(**options: Any) -> None:
    """Make an int8 model file of an fp32 one."""
    from train.quantize import quantize_model

    quantize_model(**options)


def ship(**options: Any) -> None:
    """Put a model file into the package."""
    from train.ship import ship_model

    print(ship_model(**options))


def anchors(*, data: str, images: str | None, search: bool) -> None:
    """Print which share of the boxes the anchors reach, and with `search` which others would."""
    from train.anchor_search import measure_recall, search_anchors, true_boxes
    from train.coco import load_coco

    boxes = true_boxes(load_coco(data, images))
    print(measure_recall(boxes).table())
    if search:
        shapes = search_anchors(boxes)
        print(f"\n{shapes.options()}\n{measure_recall(boxes, shapes).table()}")


def check(**options: Any) -> int:
    """Look at the data before training on it; 3 when some of it will not be used."""
    from train.check import check

    return check(**options)


def class_weights(**options: Any) -> None:
    """Print and draw which class weights a training set gives."""
    from train.class_weights import write_class_weights

    print(write_class_weights(**options))


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

    command = commands.add_parser(
        "ablate",
        help="train several recipes under one budget and compare them; finished runs are skipped",
    )
    command.set_defaults(run=ablate)
    command.add_argument(
        "--rows",
        default=",".join(TABLE3),
        help="recipes to compare, separated by commas (default: all rows of Table 3)",
    )
    command.add_argument(
        "--seeds", default="0", help="seeds to train each with, separated by commas (default: 0)"
    )
    _add_config(command, leave_out=("seed",))

    command = commands.add_parser(
        "pretrain", help="train the backbone alone to classify; `fit --init` starts from the result"
    )
    command.set_defaults(run=pretrain)
    add_fields(command, PretrainConfig)

    command = commands.add_parser(
        "speed", help="images a second of the loader alone and of the optimiser steps alone"
    )
    command.set_defaults(run=speed)
    _add_config(command, leave_out=("out", "minutes", "epochs"))

    command = commands.add_parser("recipes", help="list the named recipes")
    command.set_defaults(run=recipes)

    command = commands.add_parser("eval", help="COCO AP through the shipped run time")
    command.set_defaults(run=evaluate)
    _add_weights(command)
    _add_boxes(command)
    command.add_argument("-o", "--out", help="folder for results.json and precision-recall.png")

    command = commands.add_parser(
        "errors", help="what a detector gets wrong, what that costs, and the worst images"
    )
    command.set_defaults(run=errors)
    _add_weights(command)
    _add_boxes(command)
    command.add_argument("--worst", type=int, default=24, help="images of a set to show (24)")
    command.add_argument("-o", "--out", default="errors", help="folder for errors.html and .json")

    command = commands.add_parser("export", help="write one .onnx file and its model card")
    command.set_defaults(run=export)
    _add_weights(command, also=", or random for a network to measure time with")
    command.add_argument("-o", "--output", required=True, help=".onnx file to write")
    command.add_argument("--note", default="", help="a sentence for the model card: data, recipe")
    command.add_argument(
        "--width", type=int, metavar="C", help="the paper's c of random weights (default: 72)"
    )
    command.add_argument(
        "--full", dest="half", action="store_false", help="store kernels as float32, not float16"
    )
    _add_overwrite(command)

    _add_quantize(commands)

    command = commands.add_parser(
        "ship", help="put a model and its card into the package, under a name that Detector opens"
    )
    command.set_defaults(run=ship)
    command.add_argument("model", help=".onnx file, its card (.md) beside it")
    command.add_argument("--name", required=True, help="such as refinedetlite48")
    command.add_argument(
        "--alias",
        dest="aliases",
        action="append",
        metavar="NAME",
        help="another name; may be given several times (default: those that the name has)",
    )
    command.add_argument("--about", help="one line for `rdlite models`")

    command = commands.add_parser(
        "average", help="the mean of networks that were trained on from the same weights"
    )
    command.set_defaults(run=average)
    command.add_argument(
        "weights", nargs="+", help="folders of runs, .safetensors, .pt or .onnx files, or default"
    )
    command.add_argument("--shares", required=True, help="how much of each, such as 0.75,0.25")
    command.add_argument("-o", "--output", required=True, help=".safetensors file to write")

    command = commands.add_parser("anchors", help="recall of the anchors on a training set")
    command.set_defaults(run=anchors)
    command.add_argument(
        "--search", action="store_true", help="look for sizes and ratios that reach more boxes"
    )
    command.add_argument("--data", required=True, help=_DATA)
    command.add_argument("--images", help="folder of the images; COCO does not need it")

    _add_check(commands)

    command = commands.add_parser(
        "class-weights", help="weights of the classes against their boxes, as table and chart"
    )
    command.set_defaults(run=class_weights)
    command.add_argument("--data", required=True, help=_DATA)
    command.add_argument("--images", help="folder of the images; COCO does not need it")
    command.add_argument("-o", "--output", required=True, help=".png file to write")
    return parser


_DATA = "COCO json, folder of VOC XML files, or YOLO data.yaml or folder; PATH:SPLIT picks a split"


def _add_check(commands: Any) -> None:
    from train.formats import rules

    command = commands.add_parser(
        "check",
        help="look at the data before training: what is wrong with it, and a picture of samples",
        description=check.__doc__,
        epilog=rules(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=check)
    command.add_argument("--data", required=True, help=_DATA)
    command.add_argument("--images", required=True, help="folder of the images or tar shards")
    command.add_argument("--val", help="the same for validation")
    command.add_argument("--val-images", help="folder of its images (default: --images)")
    command.add_argument(
        "-o",
        "--out",
        default="check",
        help="folder for check.md and contact-sheet.png (default: %(default)s)",
    )
    command.add_argument(
        "--init",
        default="default",
        help="weights whose classes are compared with the data's (default: %(default)s)",
    )
    command.add_argument("--seed", type=int, default=0, help="decides which samples are drawn")
    command.add_argument(
        "--samples", type=int, default=24, help="how many are drawn (default: %(default)s)"
    )
    command.add_argument(
        "--decode",
        action="store_true",
        help="decode every image; otherwise only headers are read, and damage behind them is found "
        "when training starts",
    )


def _add_quantize(commands: Any) -> None:
    command = commands.add_parser(
        "quantize", help="make an int8 model and its card of an fp32 one, without training"
    )
    command.set_defaults(run=quantize)
    command.add_argument(
        "model",
        nargs="?",
        default="default",
        help="fp32 .onnx file, or the name of a model that comes with rdlite (default: default)",
    )
    command.add_argument("--data", required=True, help=f"training images: {_DATA}")
    command.add_argument("--images", required=True, help="folder of the images or tar shards")
    _add_sets(command)
    command.add_argument("-o", "--output", required=True, help=".onnx file to write")
    command.add_argument("--note", default="", help="a sentence for the model card")
    command.add_argument(
        "--calibrate",
        type=int,
        default=96,
        help="images to calibrate with (default: %(default)s); 32 more measure errors",
    )
    command.add_argument(
        "--most-float",
        type=int,
        default=6,
        help="layers that may stay in float32 where int8 loses much (default: %(default)s)",
    )
    command.add_argument("--seed", type=int, default=0, help="decides which images are drawn")
    _add_overwrite(command)


def _add_overwrite(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--overwrite", action="store_true", help="replace the file and its card if they exist"
    )


def _add_weights(command: argparse.ArgumentParser, also: str = "") -> None:
    command.add_argument(
        "weights",
        help="folder of a run, .safetensors, .pt or .onnx file, or default" + also,
    )
    command.add_argument(
        "--classes", help="COCO json that names the classes, for .safetensors files"
    )
    _add_sets(command)


def _add_boxes(command: argparse.ArgumentParser) -> None:
    command.add_argument("--nms", default="hard", choices=("hard", "linear", "gaussian"))
    command.add_argument(
        "--conf", type=float, default=0.01, help="least confidence (default %(default)s)"
    )


def _add_sets(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--set",
        dest="sets",
        nargs=2,
        action="append",
        default=[],
        metavar=("ANNOTATIONS", "IMAGES"),
        help=f"{_DATA} (val, where data.yaml has several); and the folder of its images or tar "
        "shards; may be given several times",
    )


def _add_config(command: argparse.ArgumentParser, leave_out: Sequence[str] = ()) -> None:
    """The options of TrainConfig, any of which may come from a recipe instead."""
    command.add_argument(
        "--recipe",
        action="append",
        default=[],
        help="named recipe or .toml file with any of the settings below; a later one goes before "
        "an earlier one, and options before both",
    )
    add_fields(command, TrainConfig, leave_out=leave_out, required="required, here or in a recipe")


if __name__ == "__main__":
    sys.exit(main())
