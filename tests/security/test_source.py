"""What could run code, start programs or reach a network in the sources: only the places listed here do."""

import ast
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "convscope"
FILES = sorted(SOURCE.rglob("*.py"))
CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.execv", "os.spawnv",
    "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads", "shelve.open",
    "yaml.load", "np.load", "numpy.load", "torch.export.load", "torch.jit.load", "torch.hub.load",
    "runpy.run_path", "tempfile.mktemp", "subprocess.run", "subprocess.Popen", "subprocess.call",
    "subprocess.check_call", "subprocess.check_output", "spec.loader.exec_module", "archive.extractall",
    "shutil.unpack_archive",
}  # fmt: skip
MODULES = {
    "aiohttp", "cloudpickle", "dill", "ftplib", "http", "httpx", "huggingface_hub", "joblib", "marshal",
    "pickle", "requests", "runpy", "shelve", "smtplib", "socket", "socketserver", "ssl", "telnetlib",
    "urllib", "xmlrpc", "yaml",
}  # fmt: skip
HARMLESS = {"urllib.parse"}  # writes addresses, and opens none
ALLOWED = {
    (
        "core/lightning.py",
        "__import__",
    ): "Lightning's base class, by two names written there, if it is loaded",
    ("cost/measured/cuda_device.py", "subprocess.run"): "asks nvidia-smi for the driver's version, no shell",
    ("fold/export/program.py", "torch.export.load"): "reads back what was written the moment before",
    ("networks/code.py", "spec.loader.exec_module"): "runs the file that the user named",
    ("networks/code.py", "torch.export.load"): "reads the program that the user named, looked through before",
    ("train/comparing/pool.py", "subprocess.Popen"): "starts our own workers, no shell",
    ("train/comparing/worker.py", "pickle.loads"): "a task that our own parent process wrote into a pipe",
}
IMPORTS = {
    ("core/fingerprint.py", "pickle"): "writes NumPy's state, to hash it; reads nothing",
    ("networks/checkpoint.py", "pickle"): "the name of the error that the weights-only reader raises",
    ("train/comparing/worker.py", "pickle"): "a task that our own parent process wrote into a pipe",
}


@cache
def nodes():
    """Every call and import, with its file."""
    kinds = ast.Call | ast.Import | ast.ImportFrom
    return [
        (path.relative_to(SOURCE).as_posix(), node)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, kinds)
    ]


def places(kind):
    return [(where, node) for where, node in nodes() if isinstance(node, kind)]


def test_only_listed_places_run_code_or_programs():
    found = {(where, ast.unparse(call.func)) for where, call in places(ast.Call)}
    assert len(found) > 5000
    assert {(where, name) for where, name in found if name in CALLS} == ALLOWED.keys()


def test_tensors_are_loaded_as_tensors_alone():
    calls = [(where, call) for where, call in places(ast.Call) if ast.unparse(call.func) == "torch.load"]
    assert {where for where, _ in calls} == {"networks/checkpoint.py", "networks/exported_archive.py"}
    for where, call in calls:
        given = {word.arg: ast.unparse(word.value) for word in call.keywords}
        assert given.get("weights_only") == "True", where


def test_no_shell_no_allowed_pickles_no_remote_code():
    flags = {"shell", "allow_pickle", "trust_remote_code", "download"}
    for where, call in places(ast.Call):
        given = {word.arg: ast.unparse(word.value) for word in call.keywords if word.arg in flags}
        on = {name for name, value in given.items() if value not in ("False", "shell")}
        assert not on, (where, ast.unparse(call))


@pytest.mark.parametrize(("where", "module"), IMPORTS)
def test_listed_imports_are_there(where, module):
    assert f"import {module}\n" in (SOURCE / where).read_text(encoding="utf-8")


def test_only_listed_files_import_what_unpickles_or_reaches_a_network():
    found = {(where, name.name) for where, node in places(ast.Import) for name in node.names}
    found |= {(where, node.module or "") for where, node in places(ast.ImportFrom)}
    risky = {each for each in found if each[1].partition(".")[0] in MODULES and each[1] not in HARMLESS}
    assert risky == IMPORTS.keys()
