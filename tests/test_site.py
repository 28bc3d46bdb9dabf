"""The site is made of what it describes: the parser, the public names, the network."""

from __future__ import annotations

import importlib.util
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

import rdlite
from rdlite import defaults
from tests.api import MODULES
from tests.command import Printed, cli

DOCS = Path(__file__).parents[1] / "docs"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build = load("build")


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, put together."""
    folder: Path = tmp_path_factory.mktemp("site") / "docs"
    build.stage(folder)
    return folder


def test_the_menu_has_every_page(staged: Path) -> None:
    assert build.faults_of_menu(staged) == []
    (staged / "new.md").touch()
    (staged / "index.md").rename(staged / "old.md")
    faults = build.faults_of_menu(staged)
    assert len(faults) == 3 and any("has index.md in its menu" in fault for fault in faults)
    (staged / "old.md").rename(staged / "index.md")
    (staged / "new.md").unlink()


def test_what_is_fetched_from_elsewhere_is_a_fault(tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    page.write_text('<a href="https://arxiv.org">paper</a><img src="chart.png"><script src="a.js">')
    assert build.faults_offline(tmp_path) == []
    page.write_text('<link rel="stylesheet" href="https://fonts.googleapis.com/css?family=X">')
    assert len(build.faults_offline(tmp_path)) == 1


def test_links_lead_to_where_the_files_are_on_the_site(staged: Path) -> None:
    pictures = re.findall(r"!\[[^]]*\]\(([^)]*)\)", (staged / "performance.md").read_text())
    assert pictures and all((staged / picture).is_file() for picture in pictures)


def test_the_command_line_page_has_all_that_help_says(staged: Path, capsys: Printed) -> None:
    page = (staged / "cli.md").read_text()
    sections = dict(re.findall(r"^## rdlite (\S+)\n(.*?)(?=^## |\Z)", page, re.M | re.S))
    with pytest.raises(SystemExit):
        cli("--help")
    commands = capsys.readouterr().out.split("options:")[0]
    assert sorted(sections) == sorted(re.findall(r"^  (\w+)  ", commands, re.M))
    for name, section in sections.items():
        with pytest.raises(SystemExit):
            cli(name, "--help")
        lines = re.findall(r"^  (-.*)", capsys.readouterr().out, re.M)
        helped = {option for line in lines for option in re.findall(r"--[a-z][a-z0-9-]*", line)}
        cells = [row.split("|")[1] for row in section.splitlines() if row.startswith("| `-")]
        shown = {option for cell in cells for option in re.findall(r"--[a-z][a-z0-9-]*", cell)}
        assert shown == helped - {"--help"}, name


def test_defaults_are_those_of_each_command(staged: Path) -> None:
    page = (staged / "cli.md").read_text()
    rows = re.findall(r"^\| `--conf` .*\| (\S+) \|$", page, re.M)
    assert {str(defaults.CONF), "0.01"} <= set(rows)
    assert re.search(r"^\| `--resume` .*\| off \|$", page, re.M)
    assert re.search(r"^\| `SRC` .*\| must be given \|$", page, re.M)
    assert re.search(r"^\| `--model` .*\| the embedded model \|$", page, re.M)


def test_every_field_of_a_schema_is_in_the_table_of_its_page(staged: Path) -> None:
    page = (staged / "formats.md").read_text()
    for key in ("schema", "options.conf", "detections[].xyxy", "videos[].speed.decode"):
        assert f"| `{key}` |" in page
    assert "| `source` | string, optional |" in page


def test_every_public_name_is_on_a_page(staged: Path) -> None:
    text = "".join((staged / page).read_text() for page in ("api.md", "modules.md"))
    shown = re.findall(r"^::: ([\w.]+)$", text, re.M)
    assert len(shown) == len(set(shown))
    names = {f"{module}.{name}" for module in MODULES for name in import_module(module).__all__}
    others = {name for name in names if name.split(".")[-1] in rdlite.__all__}
    assert set(shown) == names - others | {f"rdlite.{name}" for name in rdlite.__all__} - {
        "rdlite.__version__"
    }


def test_the_drawing_has_the_shapes_of_the_network() -> None:
    torch = pytest.importorskip("torch", reason="the network needs torch; run `pip install torch`")
    from train.model import RefineDetLite

    shapes = set()

    def note(module: object, inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor):
            channels, height, width = output.shape[1:]
            shapes.add(f"{height}x{width}x{channels}")

    network = RefineDetLite(80).eval()
    for module in network.modules():
        module.register_forward_hook(note)
    with torch.no_grad():
        outputs = network(torch.zeros(1, 3, 320, 320))
    shapes |= {"x".join(map(str, one.shape[1:])) for one in outputs}
    texts = [
        (text.text or "").replace("\u00d7", "x")
        for text in ElementTree.parse(DOCS / "network.svg").iter()
    ]
    drawn = {shape for text in texts for shape in re.findall(r"\d+(?:x\d+)+", text)}
    # the sizes of kernels, and what is drawn though no module of its own makes it
    assert drawn - shapes == {"1x1", "3x3", "320x320", "80x80x32"}
