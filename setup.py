"""Builds csrc/cpu as a plain shared library that fastsnn/ops/library.py loads with ctypes.

No torch at build time and no Python headers in the sources, so the build takes seconds and one binary serves every
torch. Without a compiler the install still succeeds: fastsnn then runs on its reference implementation and says so.
"""

import os

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FLAGS = ["-O3", "-std=c++17", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]


class BuildLibrary(build_ext):
    """Names the library without Python's ABI tag: it does not depend on one."""

    def get_ext_filename(self, fullname):
        """Return e.g. fastsnn/_cpu.so for fastsnn._cpu."""
        return os.path.join(*fullname.split(".")) + ".so"  # noqa: PTH118 - setuptools wants a string

    def get_export_symbols(self, ext):
        """Export nothing beyond what the sources mark: there is no PyInit function."""
        return []


setup(
    ext_modules=[
        Extension(
            "fastsnn._cpu",
            sources=["csrc/cpu/kernels.cpp"],
            depends=[f"csrc/cpu/{name}" for name in sorted(os.listdir("csrc/cpu"))],  # noqa: PTH208
            extra_compile_args=FLAGS,
            language="c++",
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildLibrary},
)
