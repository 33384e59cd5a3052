"""A sign of life of long commands: on a terminal only, gone before anything is said."""

import io
import os
import pty
import subprocess
import sys
import time

import pytest
from rich.console import Console

from convscope.cli.main import COMMANDS as ALL
from convscope.cli.waiting import COMMANDS, Waiting, waiting


def _console():
    return Console(file=io.StringIO(), force_terminal=True, width=80)


def test_it_comes_after_a_while_and_goes():
    console = _console()
    sign = Waiting("convscope fold", console, seconds=0.05)
    assert console.file.getvalue() == ""
    time.sleep(0.5)
    assert "convscope fold" in console.file.getvalue()
    sign.stop()
    shown = console.file.getvalue()
    assert shown.endswith(("\x1b[2K", "\x1b[?25h"))  # the line is cleared, the cursor is back
    time.sleep(0.3)
    assert console.file.getvalue() == shown


def test_quick_work_shows_nothing():
    console = _console()
    Waiting("convscope cost", console, seconds=0.2).stop()
    time.sleep(0.4)
    assert console.file.getvalue() == ""


def test_commands_with_bars_and_files_have_none(monkeypatch):
    assert set(ALL) > COMMANDS
    assert not {"train", "compare", "gallery", "report", "checkup"} & COMMANDS
    before = len(__import__("threading").enumerate())
    for words in (["train"], [], ["cost"]):  # standard error isn't a terminal here
        with waiting(words):
            assert len(__import__("threading").enumerate()) == before


@pytest.mark.slow
def test_on_a_terminal_the_result_stands_alone(tmp_path):
    (tmp_path / "slow.py").write_text(
        "import time\nfrom torch import nn\n\n\n"
        "def build():\n    time.sleep(3)\n    return nn.Conv2d(3, 8, 3), (1, 3, 9, 9)\n"
    )
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "convscope", "cost", "slow.py:build", "--csv", "-"]
    done = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=theirs, text=True, check=True)
    os.close(theirs)
    said = os.read(ours, 100_000).decode()
    assert "convscope cost" in said
    assert done.stdout.startswith("address,")
    assert said.rstrip().endswith(("\x1b[2K", "\x1b[?25h"))
