"""The wheel carries onnxruntime-web for the page of `decodec demo`. All else is in pyproject.toml."""

import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SCRIPT = Path(__file__).parent / "decodec_jax/demo/runtime.py"


class BuildWithRuntime(build_py):
    """Without a network the wheel is complete but for this; `decodec demo` then downloads it at its first use."""

    def run(self):
        super().run()
        if self.editable_mode:
            return
        folder = Path(self.build_lib) / "decodec_jax/demo/page/runtime"
        done = subprocess.run([sys.executable, SCRIPT, folder], stderr=subprocess.PIPE, text=True)
        if done.returncode:
            self.warn(done.stderr.strip())


setup(cmdclass={"build_py": BuildWithRuntime})
