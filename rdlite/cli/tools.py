"""`rdlite eval` and `rdlite info`."""

from __future__ import annotations

import json as jsonlib
import sys
from typing import Any

from rdlite.cli.batch import make_detector
from rdlite.cli.exits import OK, SOME_FAILED
from rdlite.evaluate import evaluate as average_precision
from rdlite.registry import DEFAULT
from rdlite.session import Session


def evaluate(
    *, annotations: str, images: str, conf: float, quiet: bool, json: bool, **detection: Any
) -> int:
    """Measure COCO AP; see `rdlite eval --help`."""
    from tqdm import tqdm

    detector = make_detector(conf=conf, **detection)
    with tqdm(unit="img", disable=True if quiet else None, delay=2, file=sys.stderr) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        result = average_precision(
            detector,
            annotations,
            images,
            conf=conf,
            max_det=detection["max_det"],
            progress=show,
        )
    if json:
        print(jsonlib.dumps(result.to_dict()))
    else:
        print(result.summary())
    return SOME_FAILED if result.failed else OK


def info(*, model: str | None, json: bool) -> int:
    """Describe a model file; see `rdlite info --help`."""
    session = Session(DEFAULT if model is None else model)
    path, spec = session.path, session.spec
    content = {
        "file": str(path),
        "bytes": path.stat().st_size,
        "sha256": session.sha256,
        "arithmetic": spec.arithmetic,
        "input": f"uint8 {spec.input_size[0]}x{spec.input_size[1]} BGR",
        "decoder": spec.decoder,
        "anchors": len(spec.anchors),
        "variances": list(spec.variances),
        "weights_sha256": spec.weights_sha256,
        "names": list(spec.names),
        "category_ids": list(spec.category_ids),
        "provenance": spec.provenance,
    }
    if json:
        print(jsonlib.dumps(content))
        return OK
    for key, value in content.items():
        if key == "category_ids":
            continue
        text = ", ".join(spec.names) if key == "names" else value
        if key == "bytes":
            text = f"{value:,}"
        if key == "provenance":
            text = jsonlib.dumps(value, indent=2, ensure_ascii=False)
        print(f"{key:15} {text}")
    return OK
