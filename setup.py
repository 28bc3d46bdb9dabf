"""Build of the one compiled module, rdlite._core: plain C kernels and a thin Cython file over them.

Two environment variables change the build: RDLITE_DEBUG=1 turns on Cython's bounds checks and C's
debug information, RDLITE_SANITIZE=1 adds AddressSanitizer and UndefinedBehaviorSanitizer.
"""

import os
import sys
import sysconfig

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("RDLITE_DEBUG") == "1"
SANITIZE = os.environ.get("RDLITE_SANITIZE") == "1"
# The stable ABI has memoryviews from 3.11 on; free-threaded builds do not offer it.
ABI3 = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")

# Without -fno-trapping-math gcc 12 does not vectorise the overlaps: suppression at conf 0.01 took
# 1.6 times as long. It changes no result, it only says that nobody reads the exception flags.
compile_args = ["-std=c11", "-Wall", "-O3", "-g0", "-fopenmp-simd", "-ffp-contract=off"]
compile_args += ["-fno-trapping-math"]
link_args: list[str] = []
if DEBUG:
    compile_args += ["-O0", "-g"]
if SANITIZE:
    link_args = ["-fsanitize=address,undefined"]
    compile_args += [*link_args, "-fno-sanitize-recover=undefined"]
    compile_args += ["-fno-omit-frame-pointer", "-O1", "-g"]

core = Extension(
    "rdlite._core",
    sources=["csrc/_core.pyx", "csrc/decode.c", "csrc/suppress.c"],
    depends=["csrc/rdlite_core.h", "csrc/vector.h"],
    include_dirs=["csrc"],
    libraries=["m"],
    define_macros=[("Py_LIMITED_API", "0x030B0000")] if ABI3 else [],
    py_limited_api=ABI3,
    extra_compile_args=compile_args,
    extra_link_args=link_args,
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
    ext_modules=cythonize([core], compiler_directives=directives, build_dir=BUILD_DIR),
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if ABI3 else {},
)
