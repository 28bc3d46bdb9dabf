"""Who may import whom, what `import rdlite` may load, and what it says when it is not built."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rdlite

PACKAGE = Path(rdlite.__file__).parent

# Each module may import those of its own row and of the rows above; a package stands for all of
# its modules.
LAYERS = (
    ("errors", "defaults", "_core"),
    (
        "storage.regular",
        "storage.lock",
        "storage.partial",
        "storage.outputs",
        "storage.jsonlines",
        "overlap",
        "cores",
        "wording",
    ),
    (
        "imageheader",
        "vocxml",
        "results",
        "modelfile",
        "registry",
        "cpu",
        "options",
        "storage.journal",
    ),
    ("evaluate.dataset", "evaluate.cocofile", "evaluate.classnames"),
    ("session", "image", "postprocess"),
    ("detector", "__init__"),
    ("sinks",),
    ("annotate", "convert", "resultfile", "imagefolder", "notebook"),
    ("video.media", "video.reader", "video.plan", "video.audio", "video.writer", "video.join"),
    ("video",),
    ("workers",),
    ("batch",),
    ("evaluate", "bench"),
    ("report",),
    ("compare",),
    ("cli", "__main__"),
)

# `Detector.stream` and `Detector.annotate_video` forward to the pipeline, so that users meet one
# class; the pipeline is imported when they are called.
UPWARD = {("__init__", "results"), ("__init__", "resultfile"), ("detector", "video")}
# So do a `Detections`' pictures and tables, which most programs never ask for.
UPWARD |= {("results", "notebook"), ("results", "image")}
UPWARD |= {("detector", f"video.{module}") for module in ("pipeline", "reader", "summary")}

# Costly to load (100 to 400 ms each), or not wanted at run time at all.
LATE = {"cv2", "av", "onnxruntime", "torch", "pandas", "supervision", "faster_coco_eval", "tqdm"}
LATE |= {"matplotlib", "pyarrow", "ray"}


def layer(module: str) -> int:
    """The row of a module, or else of its package."""
    for name in (module, module.split(".")[0]):
        rows = [number for number, row in enumerate(LAYERS) if name in row]
        if rows:
            return rows[0]
    raise AssertionError(f"add {module} to LAYERS")


def modules() -> dict[str, Path]:
    """Each module below the package by its dotted name; a package has the name of its folder."""
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        names[".".join(parts).removesuffix(".__init__")] = path
    return names


MODULES = modules()
PACKAGES = {name for name, path in MODULES.items() if path.stem == "__init__"}


def imports(tree: ast.AST) -> Iterator[tuple[str, ast.stmt]]:
    """Every dotted module name imported, `from a import b` as both a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            base = "rdlite" if node.level else node.module or ""
            base = f"{base}.{node.module}" if node.level and node.module else base
            yield base, node
            for alias in node.names:
                yield f"{base}.{alias.name}", node


def at_import_time(tree: ast.Module) -> Iterator[tuple[str, ast.stmt]]:
    """The imports that run when the module is loaded: outside functions and TYPE_CHECKING."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ClassDef):
            continue
        yield from imports(node)


@pytest.mark.parametrize("module", MODULES)
def test_modules_import_only_from_lower_layers(module: str) -> None:
    for name, node in imports(ast.parse(MODULES[module].read_text())):
        package, _, target = name.partition(".")
        if package != "rdlite" or target not in {*MODULES, "_core"} or (module, target) in UPWARD:
            continue
        # What a package says of itself is at the row of its lowest modules.
        lowest = target in PACKAGES and module.startswith(f"{target}.")
        assert lowest or layer(target) <= layer(module), f"{module}:{node.lineno} imports {name}"


@pytest.mark.parametrize("path", MODULES.values(), ids=MODULES)
def test_training_code_is_never_imported(path: Path) -> None:
    names = {name.split(".")[0] for name, _ in imports(ast.parse(path.read_text()))}
    assert not names & {"train", "torch"}


@pytest.mark.parametrize("path", MODULES.values(), ids=MODULES)
def test_heavy_libraries_are_imported_inside_functions(path: Path) -> None:
    tree = ast.parse(path.read_text())
    names = {name.split(".")[0] for name, _ in at_import_time(tree)}
    assert not names & LATE


def test_the_upward_imports_are_all_call_time_or_for_types() -> None:
    tree = ast.parse((PACKAGE / "detector.py").read_text())
    assert not [name for name, _ in at_import_time(tree) if name.startswith("rdlite.video")]


def python(code: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r})\n{code}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize(
    "code",
    ["import rdlite", "from rdlite import Detector", "from rdlite import Detections"],
)
def test_importing_rdlite_loads_no_heavy_library_and_opens_no_socket(code: str) -> None:
    done = python(
        "def watch(event, _):\n"
        "    if event.startswith('socket.'): print(event)\n"
        f"sys.addaudithook(watch)\n{code}\n"
        f"print(*sorted(set(sys.modules) & {LATE!r}))"
    )
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_import_rdlite_does_not_load_numpy() -> None:
    assert python("import rdlite; print('numpy' in sys.modules)").stdout == "False\n"


def test_public_names_exist_and_others_do_not() -> None:
    for name in rdlite.__all__:
        assert getattr(rdlite, name) is not None
        assert name in dir(rdlite)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        rdlite.nothing  # noqa: B018


def test_a_tree_that_is_not_built_says_how_to_build_it() -> None:
    done = python("sys.modules['rdlite._core'] = None\nfrom rdlite import Detector")
    assert done.returncode == 1
    assert "ImportError" in done.stderr
    assert "not been built" in done.stderr
    assert "pip install -e ." in done.stderr
