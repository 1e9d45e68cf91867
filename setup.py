"""Builds csrc/cpu as a plain shared library that fastsnn/ops/library.py loads with ctypes.

No torch at build time and no Python headers in the sources, so the build takes seconds and one binary serves every
torch. Without a compiler the install still succeeds: fastsnn then runs on its reference implementation and says so.

    python setup.py build_cuda     compiles csrc/cuda beforehand, with nvcc and ninja; then nothing is at run time
"""

import os
import runpy
import shutil
import subprocess
from pathlib import Path

from setuptools import Command, Extension, setup
from setuptools.command.build_ext import build_ext

FLAGS = ["-O3", "-std=c++17", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
ARCHITECTURES = "80,86,90,100,120"


class BuildLibrary(build_ext):
    """Names the library without Python's ABI tag: it does not depend on one. Takes the CUDA sources along."""

    def run(self):
        """Build; in a wheel the CUDA sources go beside the package's modules, for NVRTC."""
        super().run()
        if not self.inplace:
            package = Path(self.build_lib, "fastsnn", "_csrc")
            shutil.copytree("csrc/cuda", package / "cuda", dirs_exist_ok=True)
            shutil.copy("csrc/arguments.h", package)

    def get_ext_filename(self, fullname):
        """Return e.g. fastsnn/_cpu.so for fastsnn._cpu."""
        return os.path.join(*fullname.split(".")) + ".so"  # noqa: PTH118 - setuptools wants a string

    def get_export_symbols(self, ext):
        """Export nothing beyond what the sources mark: there is no PyInit function."""
        return []


class BuildCuda(Command):
    """Compiles every unit of csrc/cuda to a fatbin in fastsnn/_cuda, and notes what sources they are from."""

    description = "compile the CUDA C++ kernels beforehand (needs nvcc and ninja)"
    user_options = [("architectures=", None, f"compute capabilities without dots, e.g. 90,120 [{ARCHITECTURES}]")]  # noqa: RUF012

    def initialize_options(self):
        """Take what the option says by default."""
        self.architectures = ARCHITECTURES

    def finalize_options(self):
        """Refuse what is no list of numbers."""
        self.architectures = self.architectures.split(",")
        if not all(architecture.isdigit() for architecture in self.architectures):
            raise SystemExit(f"--architectures is {','.join(self.architectures)}, expected numbers such as 90,120.")

    def run(self):
        """Write build/cuda/build.ninja and run ninja; the digest is written last, when all units are there."""
        home = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"))
        nvcc = os.environ.get("NVCC") or shutil.which("nvcc") or shutil.which("nvcc", path=home / "bin")
        ninja = shutil.which("ninja")
        for name, found in (("nvcc", nvcc), ("ninja", ninja)):
            if not found:
                raise SystemExit(
                    f"build_cuda needs {name}, which was not found; pip install 'fastsnn[build]' brings ninja"
                )
        units, built = runpy.run_path("fastsnn/ops/cuda_units.py"), Path("fastsnn/_cuda")
        shutil.rmtree(built, ignore_errors=True)
        built.mkdir()
        codes = [f"-gencode arch=compute_{a},code=sm_{a}" for a in self.architectures]
        newest = self.architectures[-1]
        codes.append(f"-gencode arch=compute_{newest},code=compute_{newest}")  # for GPUs that are not there yet
        rules = [
            f"nvcc = {nvcc}",
            "rule unit",
            f"  command = $nvcc -fatbin {' '.join(codes)} $options -o $out $in",
            "  description = $out",
        ]
        for unit in units["every_unit"]():
            rules += [f"build {built.resolve() / unit.name}.fatbin: unit {Path('csrc/cuda', unit.source).resolve()}.cu"]
            rules += [f"  options = {' '.join(unit.options())}"]
        folder = Path("build/cuda")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "build.ninja").write_text("\n".join(rules) + "\n")
        subprocess.run([ninja, "-C", folder], check=True)
        (built / "digest").write_text(units["digest"]())


setup(
    ext_modules=[
        Extension(
            "fastsnn._cpu",
            sources=["csrc/cpu/kernels.cpp"],
            depends=["csrc/arguments.h", *(f"csrc/cpu/{name}" for name in sorted(os.listdir("csrc/cpu")))],  # noqa: PTH208
            extra_compile_args=FLAGS,
            language="c++",
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildLibrary, "build_cuda": BuildCuda},
)
