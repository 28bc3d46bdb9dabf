"""`rdlite check` in environments that are broken in the usual ways."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path
from typing import Any

import jsonschema
import packaging
import pytest

import rdlite
from rdlite import cores
from rdlite.cli import working
from rdlite.cli.finding import reinstall
from tests.command import Printed, cli

PACKAGE = Path(rdlite.__file__).parent
SCHEMA = Path(__file__).parents[1] / "docs" / "schemas" / "check.schema.json"


class Site:
    """A folder of packages that comes before all others on the path of a process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def rdlite(self, *, installed: bool = True) -> Path:
        """Put a copy of rdlite there; the models are links."""
        copy = self.folder / "rdlite"
        shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("*.onnx", "__pycache__"))
        for model in (PACKAGE / "data").glob("*.onnx"):
            (copy / "data" / model.name).symlink_to(model)
        if installed:
            wanted = "".join(f"Requires-Dist: {one}\n" for one in metadata.requires("rdlite") or ())
            self.distribution("rdlite", metadata.version("rdlite"), "rdlite", wanted)
        return copy

    def distribution(self, name: str, version: str, module: str, more: str = "") -> Path:
        """Put the record of a distribution there, as pip leaves it."""
        info = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{more}"
        (info / "METADATA").write_text(text)
        (info / "top_level.txt").write_text(f"{module}\n")
        return info

    def module(self, name: str, code: str = "") -> None:
        """Put a package with this code there."""
        (self.folder / name).mkdir()
        (self.folder / name / "__init__.py").write_text(code)

    def bare(self) -> Site:
        """Put there what the command itself needs, for `check(bare=True)`."""
        self.rdlite()
        (self.folder / "packaging").symlink_to(Path(packaging.__file__).parent)
        return self

    def check(
        self, *, bare: bool = False, before: str = "", limits: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        """What the command finds, by what it looked at.

        Args:
            bare: Nothing but this folder is installed.
            before: Code to run first.
            limits: A command to run it with.
        """
        path = [str(self.folder), *([] if bare else [sysconfig.get_path("purelib")])]
        code = f"import sys\n{before}\nfrom rdlite.cli import main\nsys.exit(main(sys.argv[1:]))"
        # -S: what is installed beside an editable rdlite would lead back to it
        done = subprocess.run(
            [*limits, sys.executable, "-P", "-S", "-B", "-c", code, "check", "--json"],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
            capture_output=True,
            text=True,
        )
        assert done.stdout, done.stderr
        findings = json.loads(done.stdout)["findings"]
        assert done.returncode == any(finding["status"] == "bad" for finding in findings)
        return {finding["what"]: finding for finding in findings}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


def test_this_installation_is_sound_even_without_a_home(
    monkeypatch: pytest.MonkeyPatch, capsys: Printed, default_model: Path
) -> None:
    monkeypatch.setenv("HOME", "/proc/no/home")
    assert cli("check", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    jsonschema.validate(content, json.loads(SCHEMA.read_text()))
    found = {finding["what"]: finding["status"] for finding in content["findings"]}
    working = (
        "rdlite",
        "kernels",
        "model files",
        "model default",
        "model int8",
        "encoders",
        "video",
    )
    assert content["ok"] and {found[what] for what in working} == {"ok"}


@pytest.mark.parametrize(
    ("also", "kept"),
    [
        (["opencv-python", "opencv-python-headless"], "opencv-python"),
        (["opencv-python", "opencv-contrib-python-headless"], "opencv-contrib-python"),
        (
            ["opencv-contrib-python-headless", "opencv-python-headless"],
            "opencv-contrib-python-headless",
        ),
    ],
)
def test_two_opencvs_are_replaced_by_the_one_that_has_what_both_had(
    site: Site, also: list[str], kept: str
) -> None:
    site.bare()
    for name in also:
        site.distribution(name, "5.0", "cv2")
    finding = site.check(bare=True)["opencv-python"]
    assert finding["status"] == "bad" and "overwrite each other's files" in finding["detail"]
    assert finding["mend"] == f"pip uninstall -y {' '.join(sorted(also))} && pip install {kept}"


def test_one_other_opencv_will_do(site: Site) -> None:
    site.bare().distribution("opencv-python-headless", "5.0", "cv2")
    site.module("cv2")
    finding = site.check(bare=True)["opencv-python"]
    assert (finding["status"], finding["detail"]) == ("ok", "opencv-python-headless 5.0")


@pytest.mark.parametrize(
    ("installed", "status", "mend"),
    [
        (
            {"onnxruntime": "1.25", "onnxruntime-gpu": "1.25"},
            "bad",
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime",
        ),
        (
            {"onnxruntime-openvino": "1.25"},
            "note",
            'pip uninstall -y onnxruntime-openvino && pip install "onnxruntime>=',
        ),
        ({"onnxruntime": "1.16"}, "bad", 'pip install --upgrade "onnxruntime>='),
        ({"onnxruntime-gpu": "1.16"}, "bad", 'pip install --upgrade "onnxruntime-gpu>='),
        ({}, "bad", 'pip install "onnxruntime>='),
    ],
)
def test_another_onnxruntime(site: Site, installed: dict[str, str], status: str, mend: str) -> None:
    site.bare()
    for name, version in installed.items():
        site.distribution(name, version, "onnxruntime")
    if installed:
        site.module("onnxruntime")
    finding = site.check(bare=True)["onnxruntime"]
    assert finding["status"] == status and finding["mend"].startswith(mend)
    assert all(
        f"{name} {version}" in f"onnxruntime {finding['detail']}"
        for name, version in installed.items()
    )


@pytest.mark.parametrize(
    ("distribution", "module", "error", "mend"),
    [
        (
            "onnxruntime",
            "onnxruntime",
            "numpy.core.multiarray failed to import",
            "pip install --upgrade numpy onnxruntime",
        ),
        (
            "opencv-python",
            "cv2",
            "libGL.so.1: cannot open shared object file: No such file or directory",
            "pip uninstall -y opencv-python && pip install opencv-python-headless",
        ),
        (
            "av",
            "av",
            "libavcodec.so.61: cannot open shared object file: No such file or directory",
            'pip install --force-reinstall --no-deps --only-binary :all: "av',
        ),
    ],
)
def test_a_library_that_cannot_be_imported(
    site: Site, distribution: str, module: str, error: str, mend: str
) -> None:
    site.bare().distribution(distribution, "18.1", module)
    site.module(module, f"raise ImportError({error!r})")
    finding = site.check(bare=True)[distribution]
    assert finding["status"] == "bad" and finding["detail"] == f"18.1: {error}"
    assert finding["mend"].startswith(mend)


def test_a_library_that_pip_does_not_know(site: Site) -> None:
    site.bare().module("cv2")
    assert site.check(bare=True)["opencv-python"]["status"] == "note"


@pytest.mark.parametrize("name", ["rdlite", "av"])
def test_a_folder_that_hides_what_is_installed(site: Site, tmp_path: Path, name: str) -> None:
    here = Site(tmp_path / "here")
    if name == "rdlite":
        here.rdlite(installed=False)
    else:
        here.module(name)
    site.bare().distribution("av", "18.1", "av")
    site.module("av")
    hidden, site.folder = site.folder, Path(f"{here.folder}{os.pathsep}{site.folder}")
    finding = site.check(bare=True)[name]
    assert finding["status"] == "bad"
    assert finding["detail"].startswith(f"{here.folder / name} hides the installed")
    assert str(hidden / name) in finding["detail"] or name == "av"
    assert finding["mend"].startswith(f"rename {here.folder / name}, or run rdlite in an")


@pytest.mark.parametrize(
    ("kept", "what", "detail"),
    [
        (None, "kernels", "are not compiled"),
        (100, "kernels", "cannot read file data"),  # what the loader says
        (20_000, "rdlite._core", "ends Python when it is loaded (SIG"),
    ],
)
def test_a_compiled_module_that_is_missing_or_cut_off(
    site: Site, kept: int | None, what: str, detail: str
) -> None:
    for module in site.rdlite().glob("_core.*[od]"):
        content = module.read_bytes()
        module.unlink()
        if kept:
            module.write_bytes(content[:kept])
    finding = site.check()[what]
    assert finding["status"] == "bad" and detail in finding["detail"]
    assert finding["mend"] == (
        f"pip install --force-reinstall --no-deps rdlite=={metadata.version('rdlite')}"
    )


def test_a_library_that_crashes(site: Site) -> None:
    site.bare().module("cv2", "import os\nos.abort()")
    finding = site.check(bare=True)["cv2"]
    assert finding["detail"] == "ends Python when it is loaded (SIGABRT)"
    assert finding["mend"].endswith("--only-binary :all: opencv-python")


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="prlimit comes with util-linux")
def test_old_kernels_a_damaged_model_and_a_system_that_grants_nothing(site: Site) -> None:
    model = site.rdlite() / "data" / "refinedetlite72-int8.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.unlink()
    model.write_bytes(content)
    source = site.folder / "csrc" / "decode.c"
    source.parent.mkdir()
    source.touch()
    large = "import threading; threading.stack_size(1 << 46)"  # more than there are addresses
    found = site.check(before=large, limits=("prlimit", "--fsize=0"))
    assert found["kernels"]["status"] == "note" and str(source) in found["kernels"]["detail"]
    for what, detail, mend in (
        ("model files", model.name, "pip install --force-reinstall"),
        ("temporary folder", "temporary directory", "export TMPDIR="),
        ("threads", "can't start new thread", "raise the limit on threads: ulimit -u"),
    ):
        assert found[what]["status"] == "bad" and detail in found[what]["detail"]
        assert found[what]["mend"].startswith(mend)


def test_an_ffmpeg_without_the_encoder_and_an_extra_that_is_missing(site: Site) -> None:
    site.rdlite(installed=False)
    site.distribution(
        "rdlite", "1", "rdlite", 'Requires-Dist: no-such-package>=2; extra == "eval"\n'
    )
    site.distribution("av", "18.1", "av")
    site.module("av", "__version__, ffmpeg_version_info, codecs_available = '18.1', '8', {'aac'}")
    found = site.check()
    assert found["encoders"]["detail"] == "FFmpeg 8 of PyAV 18.1 has no libx264"
    assert found["encoders"]["mend"].endswith("--only-binary :all: av")
    assert found["extra eval"]["status"] == "note"
    assert found["extra eval"]["mend"] == 'pip install "no-such-package>=2"'


def test_a_container_with_half_a_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    monkeypatch.setattr(cores, "_CGROUPS", tmp_path)
    finding = list(working.resources())[-1]
    assert (finding.what, finding.status) == ("cores", "note") and "0.5 of one" in finding.detail


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        ({}, "pip install --force-reinstall --no-deps rdlite==7"),
        (
            {"url": "file:///a%20b/rdlite-7.whl", "archive_info": {}},
            'pip install --force-reinstall --no-deps "/a b/rdlite-7.whl"',
        ),
        ({"url": "file:///a/rdlite", "dir_info": {"editable": True}}, 'pip install -e "/a/rdlite"'),
        (
            {"url": "https://a.example/rdlite", "vcs_info": {"vcs": "git", "commit_id": "1"}},
            'pip install --force-reinstall --no-deps "git+https://a.example/rdlite"',
        ),
    ],
)
def test_rdlite_is_installed_again_from_where_it_came(
    site: Site, monkeypatch: pytest.MonkeyPatch, origin: dict[str, Any], command: str
) -> None:
    info = site.distribution("rdlite", "7", "rdlite")
    (info / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.syspath_prepend(site.folder)
    assert reinstall() == command


def test_a_person_sees_what_is_bad_and_what_mends_it(site: Site) -> None:
    site.bare()
    command = [sys.executable, "-P", "-S", "-m", "rdlite", "check"]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(site.folder)}, capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stderr == ""
    assert 'BAD  numpy: is not installed\n     pip install "numpy' in done.stdout
    assert done.stdout.endswith("what depends on it was not tried.\n")
    assert "kernels" not in done.stdout
