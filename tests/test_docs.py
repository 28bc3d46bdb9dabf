"""Every code block of the documentation runs, page by page, as a reader would type it."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import pytest

from rdlite import Detector, registry
from rdlite.session import Session
from rdlite.sinks import open_sink
from rdlite.storage.journal import jsonl_header
from tests.conftest import street_clip
from tests.media import clip

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
SLOW: set[str] = set()
"""Pages whose blocks take more than a few seconds."""

_CALL = re.compile(r"^(?:\w+=\S* )*rdlite ", re.M)
_FENCE = re.compile(r"^( *)(`{3,})(.*)\n((?:.*\n)*?)\1\2 *$", re.M)


class Block(NamedTuple):
    """A fenced block of a page.

    Attributes:
        line: Line number of its first line of code.
        info: The words behind the fence: the language, then what is to be done with it.
        code: Its text.
        above: All of the page before it.
    """

    line: int
    info: list[str]
    code: str
    above: str


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        indent, _, info, code = match.groups()
        above = text[: match.start()]
        code = re.sub(f"^{indent}", "", code, flags=re.M)
        yield Block(above.count("\n") + 2, info.split(), code, above)


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs" / "models.md"], ids=str)
def test_the_tables_of_models_say_what_the_model_files_say(page: Path) -> None:
    rows = re.findall(
        r"^\| \[?`([a-z0-9-]+)`[^\n]*?\| (\d+\.\d), (\d+\.\d) \| (\d+\.\d), (\d+\.\d) \|",
        page.read_text(encoding="utf-8"),
        re.M,
    )
    assert {name for name, *_ in rows} == {
        alias for one in registry.table().values() for alias in one.aliases
    }
    for name, *numbers in rows:
        results = Session(name).spec.provenance["results"]
        wanted = [results[one][key] for one in ("dev-voc", "dev-coco") for key in ("ap", "ap50")]
        assert numbers == [f"{100 * value:.1f}" for value in wanted]


def script(block: Block) -> str:
    """What a shell is to run; nothing where no line calls `rdlite`."""
    code = block.code
    if block.info[:1] == ["console"]:
        code = "\n".join(re.findall(r"^\$ (.*)", code, re.M))
    return code if _CALL.search(code) else ""


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the pages speak of: a street, photographed and filmed."""
    folder = tmp_path_factory.mktemp("media")
    with av.open(str(street_clip())) as container:
        frames = itertools.islice(container.decode(video=0), 106, 139)
        images = [frame.to_ndarray(format="bgr24") for frame in frames]
    # a cyclist, the same behind a bicycle, two cars
    photos = {"photos/a.jpg": 8, "photos/b.jpg": 26, "photos/c.jpg": 32}
    for name, number in (photos | {"street.jpg": 9, "more/d.jpg": 10}).items():
        (folder / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / name), images[number])
    (folder / "videos").mkdir()
    size = images[0].shape[1::-1]
    clip(folder / "clip.mp4", images[:12], size=size)
    clip(folder / "videos" / "day.mp4", images[:4], size=size)
    clip(folder / "videos" / "night.mp4", images[4:8], size=size)
    detector = Detector()
    write_results(folder / "clip.jsonl", folder / "clip.mp4", detector)
    shutil.copytree(folder / "photos", folder / "images")
    annotate(folder / "dev.json", folder / "images", detector)
    return folder


def write_results(path: Path, video: Path, detector: Detector) -> None:
    """What `rdlite detect` writes for a video."""
    header = jsonl_header(
        detector.model_sha256,
        names=detector.names,
        category_ids=detector.category_ids,
        source=video,
        options=detector.options,
    )
    with open_sink("jsonl", path, header=header) as sink:
        for frame, found in detector.stream(video):
            sink.write(found, frame=frame.index, pts=frame.pts, time=frame.time)


def annotate(path: Path, images: Path, detector: Detector) -> None:
    """A COCO file whose boxes are what the detector is surest of."""
    entries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(sorted(images.iterdir()), start=1):
        found = detector(image, conf=0.4)
        width, height = found.image_size
        entries.append({"id": number, "file_name": image.name, "width": width, "height": height})
        for entry in found.to_coco(number):
            del entry["score"]
            annotations.append({**entry, "id": len(annotations) + 1})
    pairs = zip(detector.category_ids, detector.names, strict=True)
    categories = [{"id": number, "name": name} for number, name in pairs]
    content = {"images": entries, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content))


def run_python(block: Block, page: Path, variables: dict[str, Any]) -> None:
    code = "\n" * (block.line - 1) + block.code  # so that an error names the page's line
    exec(compile(code, str(page), "exec"), variables)


def run_shell(block: Block, page: Path) -> None:
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script(block)],
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{page.name}, line {block.line}\n{done.stdout}\n{done.stderr}"


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "page",
    [pytest.param(p, marks=pytest.mark.slow if p.name in SLOW else ()) for p in PAGES],
    ids=lambda page: page.name,
)
@pytest.mark.usefixtures("default_model")
def test_every_block_of_the_page_runs(
    page: Path, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "reader"
    shutil.copytree(media, folder)
    monkeypatch.chdir(folder)
    monkeypatch.delenv(registry.VARIABLE, raising=False)
    variables: dict[str, Any] = {"__name__": page.stem}
    for block in blocks(page):
        if "no-run" in block.info:
            continue
        if block.info[:1] == ["python"]:
            run_python(block, page, variables)
        elif block.info[:1] in (["sh"], ["console"]):
            run_shell(block, page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_say_their_language_and_why_they_do_not_run(page: Path) -> None:
    for block in blocks(page):
        assert block.info, f"{page.name}, line {block.line}: a block without a language"
        if "no-run" in block.info:
            assert block.above.rstrip().endswith("-->"), f"{page.name}, line {block.line}: why?"
