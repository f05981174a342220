"""What setup.cfg, which has everything else, cannot say: the compiled kernels, and the wheel that holds them.

The environment variable KETCORE_NATIVE may be 0, for no kernels, or "require", which makes an error of a
library that cannot be compiled; without it ketcore is then installed without its compiled engine.
"""

import os
import shutil
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from platform import machine

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

NATIVE = "ketcore/native"
WANTED = os.environ.get("KETCORE_NATIVE") or "1"
if WANTED not in ("0", "1", "require"):
    raise SystemExit(f"KETCORE_NATIVE must be 0, 1 or require, got {WANTED!r}")

# Not by its name, which would import ketcore, and NumPy with it.
_spec = spec_from_file_location("build", f"{NATIVE}/build.py")
builder = module_from_spec(_spec)
_spec.loader.exec_module(builder)


class BuildKernels(build_ext):
    """Makes a shared library of no version of Python."""

    def get_ext_filename(self, fullname):
        """The path of the library within a folder of packages."""
        return os.path.join(*fullname.split(".")[:-1], builder.NAME)

    def build_extension(self, ext):
        """Compile it, unless that has been done; an extension that is optional may fail, in one line."""
        target, found = Path(self.get_ext_fullpath(ext.name)), Path(NATIVE, builder.NAME)
        if builder.is_current(found):
            # An installation from the same checkout as before takes a second, where compiling takes a minute.
            if found.resolve() != target.resolve():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(found, target)
            return
        # One of an earlier build may be there, of other sources.
        target.unlink(missing_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            builder.build(target.parent)
        except RuntimeError as error:
            rest = "; ketcore will run without its compiled engine" if ext.optional else ""
            raise CompileError(f"{error}{rest}") from None


class Wheel(bdist_wheel):
    """Is for every Python of a platform where the kernels were compiled, and else for every platform."""

    def run(self):
        """Compile before it is asked what the wheel is for."""
        if self.distribution.ext_modules:
            self.run_command("build_ext")
            if not all(map(os.path.exists, self.get_finalized_command("build_ext").get_outputs())):
                self.distribution.ext_modules = None
                self.root_is_pure = True
        super().run()

    def get_tag(self):
        """Which Pythons and platforms the wheel is for."""
        platform = super().get_tag()[2]
        # The compiler makes code for this machine alone, whatever Python is for.
        return "py3", "none", platform.replace("universal2", machine())


kernels = Extension("ketcore.native._kernels", [f"{NATIVE}/api.cpp"], optional=WANTED != "require")
commands = {"build_ext": BuildKernels, "bdist_wheel": Wheel}
setup(ext_modules=[] if WANTED == "0" else [kernels], cmdclass=commands)
