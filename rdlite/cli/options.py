"""Options that several commands share, and how a command is added to the parser."""

from __future__ import annotations

import argparse
import sys
from typing import Any, Final, NoReturn

from rdlite.cli.exits import FAILED

MODEL: Final = "name (see rdlite models) or .onnx file (default: the embedded model)"
FORMATS: Final = ("jsonl", "coco", "csv", "yolo", "voc", "parquet")


class Parser(argparse.ArgumentParser):
    """A parser that takes no abbreviations and ends with our exit code."""

    def __init__(self, **options: Any) -> None:
        # An abbreviation would change its meaning when an option is added.
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and how the command is used."""
        self.print_usage(sys.stderr)
        self.exit(FAILED, f"rdlite: error: {message}\n")


def add_command(
    commands: Any, name: str, run: str, text: str, epilog: str | None = None
) -> argparse.ArgumentParser:
    """Add a command; `run` is the function that does it, "module:function" below `rdlite.cli`."""
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=text,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    return command


def add_detection(
    command: argparse.ArgumentParser,
    *,
    conf: float = 0.25,
    classes: bool = True,
    many_models: bool = False,
) -> None:
    """Add the options of a detector, of several models if `many_models`."""
    group = command.add_argument_group("detection")
    many: dict[str, Any] = {"nargs": "+", "action": "extend"} if many_models else {}
    group.add_argument("--model", **many, help=MODEL)
    group.add_argument(
        "--conf", type=float, default=conf, help="lowest score kept, 0 to 1 (default: %(default)s)"
    )
    group.add_argument(
        "--iou",
        type=float,
        default=0.5,
        help="overlap from which --nms hard and linear act (default: %(default)s)",
    )
    group.add_argument(
        "--nms",
        default="gaussian",
        choices=("hard", "linear", "gaussian"),
        help="what overlapping boxes do to each other (default: %(default)s)",
    )
    group.add_argument(
        "--max-det",
        type=int,
        default=100,
        metavar="N",
        help="most objects in one picture (default: %(default)s)",
    )
    if classes:
        group.add_argument(
            "--classes",
            type=_classes,
            help="names or class_ids, separated by commas: 'person,traffic light'",
        )
    group.add_argument(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="threads of the network, in each worker (default: %(default)s)",
    )


def add_workers(command: argparse.ArgumentParser) -> None:
    """Add the options of who does the work."""
    group = command.add_argument_group("workers")
    group.add_argument(
        "--workers",
        type=_workers,
        default=1,
        metavar="N",
        help="processes that share the work, long videos included; auto: one per usable core "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--engine",
        default="local",
        choices=("local", "ray"),
        help="where they run: on this machine or on a Ray cluster (default: %(default)s)",
    )
    group.add_argument(
        "--ray-address",
        metavar="A",
        help="cluster to join, auto for that of this machine (default: one of our own)",
    )


def add_video(command: argparse.ArgumentParser) -> Any:
    """Add which frames are looked at; return the group for more."""
    group = command.add_argument_group("video")
    group.add_argument(
        "--stride", type=int, default=1, metavar="N", help="detect in every Nth frame"
    )
    group.add_argument("--start", type=float, metavar="SECONDS", help="begin here")
    group.add_argument("--end", type=float, metavar="SECONDS", help="stop here")
    return group


def add_output(command: argparse.ArgumentParser, *, files: bool = True) -> None:
    """Add what is written and said; `files` are results on disk."""
    group = command.add_argument_group("output")
    if files:
        group.add_argument(
            "--format",
            default="jsonl",
            choices=FORMATS,
            help="of the detections (default: %(default)s)",
        )
        group.add_argument(
            "--resume",
            action="store_true",
            help="go on with a run that was stopped or killed; what is done stays, what has "
            "failed or changed is done again",
        )
        group.add_argument(
            "--overwrite", action="store_true", help="replace existing files and begin anew"
        )
    quiet = "no progress bar and no summary" if files else "no progress bar"
    group.add_argument("--quiet", action="store_true", help=quiet)
    group.add_argument("--json", action="store_true", help="print the summary as JSON")


def _classes(text: str) -> list[str | int]:
    parts = [part.strip() for part in text.split(",")]
    return [int(part) if part.isdecimal() else part for part in parts if part]


def _workers(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be 1 or more, or auto, got {text!r}")
    return int(text)
