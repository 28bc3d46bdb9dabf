"""The options of the commands that look at models and at this machine."""

from __future__ import annotations

from typing import Any

from rdlite.cli.options import MODEL, SHELLS, add_command, add_detection, add_output


def add_tools(commands: Any) -> None:
    """Add models, info, eval, bench, check and completion."""
    _add_models(commands)
    _add_info(commands)
    _add_eval(commands)
    _add_bench(commands)
    _add_check(commands)
    _add_completion(commands)


def _add_models(commands: Any) -> None:
    command = add_command(
        commands,
        "models",
        "models:models",
        "which models have a name here, and which suit this CPU",
        """
        rdlite models
        rdlite models --json
        rdlite models --names
        """,
    )
    only = command.add_mutually_exclusive_group()
    only.add_argument("--json", action="store_true", help="print JSON")
    only.add_argument(
        "--names", action="store_true", help="print the names alone, and open no file"
    )


def _add_info(commands: Any) -> None:
    command = add_command(
        commands,
        "info",
        "info:info",
        "what a model file says about itself",
        """
        rdlite info
        rdlite info int8
        rdlite info ./mine.onnx --json
        """,
    )
    command.add_argument("model", nargs="?", help=MODEL)
    command.add_argument("--json", action="store_true", help="print JSON")


def _add_eval(commands: Any) -> None:
    command = add_command(
        commands,
        "eval",
        "eval:evaluate",
        "COCO average precision on annotated images",
        """
        rdlite eval dev.json images/
        rdlite eval dev.json images/ -o measured
        rdlite eval dev.json images/ --compare int8 --compare ./mine.onnx
        rdlite eval dev.json --results out/detections.jsonl --json
        """,
    )
    command.add_argument("annotations", metavar="JSON", help="COCO annotation file")
    command.add_argument(
        "images",
        nargs="?",
        metavar="IMAGES",
        help="folder of its images or of tar shards; not needed where files alone are measured",
    )
    command.add_argument(
        "--results",
        metavar="FILE",
        help="measure this file, not a model: a .jsonl of rdlite detect --conf 0.01, or COCO "
        "results as .json",
    )
    command.add_argument(
        "--compare",
        action="append",
        metavar="MODEL|FILE",
        help="measure this as well, and say by how much it differs and how far that may be "
        "chance; may be given several times",
    )
    command.add_argument(
        "-o",
        "--output",
        metavar="FOLDER",
        help="for pr.png, f1.png, confusion.png and eval.json",
    )
    # What --conf and --max-det are by default is the COCO protocol.
    add_detection(command, conf=0.01, classes=False)
    add_output(command, files=False)
    command.add_argument("--overwrite", action="store_true", help="replace files in FOLDER")


def _add_bench(commands: Any) -> None:
    command = add_command(
        commands,
        "bench",
        "bench:bench",
        "milliseconds per picture of models side by side, here",
        """
        rdlite bench
        rdlite bench --model default int8
        rdlite bench --all --image street.jpg --json
        """,
    )
    command.add_argument(
        "--image", metavar="FILE", help="picture to use (default: 1280x720 of smooth noise)"
    )
    command.add_argument(
        "--runs",
        type=int,
        default=100,
        metavar="N",
        help="pictures timed for each model (default: %(default)s)",
    )
    command.add_argument(
        "--all", dest="all_models", action="store_true", help="all of rdlite models, in turns"
    )
    add_detection(command, many_models=True)
    command.add_argument("--json", action="store_true", help="print JSON")


def _add_check(commands: Any) -> None:
    command = add_command(
        commands,
        "check",
        "check:check",
        "is this installation sound, and which command mends it?",
        """
        rdlite check
        rdlite check --json
        """,
    )
    command.add_argument("--json", action="store_true", help="print JSON")


def _add_completion(commands: Any) -> None:
    command = add_command(
        commands,
        "completion",
        "completion:completion",
        "print the script with which TAB completes commands, options and models",
        """
        eval "$(rdlite completion bash)"       # in ~/.bashrc
        eval "$(rdlite completion zsh)"        # in ~/.zshrc, after compinit
        rdlite completion fish > ~/.config/fish/completions/rdlite.fish
        """,
    )
    command.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
