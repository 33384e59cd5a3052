"""The commands of docs/gate.md and of the README's row run, and their limits are kept."""

import re
import shlex
from pathlib import Path

import pytest

from convscope.cli.main import main
from convscope.gate import Limits

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "gate.md").read_text()
NETWORK = """
from torch import nn


def build():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()), (1, 3, 20, 20)
"""


def _commands():
    text = PAGE + (ROOT / "README.md").read_text()
    words = re.sub(r"\n\s+(--)", r" \1", text)
    return sorted(
        {shlex.join(shlex.split(found)) for found in re.findall(r"convscope gate ([^`\n]+)", words)}
    )


@pytest.mark.parametrize("words", _commands())
def test_its_limits_are_kept(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NETWORK)
    main(["gate", *shlex.split(words)])
    assert (tmp_path / "gate.xml").exists() is ("--junit" in words)


def test_there_are_such_commands_and_every_limit_is_on_the_page():
    assert len(_commands()) == 3
    assert all(f"`{name}=" in PAGE for name in Limits.__dataclass_fields__)
