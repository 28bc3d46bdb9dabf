"""The options of the commands that read results and show or convert them."""

from __future__ import annotations

from typing import Any

from rdlite.cli.options import FORMATS, add_command, add_detection, add_output


def add_results(commands: Any) -> None:
    """Add convert, report and compare."""
    _add_convert(commands)
    _add_report(commands)
    _add_compare(commands)


def _add_report(commands: Any) -> None:
    command = add_command(
        commands,
        "report",
        "report:report",
        "show a file of detections as a page: charts, and frames with their boxes",
        """
        rdlite report clip.jsonl -o report.html
        rdlite report clip.jsonl -o moved.html --media clip.mp4 --pictures 300
        """,
    )
    command.add_argument("results", metavar="RESULTS", help="JSON lines of detect or annotate")
    command.add_argument(
        "-o",
        "--output",
        metavar="PAGE",
        help="an .html, which needs no other file and no network (default: RESULTS with .html in "
        "place of .jsonl)",
    )
    command.add_argument(
        "--media",
        metavar="PATH",
        help="the video, or the folder of the images, where it is elsewhere than RESULTS says",
    )
    command.add_argument(
        "--pictures",
        type=int,
        default=120,
        metavar="N",
        help="most frames that are shown over their picture, up to 500; the others are shown over "
        "an empty one (default: %(default)s)",
    )
    add_output(command, files=False)
    command.add_argument("--overwrite", action="store_true", help="replace an existing page")


def _add_compare(commands: Any) -> None:
    command = add_command(
        commands,
        "compare",
        "compare:compare",
        "show side by side what models find in the same pictures",
        """
        rdlite compare default int8 photos/
        rdlite compare default ./mine.onnx "photos/*.jpg" clip.mp4 --frames 50 -o mine.html
        rdlite compare old.onnx new.onnx newest.onnx street.jpg -o street.png --conf 0.4
        """,
    )
    command.add_argument(
        "arguments",
        nargs="+",
        metavar="MODEL|SRC",
        help="two models or more, and what they are to look at. A model is what ends in .onnx or "
        "is a name of rdlite models (a folder that is called like one is ./NAME); all else is an "
        "image, video, folder or quoted pattern as for rdlite detect",
    )
    command.add_argument(
        "-o",
        "--output",
        default="rdlite-compare",
        metavar="OUT",
        help="an .html for a page to look through, a .png for one picture of the 10 that differ "
        "most, else a folder for both (default: %(default)s)",
    )
    command.add_argument(
        "--frames",
        type=int,
        default=20,
        metavar="N",
        help="frames looked at in each video, spread evenly (default: %(default)s)",
    )
    command.add_argument(
        "--limit",
        type=int,
        default=100,
        metavar="N",
        help="most pictures in the page, those that differ most; the numbers are of all "
        "(default: %(default)s)",
    )
    command.add_argument("--overwrite", action="store_true", help="replace existing files")
    command.add_argument("--quiet", action="store_true", help="no progress bar and no summary")
    command.add_argument("--json", action="store_true", help="print the summary as JSON")
    add_detection(command, model=False)


def _add_convert(commands: Any) -> None:
    command = add_command(
        commands,
        "convert",
        "convert:convert",
        "write results in another format",
        """
        rdlite convert clip.jsonl --format csv
        rdlite convert out/ --format yolo -o labels --join
        rdlite convert out/detections.jsonl --format coco --images photos -o labels.json
        """,
    )
    command.add_argument(
        "sources",
        nargs="+",
        metavar="RESULTS",
        help="files that rdlite detect or annotate wrote as JSON Lines (also .jsonl.gz), folders "
        "of them, or quoted patterns",
    )
    command.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="of one file the output, - for standard output; of several a folder for an output "
        "from each (default: beside each file)",
    )
    command.add_argument("--format", required=True, choices=FORMATS, help="what to write")
    command.add_argument(
        "--join", action="store_true", help="write all of it into the one output OUT"
    )
    command.add_argument(
        "--images",
        metavar="FOLDER",
        help="name images by their path in this folder, and frame 123 of clip.mp4 as the picture "
        "clip.mp4/000123.jpg (or .png); those that are not there are counted",
    )
    add_output(command, files=False)
    command.add_argument("--overwrite", action="store_true", help="replace existing files")
