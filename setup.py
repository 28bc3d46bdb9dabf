"""Build of the one compiled module, rdlite._core: plain C kernels and a thin Cython file over them.

Two environment variables change the build: RDLITE_DEBUG=1 turns on Cython's bounds checks and C's
debug information, RDLITE_SANITIZE=1 adds AddressSanitizer and UndefinedBehaviorSanitizer.
"""

import os
import re
import sys
import sysconfig
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

DEBUG = os.environ.get("RDLITE_DEBUG") == "1"
SANITIZE = os.environ.get("RDLITE_SANITIZE") == "1"
# The stable ABI has memoryviews from 3.11 on; free-threaded builds do not offer it.
ABI3 = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")

# Without -fno-trapping-math gcc 12 does not vectorise the overlaps: suppression at conf 0.01 took
# 1.6 times as long. It changes no result, it only says that nobody reads the exception flags.
GNU = ["-std=c11", "-Wall", "-O3", "-g0", "-fopenmp-simd", "-ffp-contract=off"]
GNU += ["-fno-trapping-math"]
GNU_LINK: list[str] = []
if DEBUG:
    GNU += ["-O0", "-g"]
if SANITIZE:
    GNU_LINK = ["-fsanitize=address,undefined"]
    GNU += [*GNU_LINK, "-fno-sanitize-recover=undefined"]
    GNU += ["-fno-omit-frame-pointer", "-O1", "-g"]
# setuptools adds /O2. The pragmas are unknown to it (4068), which changes no result.
MICROSOFT = ["/std:c11", "/fp:precise", "/wd4068"]


class Build(build_ext):
    """Gives each kind of compiler its own options."""

    def build_extensions(self) -> None:
        """Compile, once the compiler is known."""
        microsoft = self.compiler.compiler_type == "msvc"
        for extension in self.extensions:
            extension.extra_compile_args = MICROSOFT if microsoft else GNU
            extension.extra_link_args = [] if microsoft else GNU_LINK
            extension.libraries = [] if microsoft else ["m"]
        super().build_extensions()


def readme() -> str:
    """The README for a package index, where links into the repository would lead nowhere."""
    text = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
    text = re.sub(r"!\[[^]]*\]\((?!https:)[^)]*\)\n+", "", text)
    return re.sub(r"\[([^]]*)\]\((?!https:)([^)]*)\)", r"\1 (\2)", text)


core = Extension(
    "rdlite._core",
    sources=["csrc/_core.pyx", "csrc/decode.c", "csrc/suppress.c"],
    depends=["csrc/rdlite_core.h", "csrc/vector.h"],
    include_dirs=["csrc"],
    define_macros=[("Py_LIMITED_API", "0x030B0000")] if ABI3 else [],
    py_limited_api=ABI3,
)
directives = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,
    "initializedcheck": DEBUG,
    "cdivision": True,
    "embedsignature": True,
    "freethreading_compatible": True,
}
# cythonize compares timestamps, not directives: each mode needs its own generated file.
BUILD_DIR = "build/cython-debug" if DEBUG else "build/cython"
setup(
    long_description=readme(),
    long_description_content_type="text/markdown",
    cmdclass={"build_ext": Build},
    ext_modules=cythonize([core], compiler_directives=directives, build_dir=BUILD_DIR),
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if ABI3 else {},
)
