"""What shells complete: the scripts are sourced, and asked as the shell asks them."""

import contextlib
import io
import shutil
import subprocess

import pytest

from cli.typed import run
from convscope.cli.completing import SCRIPTS
from convscope.cli.completing.table import Command, Flag, Table
from convscope.cli.completion import completion
from convscope.cli.main import COMMANDS

ASKED = """COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _convscope; printf '%s\\n' "${COMPREPLY[@]}" """


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    file = tmp_path_factory.mktemp("shell") / "convscope.bash"
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        completion("bash")
    file.write_text(said.getvalue())
    return file


def _completed(script, tmp_path, *words):
    """What bash would offer for the last of some words."""
    command = ["bash", "-c", f". {script}; {ASKED}", "bash", "convscope", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split("\n")[:-1] if done.stdout.strip() else []


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["ga"], ["gallery", "gallery-compare", "gate"]),
        (["--q"], ["--quiet"]),
        (["-q", "max"], ["max-batch"]),
        (["cost", "--qu"], ["--quiet"]),
        (["cost", "alexn"], ["alexnet"]),
        (["cost", "alexnet", "zf"], ["zfnet"]),
        (["cost", "hf", ":"], []),
        (["cost", "alexnet", "--optimizer", "adam"], ["adam", "adamw"]),
        (["cost", "alexnet", "--optimizer", "=", "adam"], ["adam", "adamw"]),
        (["cost", "alexnet", "--optimizer", "="], ["sgd", "sgd-momentum", "adam", "adamw", "rmsprop"]),
        (["cost", "alexnet", "--precision", "amp-b"], ["amp-bf16"]),
        (["train", "zfnet", "--precision", "bf"], []),  # of whole networks in bf16, for readings alone
        (["cost", "alexnet", "--norm", "la"], ["layer"]),
        (["checkup", "zfnet", "--data", "di"], ["digits"]),
        (["gate", "zfnet", "--allow", "micro"], ["micro-batch"]),
        (["gate", "zfnet", "--no-fault", "w"], ["warning"]),
        (["fold", "zfnet", "--border", "p"], ["pad"]),
        (["cost", "alexnet", "--weights", "al"], []),  # files are left to bash
        (["completion", ""], ["bash", "zsh", "fish"]),
    ],
    ids=str,
)
def test_bash_completes(script, tmp_path, words, offered):
    assert _completed(script, tmp_path, *words) == offered


def test_bash_completes_files_beside_names(script, tmp_path):
    for name in ("app.py", "a.txt", "a network.pt2", "photo.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "artists").mkdir()
    offered = _completed(script, tmp_path, "cost", "a")
    assert (offered[0], sorted(offered[1:])) == ("alexnet", ["a\\ network.pt2", "app.py", "artists/"])
    assert _completed(script, tmp_path, "train", "zfnet", "--data", "ph") == ["photos", "photo.jpg"]


def test_bash_completes_paths_where_there_is_nothing_to_say(script):
    """What bash does with an empty answer is a matter of how the function is registered."""
    asked = ["bash", "-c", f". {script}; complete -p convscope"]
    said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    assert "-o bashdefault" in said
    assert "-o default" in said


def test_names_with_colons_are_completed_where_bash_takes_them_apart(tmp_path):
    words = Table((Command("cost", "", (), takes_networks=True),), ("alexnet", "timm:resnet18", "timm:vgg"))
    script = tmp_path / "own.bash"
    script.write_text(SCRIPTS["bash"](words))
    assert _completed(script, tmp_path, "cost", "tim") == ["timm:resnet18", "timm:vgg"]
    assert _completed(script, tmp_path, "cost", "timm", ":") == ["resnet18", "vgg"]
    assert _completed(script, tmp_path, "cost", "timm", ":", "res") == ["resnet18"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command_flag_and_value(capsys, tmp_path, shell):
    code, out, _ = run(capsys, f"completion {shell}")
    assert code == 0
    flags = ("max-memory", "learning-rate", "clip-grad-norm", "quiet", "no-foreach", "no-fault")
    values = ("sgd-momentum", "amp-bf16", "ghost", "mnist5k", "stale-statistics", "torchvision:")
    assert all(word in out for word in (*COMMANDS, *flags, *values))
    (tmp_path / "script").write_text(out)
    if shutil.which(shell):
        done = subprocess.run([shell, "-n", str(tmp_path / "script")], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_words_in_quotes_stay_words(shell):
    flag = Flag(("--name",), "The network's name: [any] $HOME", takes_value=True, values=("one", "two"))
    out = SCRIPTS[shell](Table((Command("cost", "It's", (flag,), takes_networks=True),), ("alexnet",)))
    assert {"zsh": "(one two)", "fish": "-x -a 'one two'"}[shell] in out
    assert "[any]" not in out or shell == "fish"
    if shutil.which(shell):
        done = subprocess.run([shell, "-n"], input=out, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
