"""The options of the commands that look at models, machines and results."""

from __future__ import annotations

from typing import Any

from rdlite.cli.options import MODEL, add_command, add_detection, add_output


def add_tools(commands: Any) -> None:
    """Add eval, bench, info, models and check."""
    command = add_command(
        commands, "eval", "tools:evaluate", "COCO average precision on annotated images"
    )
    command.add_argument("annotations", metavar="JSON", help="COCO annotation file")
    command.add_argument("images", metavar="IMAGES", help="folder of its images or of tar shards")
    add_detection(command, conf=0.01, classes=False)
    add_output(command, files=False)

    command = add_command(commands, "bench", "bench:bench", "milliseconds per picture, here")
    command.add_argument("--image", help="picture to use (default: 1280x720 of smooth noise)")
    command.add_argument("--runs", type=int, default=100, help="default: %(default)s")
    command.add_argument(
        "--all", dest="all_models", action="store_true", help="all of rdlite models, in turns"
    )
    add_detection(command, many_models=True)
    command.add_argument("--json", action="store_true", help="print JSON")

    command = add_command(commands, "info", "tools:info", "what a model file says about itself")
    command.add_argument("model", nargs="?", help=MODEL)
    command.add_argument("--json", action="store_true", help="print JSON")

    command = add_command(
        commands, "models", "models:models", "which models have a name here, and which suits"
    )
    command.add_argument("--json", action="store_true", help="print JSON")

    command = add_command(commands, "check", "check:check", "is this installation sound?")
    command.add_argument("--json", action="store_true", help="print JSON")
