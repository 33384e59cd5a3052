"""What the metadata promise: one version, the Pythons, the extras; and what an import may cost, in modules.

That neither ``import convscope`` nor ``--help`` imports PyTorch is tested in tests/cli/test_main.py, the
licences of the inlined libraries in tests/report/pages/test_report.py.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest

import convscope

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PYTHONS = ("3.11", "3.12", "3.13")
ALWAYS_THERE = {"typing_extensions", "markupsafe", "mpmath", "sympy"}  # PyTorch's and Jinja2's own
MODULES = {
    "import convscope": 100,
    "from convscope.cli.main import main; main(['--help'])": 300,
    "from convscope.cli.main import main; main(['cost', '--help'])": 320,
}
"""The most modules that may be imported: somewhat above the 91, 233 and 245 that are, 33 of them Python's."""


def test_the_version_is_one():
    assert PROJECT["version"] == convscope.__version__
    shown = subprocess.run([sys.executable, "-m", "convscope", "--version"], capture_output=True, text=True)
    assert shown.stdout.strip() == convscope.__version__


def test_the_pythons_are_told():
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"
    told = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line]
    assert told == list(PYTHONS)


def test_no_syntax_is_newer_than_the_oldest_python():
    assert len(SOURCES) > 500
    for path in SOURCES:
        ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=(3, 11))


@pytest.mark.slow
@pytest.mark.parametrize("version", PYTHONS)
def test_every_file_compiles_without_a_warning(version, tmp_path):
    python = shutil.which(f"python{version}")
    variables = {**os.environ, "PYENV_VERSION": version, "PYTHONPYCACHEPREFIX": str(tmp_path)}
    if python is None or subprocess.run([python, "-V"], env=variables, capture_output=True).returncode:
        pytest.skip(f"no Python {version} here")
    command = [python, "-W", "error", "-m", "compileall", "-q", ROOT / "src"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def imported(path):
    """The packages that a file imports, at its top and inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]


KERNELS = {"arithmetic.py": "numba", "gpu_kernels.py": "triton"} | dict.fromkeys(
    ("planes.py", "columns.py", "rows.py"), "numba"
)
"""Files of batch norm's kernels, and what they are compiled by: imported where that is installed."""


def test_every_package_that_is_imported_at_the_top_is_a_core_dependency():
    names = {"pillow": "PIL", "markdown-it-py": "markdown_it"}
    core = {re.match(r"[\w-]+", line)[0] for line in PROJECT["dependencies"]}
    core = {names.get(name, name) for name in core} | ALWAYS_THERE | {"convscope"}
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        tops = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        path_of = [n.module or "" if isinstance(n, ast.ImportFrom) else n.names[0].name for n in tops]
        found = {name.partition(".")[0] for name in path_of} - set(sys.stdlib_module_names)
        compiled_by = {KERNELS.get(path.name)} if "fast" in path.parts else set()
        assert found <= core | compiled_by, path


def test_every_package_that_is_imported_inside_is_in_an_extra_or_optional():
    packages = {"scikit-learn": "sklearn", "scikit-image": "skimage", "vl-convert-python": "vl_convert"}
    listed = chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    known = {re.match(r"[\w-]+", line)[0] for line in listed}
    known = {packages.get(name, name) for name in known} | ALWAYS_THERE | {"convscope", "PIL", "markdown_it"}
    users = {
        "torchvision",
        "timm",
        "transformers",
        "IPython",
        "lightning",
        "pytorch_lightning",
        "triton",  # comes with PyTorch for CUDA
    }  # theirs, if any
    found = {name for path in SOURCES for name in imported(path)} - set(sys.stdlib_module_names)
    assert found <= known | users


def test_extras_that_advice_names_exist():
    advice = {
        extra
        for path in [*SOURCES, ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
        for extras in re.findall(r"convscope\[([a-z,]+)\]", path.read_text(encoding="utf-8"))
        for extra in extras.split(",")
    }
    assert advice == {"train", "log", "plot", "data", "hf", "onnx", "kernels"}
    assert advice <= PROJECT["optional-dependencies"].keys()


@pytest.mark.parametrize("code", MODULES)
def test_importing_stays_within_its_budget(code):
    script = (
        f"import sys\ntry: {code}\nexcept SystemExit: pass\n"
        "print(len(sys.modules), 'torch' in sys.modules, 'numpy' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    count, *heavy = done.stderr.splitlines()[-1].split()
    assert heavy == ["False", "False"]
    assert int(count) <= MODULES[code]
