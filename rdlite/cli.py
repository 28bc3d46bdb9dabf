"""The `rdlite` command: its options, and what its exit codes mean.

Exit codes: 0 all good, 1 wrong usage or nothing done, 3 some inputs failed, 130 interrupted (by
Ctrl-C or SIGTERM).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final, NoReturn, TextIO

from rdlite.errors import RdliteError

OK: Final = 0
FAILED: Final = 1
SOME_FAILED: Final = 3
INTERRUPTED: Final = 130

_EXAMPLES = """\
examples:
  rdlite demo
  rdlite detect photos/ -o out
  rdlite detect "*.jpg" -o - --classes person,car | jq .
  rdlite annotate clip.mp4 -o annotated.mp4 --conf 0.4
  rdlite annotate videos/ -o out --workers auto
"""
_MODEL = "name (see rdlite models) or .onnx file (default: the embedded model)"
_FORMATS = ("jsonl", "coco", "csv", "yolo", "voc", "parquet")


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        # An abbreviation would change its meaning when an option is added.
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(FAILED, f"rdlite: error: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments; None for those of the process.

    Returns:
        The exit code.
    """
    options = vars(_parser().parse_args(argv))
    module, name = options.pop("run").split(":")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be any bytes
    try:
        with _interruptible():
            # The libraries that a command needs are loaded only now: `--help` answers at once.
            code: int = getattr(importlib.import_module(f"rdlite.{module}"), name)(**options)
            sys.stdout.flush()
            return code
    except KeyboardInterrupt:
        print("rdlite: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read the detections has seen enough
        silence(sys.stdout)
        return OK
    except (RdliteError, ImportError) as error:
        print(f"rdlite: error: {error}", file=sys.stderr)
    except OSError as error:
        print(
            f"rdlite: error: {error.filename or 'output'}: {error.strerror or error}",
            file=sys.stderr,
        )
    return FAILED


def silence(stream: TextIO) -> None:
    """Let what is written to a stream that nobody reads any more go nowhere, without an error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Interruption:
    """Whether the user has asked a command to stop.

    The exception alone may get lost: raised inside a destructor, Python prints and drops it.
    """

    asked = False


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGINT end a command alike, and be remembered: what is done is kept."""

    def interrupt(*_: object) -> NoReturn:
        Interruption.asked = True
        raise KeyboardInterrupt

    Interruption.asked = False
    try:
        before = {s: signal.signal(s, interrupt) for s in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # only the main thread may
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="rdlite",
        description="Object detection on one CPU thread: images and videos in, boxes out.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action=_Version, nargs=0, default=argparse.SUPPRESS, help="show it and exit"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    _add_detect(commands)
    _add_annotate(commands)
    _add_demo(commands)
    _add_tools(commands)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from rdlite import __version__

        print(f"rdlite {__version__}")
        parser.exit()


def _add_detect(commands: Any) -> None:
    command = _command(
        commands,
        "detect",
        "cli_detect:detect",
        "find objects in images and videos",
        'example: rdlite detect photos/ "more/**/*.jpg" clip.mp4 -o out --workers auto',
    )
    command.add_argument(
        "sources",
        nargs="+",
        metavar="SRC",
        help="image, video, folder (with all below it, except hidden files) or quoted pattern",
    )
    command.add_argument(
        "-o",
        "--output",
        default="rdlite-out",
        metavar="OUT",
        help="folder for annotated copies of the images, detections in images (all in one file), "
        "detections in videos (a file each) and errors.jsonl; - writes the detections to standard "
        "output, and nothing else (default: %(default)s)",
    )
    command.add_argument(
        "--no-images", dest="images", action="store_false", help="no annotated copies"
    )
    _add_video(command)
    _add_detection(command)
    _add_workers(command)
    _add_output(command)


def _add_annotate(commands: Any) -> None:
    command = _command(
        commands,
        "annotate",
        "cli_annotate:annotate",
        "copy videos with the objects boxed and named",
        "examples: rdlite annotate clip.mp4 -o annotated.mp4\n"
        "          rdlite annotate videos/ -o out --workers auto --resume",
    )
    command.add_argument("sources", nargs="+", metavar="VIDEO", help="as SRC of rdlite detect")
    command.add_argument(
        "-o",
        "--output",
        default="rdlite-out",
        metavar="OUT",
        help="an .mp4 for one video, else a folder; the detections are written beside each "
        "video (default: %(default)s)",
    )
    group = _add_video(command)
    group.add_argument("--no-audio", dest="audio", action="store_false", help="drop the sound")
    group.add_argument("--codec", default="libx264", help="FFmpeg encoder (default: %(default)s)")
    group.add_argument(
        "--crf", type=int, default=23, help="quality, lower is better (default: %(default)s)"
    )
    group.add_argument(
        "--preset",
        default="veryfast",
        metavar="P",
        help="of libx264 and libx265, from ultrafast to veryslow: the slower, the smaller is the "
        "file (default: %(default)s)",
    )
    group.add_argument(
        "--encoder-threads",
        type=int,
        default=1,
        metavar="N",
        help="threads of the encoder, for each worker (default: %(default)s)",
    )
    _add_detection(command)
    _add_workers(command)
    _add_output(command)


def _add_video(command: argparse.ArgumentParser) -> Any:
    group = command.add_argument_group("video")
    group.add_argument(
        "--stride", type=int, default=1, metavar="N", help="detect in every Nth frame"
    )
    group.add_argument("--start", type=float, metavar="SECONDS", help="begin here")
    group.add_argument("--end", type=float, metavar="SECONDS", help="stop here")
    return group


def _add_demo(commands: Any) -> None:
    command = _command(
        commands,
        "demo",
        "cli_demo:demo",
        "annotate the street clip that comes with the `demo` extra",
    )
    command.add_argument(
        "-o",
        "--output",
        default="rdlite-demo",
        metavar="FOLDER",
        help="for bikes.mp4 and bikes.jsonl; those of an earlier run are replaced "
        "(default: %(default)s)",
    )
    command.add_argument("--quiet", action="store_true", help="no progress bar")


def _add_tools(commands: Any) -> None:
    command = _command(
        commands, "eval", "cli_tools:evaluate", "COCO average precision on annotated images"
    )
    command.add_argument("annotations", metavar="JSON", help="COCO annotation file")
    command.add_argument("images", metavar="IMAGES", help="folder of its images or of tar shards")
    _add_detection(command, conf=0.01, classes=False)
    _add_output(command, files=False)

    command = _command(commands, "bench", "cli_bench:bench", "milliseconds per picture, here")
    command.add_argument("--image", help="picture to use (default: 1280x720 of smooth noise)")
    command.add_argument("--runs", type=int, default=100, help="default: %(default)s")
    command.add_argument(
        "--all", dest="all_models", action="store_true", help="all of rdlite models, in turns"
    )
    _add_detection(command, many_models=True)
    command.add_argument("--json", action="store_true", help="print JSON")

    command = _command(commands, "info", "cli_tools:info", "what a model file says about itself")
    command.add_argument("model", nargs="?", help=_MODEL)
    command.add_argument("--json", action="store_true", help="print JSON")

    command = _command(
        commands, "models", "cli_models:models", "which models have a name here, and which suits"
    )
    command.add_argument("--json", action="store_true", help="print JSON")

    command = _command(commands, "check", "cli_check:check", "is this installation sound?")
    command.add_argument("--json", action="store_true", help="print JSON")


def _command(
    commands: Any, name: str, run: str, text: str, epilog: str | None = None
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=text,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    return command


def _add_detection(
    command: argparse.ArgumentParser,
    *,
    conf: float = 0.25,
    classes: bool = True,
    many_models: bool = False,
) -> None:
    group = command.add_argument_group("detection")
    many: dict[str, Any] = {"nargs": "+", "action": "extend"} if many_models else {}
    group.add_argument("--model", **many, help=_MODEL)
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


def _classes(text: str) -> list[str | int]:
    parts = [part.strip() for part in text.split(",")]
    return [int(part) if part.isdecimal() else part for part in parts if part]


def _add_workers(command: argparse.ArgumentParser) -> None:
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


def _workers(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be 1 or more, or auto, got {text!r}")
    return int(text)


def _add_output(command: argparse.ArgumentParser, *, files: bool = True) -> None:
    group = command.add_argument_group("output")
    if files:
        group.add_argument(
            "--format",
            default="jsonl",
            choices=_FORMATS,
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
