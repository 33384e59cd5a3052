"""The folder of a run that is to go on: its log and its checkpoint cut off, altered, or another run's."""

import json
import struct

import pytest
from hypothesis import strategies as st
from safetensors.torch import load, save

from fuzz.damage import altered, damaged
from fuzz.rounds import QUICK, refused
from fuzz.trial import Case, Workplace, typed

LINE = ("train", "net.py:build", "--data", "pictures", "--batch-size", "4", "--device", "cpu", "--out", "run")
SETTINGS = ("--learning-rate", "--momentum", "--seed", "--batch", "--num-classes", "--input", "--width",
"--optimizer",
            "--crop", "--accumulation", "--warmup-epochs", "--ema-decay", "--precision", "--weights",
            "--data")  # fmt: skip
VALUES = (
    "0.5",
    "0",
    "7",
    "-1",
    "adam",
    "3x20x20",
    "2",
    "nan",
    "fp32",
    "amp-bf16",
    "pictures/a",
    "weights.safetensors",
)


@pytest.fixture
def run(folder, monkeypatch):
    """A run of one epoch, with everything beside it, that may go on."""
    monkeypatch.chdir(folder)
    assert typed((*LINE, "--epochs", "1")).code == 0
    return folder


def _lines(log):
    """The log with a line or two lost, doubled, swapped or altered."""
    entries = [json.loads(line) for line in log.decode().splitlines()]

    def written(changed):
        changed = changed if isinstance(changed, list) else [changed]
        return b"".join(json.dumps(entry).encode() + b"\n" for entry in changed)

    return altered(entries).map(written)


def _checkpoints(content):
    return _changed_checkpoint(lambda: content)


@st.composite
def _changed_checkpoint(draw, read):
    """The checkpoint with another header or other tensors; its checksum is wrong then, as often as not."""
    content = read()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    said = header["__metadata__"]
    if draw(st.booleans()):
        part = draw(st.sampled_from(sorted(said)))
        inner = json.loads(said[part]) if part in ("position", "identity") else said[part]
        changed = draw(altered({part: inner}))
        value = changed.get(part) if isinstance(changed, dict) else changed
        if value is None:
            said.pop(part)
        else:
            said[part] = (
                value
                if isinstance(value, str) and part not in ("position", "identity")
                else json.dumps(value)
            )
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + content[8 + size :]
    tensors = load(content)
    name = draw(st.sampled_from(sorted(tensors)))
    tensor = tensors.pop(name)
    if draw(st.booleans()):
        tensors[draw(st.sampled_from((name, f"{name}x", "", "model.", "other.x", "\x1b[31m")))] = tensor + 1
    return save(tensors, {key: str(value) for key, value in said.items()})


def lines(folder):
    """A wish to go on with a run that can't."""
    log, checkpoint = (folder / "run" / name for name in ("log.jsonl", "checkpoint.safetensors"))
    logs = st.one_of(_lines(log.read_bytes()), _lines(log.read_bytes()), damaged(log.read_bytes()), st.none())
    states = st.one_of(_checkpoints(checkpoint.read_bytes()), damaged(checkpoint.read_bytes()), st.none())
    files = st.one_of(
        logs.map(lambda content: {"run/log.jsonl": content}),
        states.map(lambda content: {"run/checkpoint.safetensors": content}),
        states.map(lambda content: {"run/checkpoint.safetensors": content}),
        st.builds(lambda a, b: {"run/log.jsonl": a, "run/checkpoint.safetensors": b}, logs, states),
    )
    resumed = files.map(lambda content: Case((*LINE, "--epochs", "2", "--resume"), content, "run"))
    other = st.builds(
        lambda flag, value: Case((*LINE, "--epochs", "2", "--resume", flag, value), {}, "run"),
        st.sampled_from(SETTINGS),
        st.sampled_from(VALUES),
    )
    return resumed | resumed | resumed | other


@pytest.mark.parametrize("share", [QUICK, pytest.param(1, marks=pytest.mark.slow)])
def test_they_are_refused(run, share):
    refused("test_resumed", lines(run), Workplace(run), share)
