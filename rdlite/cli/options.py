"""Options that several commands share, and how a command is added to the parser."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NoReturn

from rdlite import defaults
from rdlite.cli.exits import FAILED, MEANINGS

MODEL: Final = "name (see rdlite models) or .onnx file (default: the embedded model)"
EXITS: Final = "exit codes:\n  " + ", ".join(f"{code} {MEANINGS[code]}" for code in MEANINGS)
SHELLS: Final = ("bash", "zsh", "fish", "tcsh", "powershell")
FORMATS: Final = ("jsonl", "coco", "csv", "yolo", "voc", "parquet", "labelstudio")


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Shows how a command is used in one line; its options are listed below it anyway."""

    def add_usage(self, usage: Any, actions: Any, groups: Any, prefix: Any = None) -> None:
        """Leave options out of the usage."""
        self._prog += " [options]"
        must = [action for action in actions if action.required or not action.option_strings]
        super().add_usage(usage, must, (), prefix)


class Parser(argparse.ArgumentParser):
    """A parser that takes no abbreviations, knows what was meant, and ends with our exit code."""

    def __init__(self, **options: Any) -> None:
        # An abbreviation would change its meaning when an option is added.
        super().__init__(allow_abbrev=False, **options)
        self._words: list[str] = []

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse what is not known here, where the usage and the options of the command are."""
        words = self._words = sys.argv[1:] if args is None else list(args)
        first = "".join(words[:1]).partition("=")[0]
        if len(first) > 2 and first.startswith("--") and first not in self._option_string_actions:
            self._refuse(words[:1])  # argparse would only say what is missing
        namespace, unknown = super().parse_known_args(words, namespace)
        self._refuse(unknown)
        for action in self._actions:
            if getattr(namespace, action.dest, None) == "":
                text = "is empty; is a variable of the shell not set?"
                self.error(str(argparse.ArgumentError(action, text)))
        return namespace, unknown

    def _refuse(self, unknown: list[str]) -> None:
        if unknown:
            options = [name for name in self._option_string_actions if name.startswith("--")]
            hints = (hint(word.partition("=")[0], options) for word in unknown)
            self.error(
                f"unrecognized arguments: {' '.join(unknown)}{next(filter(None, hints), '')}"
            )

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        # The one place where argparse can be told what to say of a wrong choice.
        if action.choices is None or value in action.choices:
            return
        if isinstance(action, argparse._SubParsersAction):
            self.error(
                f"there is no command {value!r}{_meant(value) or hint(value, action.choices)}"
            )
        wanted = ", ".join(map(str, action.choices))
        text = f"must be one of {wanted}, got {value!r}{hint(value, action.choices)}"
        raise argparse.ArgumentError(action, text)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and where it says how the command is used."""
        hints = (f" (for the file, write ./{word})" for word in self._words if self._is_file(word))
        self.exit(FAILED, f"rdlite: error: {message}{next(hints, '')}; see {self.prog} --help\n")

    def _is_file(self, word: str) -> bool:
        """Whether a word that begins like an option is the name of a file."""
        known = word == "-" or word in self._option_string_actions
        return word.startswith("-") and not known and os.path.lexists(word)

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """End, with an error that can still be told if the help could not be written."""
        sys.stdout.flush()
        super().exit(status, message)


def add_command(
    commands: Any, name: str, run: str, text: str, examples: str
) -> argparse.ArgumentParser:
    """Add a command.

    Args:
        commands: What `add_subparsers` returned.
        name: The command; `rdlite.cli.parser.GROUPS` says where `rdlite --help` lists it.
        run: The function that does it, "module:function" below `rdlite.cli`.
        text: What it does, in one line.
        examples: Two to four commands that work as they stand, a line each.
    """
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=text,
        epilog=f"examples:\n{textwrap.indent(textwrap.dedent(examples).strip(), '  ')}\n\n{EXITS}",
        formatter_class=Formatter,
    )
    command.set_defaults(run=run)
    return command


def hint(word: str, known: Iterable[str]) -> str:
    """Return " (did you mean ...?)" where a word is like one that is known, otherwise nothing."""
    near = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.7)
    return f" (did you mean {near[0]}?)" if near else ""


def _meant(word: str) -> str:
    """Return the command that a file in its place calls for, nothing if it is no file."""
    path = Path(word)
    if not word or not (path.suffix or path.exists()):
        return ""
    command = "report" if path.suffix == ".jsonl" else "detect"
    return f" (did you mean rdlite {command} {word}?)"


def add_detection(
    command: argparse.ArgumentParser,
    *,
    conf: float = defaults.CONF,
    classes: bool = True,
    model: bool = True,
    many_models: bool = False,
) -> None:
    """Add the options of a detector: with `--model`, for several models if `many_models`."""
    group = command.add_argument_group("detection")
    many: dict[str, Any] = {"nargs": "+", "action": "extend"} if many_models else {}
    if model:
        group.add_argument("--model", **many, help=MODEL)
    group.add_argument(
        "--conf",
        type=float,
        default=conf,
        metavar="SCORE",
        help="lowest score kept, 0 to 1 (default: %(default)s)",
    )
    group.add_argument(
        "--iou",
        type=float,
        default=defaults.IOU,
        metavar="IOU",
        help="overlap from which --nms hard and linear act (default: %(default)s)",
    )
    group.add_argument(
        "--nms",
        default=defaults.NMS,
        choices=("hard", "linear", "gaussian"),
        help="what overlapping boxes do to each other (default: %(default)s)",
    )
    group.add_argument(
        "--max-det",
        type=int,
        default=defaults.MAX_DET,
        metavar="N",
        help="most objects in one picture (default: %(default)s)",
    )
    if classes:
        group.add_argument(
            "--classes",
            type=_classes,
            metavar="NAMES",
            help="names or class_ids, separated by commas: 'person,traffic light'; what is one of "
            "the model's names is that name, also a number (default: all)",
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
        "--stride",
        type=int,
        default=1,
        metavar="N",
        help="detect in every Nth frame (default: %(default)s)",
    )
    group.add_argument(
        "--start", type=float, metavar="SECONDS", help="begin here (default: the first frame)"
    )
    group.add_argument(
        "--end", type=float, metavar="SECONDS", help="stop here (default: the last frame)"
    )
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
            "--overwrite",
            action="store_true",
            help="replace existing files and begin anew; with --resume only what cannot go on",
        )
    quiet = "no progress bar"
    if files:
        quiet += " and no summary, only what failed, is damaged, or was lost or passed over"
    group.add_argument("--quiet", action="store_true", help=quiet)
    group.add_argument("--json", action="store_true", help="print the summary as JSON")


def _classes(text: str) -> list[str]:
    parts = [part for part in map(str.strip, text.split(",")) if part]
    if not parts:
        raise argparse.ArgumentTypeError(f"must name a class or several, got {text!r}")
    return parts


def _workers(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be 1 or more, or auto, got {text!r}")
    return int(text)
