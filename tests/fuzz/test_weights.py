"""Files of weights: damaged, cut off, other networks', pickles that would run, headers that claim more."""

import io
import json
import pickle
import struct

import pytest
import torch
from hypothesis import strategies as st
from safetensors.torch import save

from fuzz.damage import altered, damaged
from fuzz.rounds import QUICK, refused
from fuzz.trial import Case

NET, FILE = "net.py:build", "odd.safetensors"
LINES = (
    ("cost", NET, "--weights", FILE), ("fold", NET, "--weights", FILE), ("checkup", NET, "--weights", FILE),
    ("checkup", NET, "--reference", FILE), ("gate", NET, "--weights", FILE, "--no-fault", "error"),
    ("train", NET, "--data", "pictures", "--epochs", "1", "--weights", FILE, "--new-head"),
    ("project", NET, "picture.png", "--layer", "2", "--unit", "0", "--weights", FILE),
    ("report", NET, "--data", "pictures", "--weights", FILE, "--weights", FILE),
    ("cost", "zfnet", "--width", "0.0625", "--input", "3x67x67", "--weights", FILE),
)  # fmt: skip
CLAIMS = (0, 1, 8, 1023, 10**12, 2**63 - 1, 2**63, 2**64 - 1, 10**30, -1, 1.5, "8", None, [8], True)
KINDS = ("F32", "F64", "BF16", "I64", "BOOL", "F8_E4M3", "U8", "C64", "F4", "", "f32", None, 3, "X" * 500)
PICKLES = (
    b"cos\nsystem\n(S'true'\ntR.", b"cbuiltins\neval\n(S'1'\ntR.",
    b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.", b"(" * 3000,
    b"\x80\x02}q\0(X\1\0\0\0aK\1u.", b"]" * 500 + b".", b"\x80\x05B\xff\xff\xff\x7f.",
    b"I" + b"9" * 5000 + b"\n.", b"N.",
    pickle.dumps({"a": 1}), pickle.dumps([1]), pickle.dumps({"state_dict": {}}), pickle.dumps(print),
)  # fmt: skip


def _state():
    torch.manual_seed(0)
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.ReLU(), torch.nn.ReLU(),
        torch.nn.Linear(4, 2),
    )  # fmt: skip
    return layers.state_dict()


@st.composite
def _other(draw):
    """A whole file with other tensors: missing, renamed, of other shapes and types."""
    state = _state()
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(sorted(state)))
        kind = draw(st.sampled_from(("lost", "renamed", "shape", "only", "empty")))
        tensor = state.pop(name)
        if kind == "renamed":
            state[
                draw(st.sampled_from(("x", "", f"module.{name}", "\x1b[31m", "a" * 900, f"{name}.")))
                + name[:2]
            ] = tensor
        elif kind == "shape":
            shape = draw(st.sampled_from(((), (0,), (1,), (2, 3), (7,), (4, 3, 3, 1), (3, 4, 3, 3), (1, 2))))
            state[name] = torch.zeros(
                shape, dtype=draw(st.sampled_from((torch.float32, torch.int64, torch.bool)))
            )
        elif kind == "only":
            state = {name: tensor}
        elif kind == "empty":
            state = {f"x.{draw(st.integers(0, 99))}": tensor}
        if not state:
            state = {name: tensor}
    return state


@st.composite
def _header(draw):
    """Safetensors whose header was written by hand."""
    content = save(_state())
    size = struct.unpack("<Q", content[:8])[0]
    header, rest = json.loads(content[8 : 8 + size]), content[8 + size :]
    if draw(st.booleans()):
        name = draw(st.sampled_from(sorted(header)))
        claims = st.lists(st.sampled_from(CLAIMS), max_size=4)
        part = draw(st.sampled_from(("shape", "data_offsets", "dtype")))
        header[name][part] = draw(st.sampled_from(KINDS) if part == "dtype" else claims)
    else:
        header = draw(altered(header))
    text = json.dumps(header).encode()
    length = draw(
        st.sampled_from((len(text),) * 6 + (0, 2, len(text) + 1, len(text) - 1, 10**8, 2**63, 2**64 - 1))
    )
    return struct.pack("<Q", length) + text + rest


@st.composite
def _extras(draw):
    """Whole weights with a broken word about their network in the header."""
    said = {
        "preprocessing": {"size": [16, 16], "mean": [0.5] * 3, "std": [0.5] * 3,
        "interpolation": "bilinear", "crop_pct": 1.0},
        "class_names": ["one", "two"],
        "network": {"reference": NET, "num_classes": 2, "input_shape": [3, 16, 16], "width": 1.0},
    }  # fmt: skip
    text = json.dumps(draw(altered(said)))
    return save(
        _state(),
        {"convscope": draw(st.just(text) | st.just(text[:-3]) | st.sampled_from(("", "[", "null", "3")))},
    )


@st.composite
def _pytorch(draw):
    """What torch.save writes, of whatever, and what became of it."""
    state = _state() if draw(st.booleans()) else draw(_other())
    wrapped = draw(
        st.sampled_from(
            (state, {"state_dict": state}, {"a": {"b": {"c": {"d": state}}}}, [state], {}, 3, None)
        )
    )
    buffer = io.BytesIO()
    torch.save(wrapped, buffer, _use_new_zipfile_serialization=draw(st.booleans()))
    return draw(st.just(buffer.getvalue()) | damaged(buffer.getvalue()))


def lines():
    """A command, and a file of weights that is none, or not this network's."""
    content = st.one_of(
        damaged(save(_state())),
        _other().map(save),
        _header(),
        _header(),
        _extras(),
        _pytorch(),
        st.sampled_from(PICKLES),
    )
    return st.builds(lambda words, file: Case(words, {FILE: file}), st.sampled_from(LINES), content)


@pytest.mark.parametrize("share", [QUICK, pytest.param(1, marks=pytest.mark.slow)])
def test_they_are_refused(place, share):
    refused("test_weights", lines(), place, share)
