"""The wheel, the archive of sources, and environments that don't see the tests' own packages."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "constraints.txt"


class Outside:
    """Commands and virtual environments outside of this one."""

    def __init__(self, folder):
        self.folder = folder
        hidden = ("PYTHON", "VIRTUAL_ENV")
        self._variables = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}

    def run(self, *command, folder=None, check=True, given=""):
        """Run a command with something given to its standard input; what it said is told if it fails."""
        done = subprocess.run(
            [str(word) for word in command],
            cwd=folder or self.folder,
            env={**self._variables, "OMP_NUM_THREADS": "1"},
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode:
            words = " ".join(map(str, command))
            raise AssertionError(f"{words}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        return done

    def environment(self, name):
        """Make an environment with nothing in it, not even pip; return its Python."""
        self.run(sys.executable, "-m", "venv", "--without-pip", self.folder / name)
        return self.folder / name / "bin" / "python"

    def child(self, parent, name):
        """Make an environment with another one's packages, to which more can be added; return its Python."""
        python = self.environment(name)
        (packages,) = (self.folder / name).glob("lib/python*/site-packages")
        (shared,) = parent.parents[1].glob("lib/python*/site-packages")
        (packages / "parent.pth").write_text(f"{shared}\n")
        return python

    def install(self, into, *packages):
        """Install packages of the tested versions into an environment; modules are compiled once imported."""
        pip = [sys.executable, "-m", "pip", "--python", into, "--disable-pip-version-check", "install"]
        self.run(*pip, "--quiet", "--no-compile", "--constraint", CONSTRAINTS, *packages)

    def build(self, builder, source, kind):
        """Return the ``wheel`` or the ``sdist`` of a source tree."""
        out = self.folder / f"{kind}-{source.name}"
        self.run(builder, "-m", "hatchling", "build", "--target", kind, "--directory", out, folder=source)
        (found,) = out.iterdir()
        return found


@pytest.fixture(scope="session")
def outside(tmp_path_factory):
    return Outside(tmp_path_factory.mktemp("outside"))


@pytest.fixture(scope="session")
def builder(outside):
    """A Python that has hatchling: this one if it has."""
    if importlib.util.find_spec("hatchling"):
        return Path(sys.executable)
    python = outside.environment("builder")
    outside.install(python, "hatchling")
    return python


@pytest.fixture(scope="session")
def wheel(outside, builder):
    return outside.build(builder, ROOT, "wheel")


@pytest.fixture(scope="session")
def sdist(outside, builder):
    return outside.build(builder, ROOT, "sdist")


@pytest.fixture(scope="session")
def core(outside, wheel):
    """The Python of an environment with the wheel and what it depends on, and nothing else."""
    python = outside.environment("core")
    outside.install(python, "torch")  # first and alone: the version that is pinned
    outside.install(python, wheel)
    return python
