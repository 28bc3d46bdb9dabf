"""The parser of the `rdlite` command, and the options of the commands that make results.

It imports nothing that takes time: `--help` answers at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any, Final, NoReturn

from rdlite.cli.options import (
    EXITS,
    Formatter,
    Parser,
    add_command,
    add_detection,
    add_output,
    add_video,
    add_workers,
)
from rdlite.cli.parser_results import add_results
from rdlite.cli.parser_tools import add_tools

GROUPS: Final = {
    "make results": ("detect", "annotate", "demo"),
    "look at results": ("report", "compare", "convert"),
    "models and machine": ("models", "info", "eval", "bench", "check", "completion"),
}
"""The commands, as `rdlite --help` lists them."""

_ABOUT: Final = "Object detection on one CPU thread: images and videos in, boxes out."
_EXAMPLES: Final = f"""\
examples:
  rdlite demo
  rdlite detect photos/ -o out
  rdlite detect "*.jpg" -o - --classes person,car | jq .
  rdlite annotate clip.mp4 -o annotated.mp4 --conf 0.4

rdlite COMMAND --help has the options and examples of a command.

{EXITS}"""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; its result has `run`, "module:function" below `rdlite.cli`."""
    parser = Parser(
        prog="rdlite", usage="rdlite COMMAND ...", epilog=_EXAMPLES, formatter_class=Formatter
    )
    parser.add_argument(
        "--version", action=_Version, nargs=0, default=argparse.SUPPRESS, help="show it and exit"
    )
    parser.add_argument(
        "--help-json",
        action=_HelpJson,
        nargs=0,
        default=argparse.SUPPRESS,
        help="show all commands and options as JSON and exit",
    )
    commands = parser.add_subparsers(
        prog="rdlite",
        metavar="COMMAND",
        required=True,
        parser_class=Parser,
        help=argparse.SUPPRESS,
    )
    _add_detect(commands)
    _add_annotate(commands)
    _add_demo(commands)
    add_results(commands)
    add_tools(commands)
    # argparse cannot group commands itself
    parser.description = "\n".join([_ABOUT, *_listed(commands.choices)])
    return parser


def _listed(commands: Mapping[str, argparse.ArgumentParser]) -> Iterator[str]:
    for title, names in GROUPS.items():
        yield f"\n{title}:"
        for name in names:
            yield f"  {name:12}{commands[name].description}"


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from rdlite import __version__

        print(f"rdlite {__version__}")
        parser.exit()


class _HelpJson(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        import json

        from rdlite.cli.describe import describe

        print(json.dumps(describe(parser, GROUPS)))
        parser.exit()


def _add_detect(commands: Any) -> None:
    command = add_command(
        commands,
        "detect",
        "detect:detect",
        "find objects in images and videos",
        """
        rdlite detect street.jpg -o out
        rdlite detect photos/ "more/**/*.jpg" clip.mp4 -o out --workers auto
        rdlite detect photos/ -o out --workers auto --resume
        rdlite detect photos/ -o - --format csv --classes person,car > boxes.csv
        """,
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
    add_video(command)
    add_detection(command)
    add_workers(command)
    add_output(command)


def _add_annotate(commands: Any) -> None:
    command = add_command(
        commands,
        "annotate",
        "annotate:annotate",
        "copy videos with the objects boxed and named",
        """
        rdlite annotate clip.mp4 -o annotated.mp4
        rdlite annotate clip.mp4 -o first-minute.mp4 --end 60 --stride 5 --no-audio
        rdlite annotate videos/ -o out --workers auto --resume
        """,
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
    group = add_video(command)
    group.add_argument("--no-audio", dest="audio", action="store_false", help="drop the sound")
    group.add_argument(
        "--codec", default="libx264", metavar="C", help="FFmpeg encoder (default: %(default)s)"
    )
    group.add_argument(
        "--crf",
        type=int,
        default=23,
        metavar="N",
        help="quality, lower is better and larger, up to 51 in H.264 and HEVC, 63 in AV1 and VP9 "
        "(default: %(default)s)",
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
    add_detection(command)
    add_workers(command)
    add_output(command)


def _add_demo(commands: Any) -> None:
    command = add_command(
        commands,
        "demo",
        "demo:demo",
        "annotate the street clip that comes with the `demo` extra",
        """
        rdlite demo
        rdlite demo -o /tmp/street --quiet
        """,
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
