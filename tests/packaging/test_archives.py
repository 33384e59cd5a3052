"""What is in the wheel and in the archive of sources: all that the package needs, and nothing else."""

import re
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

import convscope

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
LEFTOVERS = re.compile(r"__pycache__|\.py[co]$|\.egg-info|(^|/)(\.venv|\.git|build|dist|\.\w+_cache)/|~$")
LICENCES = ("LICENSE", "src/convscope/report/pages/_static/LICENSES")


def sources():
    """The files of the package, without what Python leaves beside them."""
    return {
        path.relative_to(ROOT / "src").as_posix(): path
        for path in (ROOT / "src").rglob("*")
        if path.is_file() and not LEFTOVERS.search(path.relative_to(ROOT).as_posix())
    }


@pytest.fixture(scope="module")
def in_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def in_sdist(sdist):
    with tarfile.open(sdist) as archive:
        members = [member for member in archive if member.isfile()]
        return {member.name.partition("/")[2]: archive.extractfile(member).read() for member in members}


def test_the_wheel_holds_the_package_and_nothing_else(in_wheel):
    about = f"convscope-{convscope.__version__}.dist-info/"
    package = {name: content for name, content in in_wheel.items() if not name.startswith(about)}
    assert package == {name: path.read_bytes() for name, path in sources().items()}
    assert {name.removeprefix(about) for name in in_wheel.keys() - package.keys()} == {
        "METADATA", "WHEEL", "RECORD", "entry_points.txt", *(f"licenses/{name}" for name in LICENCES),
    }  # fmt: skip
    assert all(in_wheel[f"{about}licenses/{name}"] == (ROOT / name).read_bytes() for name in LICENCES)


def test_what_is_no_code_is_in_the_wheel(in_wheel):
    kinds = {
        "py.typed": 1,
        "report/pages/templates/*.j2": 15,
        "report/pages/_static/**/*.js": 12,
        "report/pages/_static/**/*.css": 2,
        "report/pages/_static/LICENSES": 1,
        "checkup/pages/*.md": 35,
        "cost/memory/*.json": 1,
    }
    for pattern, least in kinds.items():
        there = [path for path in (ROOT / "src" / "convscope").glob(pattern) if path.is_file()]
        assert len(there) >= least, pattern
        assert all(path.relative_to(ROOT / "src").as_posix() in in_wheel for path in there), pattern


def test_the_metadata_say_what_is_true(in_wheel):
    about = message_from_bytes(in_wheel[f"convscope-{convscope.__version__}.dist-info/METADATA"])
    assert (about["Name"], about["Version"]) == ("convscope", convscope.__version__)
    assert about["Requires-Python"] == ">=3.11"
    assert about.get_all("License-File") == list(LICENCES)
    assert {"train", "log", "plot", "data", "hf", "onnx"} <= set(about.get_all("Provides-Extra"))
    core = [line for line in about.get_all("Requires-Dist") if "extra ==" not in line]
    assert len(core) == 9
    assert in_wheel[f"convscope-{convscope.__version__}.dist-info/entry_points.txt"].decode().split() == [
        "[console_scripts]", "convscope", "=", "convscope.cli.main:main",
    ]  # fmt: skip


def test_the_sources_have_what_their_tests_and_targets_need(in_sdist):
    assert {name.partition("/")[0] for name in in_sdist} == {
        "src", "tests", "bench", "examples", "docs", "Makefile", "constraints.txt", "pyproject.toml",
        "README.md", "CHANGELOG.md", "LIMITATIONS.md", "LICENSE", "PKG-INFO", ".gitignore",
    }  # fmt: skip
    assert not [name for name in in_sdist if LEFTOVERS.search(name)]
    assert {f"src/{name}" for name in sources()} <= in_sdist.keys()


def test_the_sources_make_the_same_wheel(outside, builder, sdist, in_wheel, tmp_path):
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    with zipfile.ZipFile(outside.build(builder, source, "wheel")) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == in_wheel
