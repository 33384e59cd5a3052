"""Operators that only move elements: labels move with them, whichever axes they lie along."""

import pytest
import torch
import torch.nn.functional as F

from fold.gauge.claims import case
from fold.gauge.passing import ALL, SHIFT, admitted, true
from fold.gauge.trials import assert_claim, assert_needed

IMAGE = (2, 4, 3, 4)
CUBE = (2, 2, 3, 2, 4)
ORDER = {"order": lambda: torch.tensor([3, 1, 1])}


def written(function):
    """A memory of zeros, and what ``function`` writes to it."""

    def run(net, x):
        memory = torch.zeros_like(x)
        function(memory, x)
        return memory

    return run


CASES = {
    "view": case(lambda s, x: x.view(2, 2, 2, 12), IMAGE),
    "view mixes channels and rows": case(lambda s, x: x.view(2, 3, 16), IMAGE),
    "view of all": case(lambda s, x: x.view(-1), IMAGE),
    "view of equal sizes": case(lambda s, x: x.view(4, 2, 2, 4), (4, 4, 2, 2)),
    "_unsafe_view": case(lambda s, x: torch.ops.aten._unsafe_view(x, [8, 12]), IMAGE),
    "_reshape_alias": case(lambda s, x: torch.ops.aten._reshape_alias(x, [8, 12], [12, 1]), IMAGE),
    "reshape that copies": case(lambda s, x: x.transpose(1, 2).reshape(2, -1), IMAGE),
    "squeeze": case(lambda s, x: x.squeeze(), (2, 1, 3, 1)),
    "squeeze dim": case(lambda s, x: x.squeeze(-1), (2, 4, 3, 1)),
    "squeeze dims": case(lambda s, x: x.squeeze((1, -1)), (2, 1, 3, 1)),
    "unsqueeze": case(lambda s, x: (x.unsqueeze(-1), x.unsqueeze(1)), IMAGE),
    "clone": case(lambda s, x: x.clone(), IMAGE),
    "_to_copy": case(lambda s, x: x.to(torch.float32), IMAGE, close=1e-5),
    "_to_copy half": case(lambda s, x: x.to(torch.bfloat16), IMAGE, close=3e-2),
    "channels last": case(lambda s, x: x.to(memory_format=torch.channels_last), IMAGE),
    "expand": case(lambda s, x: x.expand(-1, 3, -1, 5), (2, 1, 3, 1)),
    "expand to more axes": case(lambda s, x: x.expand(2, 3, 2, 4), (2, 4)),
    "permute": case(lambda s, x: x.permute(0, -1, 1, 2), IMAGE),
    "transpose": case(lambda s, x: x.transpose(1, -1), IMAGE),
    "transpose of equal sizes": case(lambda s, x: x.transpose(1, 2), (3, 3, 3, 3)),
    "t": case(lambda s, x: x.t(), (3, 4)),
    "t of a vector": case(lambda s, x: x.t(), (4,)),
    "slice": case(lambda s, x: x[:, 1:-1], IMAGE),
    "slice by steps": case(lambda s, x: x[:, 1::2, ::2], IMAGE),
    "slice of samples": case(lambda s, x: x[1:], IMAGE),
    "slice of nothing off": case(lambda s, x: x[:, :99], IMAGE),
    "select": case(lambda s, x: x[:, 1], IMAGE),
    "select from the end": case(lambda s, x: x.select(-1, -2), IMAGE),
    "select a sample": case(lambda s, x: x[-1], IMAGE),
    "split": case(lambda s, x: x.split(3, 1), IMAGE),
    "split of the last axis": case(lambda s, x: x.split(3, -1)[::-1], IMAGE),
    "split_with_sizes": case(lambda s, x: x.split([1, 3], 1)[::-1], IMAGE),
    "unsafe_split": case(lambda s, x: x.unsafe_split(2, 1), IMAGE),
    "unbind": case(lambda s, x: x.unbind(1), IMAGE),
    "unbind samples": case(lambda s, x: x.unbind(), IMAGE),
    "cat": case(lambda s, x, y: torch.cat([x, y], 1), IMAGE, (2, 2, 3, 4)),
    "cat of rows": case(lambda s, x, y: torch.cat([y, x], -1), IMAGE, IMAGE),
    "cat of samples": case(lambda s, x, y: torch.cat([x, y, x]), IMAGE, IMAGE),
    "cat with a constant": case(lambda s, x: torch.cat([x, torch.ones_like(x[:, :1])], 1), IMAGE),
    "cat with emptiness": case(lambda s, x: torch.cat([torch.zeros(0), x], 1), IMAGE),
    "stack": case(lambda s, x, y: torch.stack([x, y], 1), (2, 4, 3), (2, 4, 3)),
    "stack at the end": case(lambda s, x, y: torch.stack([x, y, x], -1), (2, 4, 3), (2, 4, 3)),
    "pixel_shuffle": case(lambda s, x: F.pixel_shuffle(x, 2), IMAGE),
    "pixel_unshuffle": case(lambda s, x: F.pixel_unshuffle(x, 2), (2, 3, 4, 2)),
    "channel_shuffle": case(lambda s, x: F.channel_shuffle(x, 2), IMAGE),
    "native_channel_shuffle": case(lambda s, x: torch.native_channel_shuffle(x, 2), IMAGE),
    "flip": case(lambda s, x: x.flip(1, -1), IMAGE),
    "flip samples": case(lambda s, x: x.flip(0), IMAGE),
    "roll": case(lambda s, x: x.roll((1, -2), (1, 3)), IMAGE),
    "roll of all": case(lambda s, x: x.roll(1), IMAGE),
    "rot90": case(lambda s, x: x.rot90(1, (1, 3)), IMAGE),
    "rot90 of samples": case(lambda s, x: x.rot90(1, (0, 1)), IMAGE),
    "repeat": case(lambda s, x: x.repeat(1, 2, 1, 1), IMAGE),
    "repeat samples": case(lambda s, x: x.repeat(3, 2, 1, 1, 1), IMAGE),
    "repeat_interleave": case(lambda s, x: x.repeat_interleave(2, 1), IMAGE),
    "unfold": case(lambda s, x: x.unfold(1, 2, 1), IMAGE),
    "unfold rows": case(lambda s, x: x.unfold(2, 2, 1), IMAGE),
    "unfold samples": case(lambda s, x: x.unfold(0, 2, 1), IMAGE),
    "index_select": case(lambda s, x: x.index_select(1, s.order), IMAGE, **ORDER),
    "index_select from the end": case(lambda s, x: x.index_select(-1, s.order), IMAGE, **ORDER),
    "index_select of samples": case(lambda s, x: x.index_select(0, s.order), (4, 2, 3), **ORDER),
    "index": case(lambda s, x: x[:, s.order], IMAGE, **ORDER),
    "index twice": case(lambda s, x: x[:, s.order, [2, 0, 1]], IMAGE, **ORDER),
    "index of samples": case(lambda s, x: x[s.order], (4, 2, 3), **ORDER),
    "index apart": case(lambda s, x: x[:, s.order, :, s.order], IMAGE, **ORDER),
    "tril": case(lambda s, x: x.tril(), IMAGE),
    "diagonal": case(lambda s, x: x.diagonal(dim1=1, dim2=3), IMAGE),
    "diagonal of samples": case(lambda s, x: x.diagonal(), (3, 3, 2)),
    "empty_like": case(lambda s, x: torch.empty_like(x).copy_(x), IMAGE),
    "new_empty": case(lambda s, x: x.new_empty(x.shape).copy_(x), IMAGE),
    "new_empty_strided": case(lambda s, x: x.new_empty_strided(x.shape, x.stride()).copy_(x), IMAGE),
    "zeros_like": case(lambda s, x: torch.cat([torch.zeros_like(x), x], 1), IMAGE),
    "ones_like": case(lambda s, x: torch.cat([x, torch.ones_like(x)], 1), IMAGE),
    "full_like": case(lambda s, x: torch.cat([x, torch.full_like(x, 2)], 1), IMAGE),
    "new_zeros": case(lambda s, x: torch.cat([x, x.new_zeros(2, 1, 3, 4)], 1), IMAGE),
    "new_ones": case(lambda s, x: torch.cat([x, x.new_ones(2, 1, 3, 4)], 1), IMAGE),
    "new_full": case(lambda s, x: torch.cat([x, x.new_full((2, 1, 3, 4), 2)], 1), IMAGE),
    "to whole numbers": case(lambda s, x: (3 * x).to(torch.int64), IMAGE),
    "to whole numbers in place": case(lambda s, x: torch.zeros(IMAGE, dtype=torch.int64).copy_(3 * x), IMAGE),
    "to truth values": case(lambda s, x: x.relu().bool(), IMAGE, slack=("isn't linear",)),
    "view as whole numbers": case(lambda s, x: x.contiguous().view(torch.int64) % 7, IMAGE),
    "view as shorter numbers": case(lambda s, x: x.contiguous().view(torch.int16) % 7, IMAGE),
    "copy": case(lambda s, x: torch.zeros_like(x).copy_(x), IMAGE),
    "copy that broadcasts": case(lambda s, x: torch.zeros(2, 4, 3, 4, dtype=x.dtype).copy_(x), (4, 1, 1)),
    "copy over": case(lambda s, x, y: x.clone().copy_(y), IMAGE, IMAGE),
    "copy to a slice": case(written(lambda m, x: m[:, 1:].copy_(x[:, :-1])), IMAGE),
    "copy to rows": case(written(lambda m, x: m[:, :, 1:].copy_(x[:, :, :-1])), IMAGE),
    "copy in two parts": case(
        lambda s, x: (
            m := torch.empty_like(x), m[:, :, 1:].copy_(x[:, :, 1:]), m[:, :, :1].copy_(x[:, :, 1:2])
        )[0],
        IMAGE,
    ),
    "copy in two parts of channels": case(
        lambda s, x: (m := torch.empty_like(x), m[:, 2:].copy_(x[:, :2]), m[:, :2].copy_(x[:, 2:]))[0], IMAGE
    ),
    "copy to a transposed view": case(
        lambda s, x: (m := torch.empty_like(x), m.transpose(1, 2).copy_(x.transpose(1, 2)))[0], IMAGE
    ),
    "write to its own slice": case(lambda s, x: (m := x.clone(), m[:, :, :1].copy_(m[:, :, 1:2]))[0], IMAGE),
    "write and read both": case(
        lambda s, x: (m := x.clone(), v := m[:, :2], v.mul_(2), m[:, 1:], v)[3:], IMAGE
    ),
    "zero a part": case(lambda s, x: (m := x.clone(), m[:, :, 0].zero_())[0], IMAGE),
    "pad": case(lambda s, x: F.pad(x, (1, 2, 0, 1)), IMAGE),
    "pad channels": case(lambda s, x: F.pad(x, (0, 0, 0, 0, 1, 2)), IMAGE),
    "pad channels and columns": case(lambda s, x: F.pad(x, (1, 0, 0, 0, 1, 2)), IMAGE),
    "pad samples": case(lambda s, x: F.pad(x, (0, 0, 0, 0, 0, 0, 1, 0)), IMAGE),
    "pad less": case(  # it asks of what is cut off too
        lambda s, x: F.pad(x, (-1, 0, 1, -1, -1, 1)), IMAGE, slack=("pads with zeros",)
    ),
    "pad less than nothing": case(lambda s, x: F.pad(x, (-1, 0, 0, -1, -2, 0), value=7.0), IMAGE),
    "pad with ones": case(lambda s, x: F.pad(x, (1, 0), value=1.0), IMAGE),
    "reflection_pad1d": case(lambda s, x: F.pad(x, (1, 2), mode="reflect"), (2, 3, 4)),
    "reflection_pad1d of one": case(lambda s, x: F.pad(x, (1, 2), mode="reflect"), (3, 4)),
    "reflection_pad2d": case(lambda s, x: F.pad(x, (1, 2, 0, 1), mode="reflect"), IMAGE),
    "reflection_pad3d": case(lambda s, x: F.pad(x, (1,) * 6, mode="reflect"), CUBE),
    "replication_pad1d": case(lambda s, x: F.pad(x, (1, 2), mode="replicate"), (2, 3, 4)),
    "replication_pad2d": case(lambda s, x: F.pad(x, (1, 2, 0, 1), mode="replicate"), IMAGE),
    "replication_pad3d": case(lambda s, x: F.pad(x, (1,) * 6, mode="replicate"), CUBE),
    "circular pad": case(lambda s, x: F.pad(x, (1, 2, 1, 1), mode="circular"), IMAGE),
    "circular pad of one axis": case(lambda s, x: F.pad(x, (1, 2), mode="circular"), (2, 3, 4)),
}  # fmt: skip

STRICTER = {
    **dict.fromkeys(
        [
            "index twice",
            "tril",
            "to truth values",
            "pad with ones",
            "zero a part",
            "reflection_pad1d of one",
            "copy to a slice",
            "copy to rows",
            "copy in two parts of channels",
            "copy to a transposed view",
            "write and read both",
        ],
        ALL,
    ),
    # the shift isn't the same everywhere
    **dict.fromkeys(["pad", "pad less", "pad samples", "pad channels and columns"], SHIFT),
}
"""What would pass, and isn't let through: memory written to in part, and constants in the code."""


@pytest.mark.parametrize("name", CASES)
def test_claim(name):
    assert_claim(CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_asked_without_need(name):
    assert_needed(CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_all_passes_that_can(name):
    assert admitted(CASES[name]) == true(CASES[name]) - STRICTER.get(name, set())
