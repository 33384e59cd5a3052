"""Fingerprints: what changes them, what doesn't, and that every kind of tensor has one."""

import hashlib
import random
from dataclasses import fields

import numpy as np
import pytest
import torch
from torch import nn

from cases import ResidualNet
from convscope.core.fingerprint import Fingerprint, fingerprint


def _changed(model, change):
    """Which parts of a model's fingerprint a change changes."""
    before = fingerprint(model)
    change(model)
    after = fingerprint(model)
    return {f.name for f in fields(Fingerprint) if getattr(before, f.name) != getattr(after, f.name)}


def _write(model):
    with torch.no_grad():
        model.conv1.weight.view(-1)[7] += 1e-6


def _negative_zero(model):
    with torch.no_grad():
        model.bn1.bias[0] = -0.0


def _swap(model):
    model.bn1, model.bn2 = model.bn2, model.bn1


CHANGES = {
    "one bit of a weight": (_write, {"parameters"}),
    "the sign of a zero": (_negative_zero, {"parameters"}),
    "requires_grad": (lambda model: model.bn1.weight.requires_grad_(False), {"parameters"}),
    "dtype": (lambda model: model.head.half(), {"parameters"}),
    "a buffer": (lambda model: model.bn1.running_mean.add_(1e-6), {"buffers"}),
    "a counter": (lambda model: model.bn1.num_batches_tracked.add_(1), {"buffers"}),
    "a mode": (lambda model: model.drop.eval(), {"modes"}),
    "a hook": (lambda model: model.bn1.register_forward_hook(print), {"hooks"}),
    "a state dict hook": (lambda model: model.register_state_dict_pre_hook(print), {"hooks"}),
    "a hook of a tensor": (lambda model: model.head.weight.register_hook(print), {"hooks"}),
    "a forward of its own": (lambda model: setattr(model.bn1, "forward", abs), {"hooks"}),
    "Python's generator": (lambda model: random.random(), {"rng"}),
    "NumPy's generator": (lambda model: np.random.rand(), {"rng"}),
    "PyTorch's generator": (lambda model: torch.rand(1), {"rng"}),
    "nothing": (lambda model: model.state_dict(), set()),
    "a gradient": (lambda model: setattr(model.head.weight, "grad", torch.ones(5, 8)), set()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_which_part(name):
    change, expected = CHANGES[name]
    assert _changed(ResidualNet(), change) == expected


def test_a_hook_on_all_modules_counts():
    model = ResidualNet()
    before = fingerprint(model)
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert fingerprint(model).hooks != before.hooks
    finally:
        handle.remove()
    assert fingerprint(model) == before


def test_layers_that_change_places_are_noticed():
    model = ResidualNet()
    with torch.no_grad():
        model.bn1.weight.uniform_()
        model.bn2.running_mean.uniform_()
    assert _changed(model, _swap) == {"parameters", "buffers"}


def test_the_same_hook_put_on_again_is_another_one():
    model = nn.ReLU()
    handle = model.register_forward_hook(print)
    before = fingerprint(model)
    handle.remove()
    model.register_forward_hook(print)
    assert fingerprint(model).hooks != before.hooks


ODD = {
    "bfloat16": torch.randn(3, 4).bfloat16(),
    "float8": torch.randn(3, 4).to(torch.float8_e4m3fn),
    "complex": torch.randn(3, dtype=torch.complex64),
    "conjugated": torch.randn(3, dtype=torch.complex64).conj(),
    "boolean": torch.tensor([True, False]),
    "transposed": torch.randn(3, 4).t(),
    "expanded": torch.ones(1).expand(4),
    "empty": torch.zeros(0, 3),
    "number": torch.tensor(3.0),
    "sparse": torch.eye(3).to_sparse(),
    "channels last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("name", ODD)
def test_every_kind_of_tensor(name):
    one, other, changed = nn.Module(), nn.Module(), nn.Module()
    one.register_buffer("held", ODD[name])
    other.register_buffer("held", ODD[name].clone())
    assert fingerprint(one) == fingerprint(other)
    if ODD[name].numel():
        changed.register_buffer("held", torch.zeros_like(ODD[name].clone()))
        assert fingerprint(one).buffers != fingerprint(changed).buffers


def test_tensors_without_data_count_by_their_shape():
    with torch.device("meta"):
        one, other = nn.Linear(3, 4), nn.Linear(3, 5)
    assert fingerprint(one) == fingerprint(one)
    assert fingerprint(one).parameters != fingerprint(other).parameters
    lazy = nn.LazyLinear(4)
    assert fingerprint(lazy) == fingerprint(lazy)
    assert _changed(lazy, lambda model: model(torch.ones(1, 3))) >= {"parameters", "modes"}


def test_shared_tensors_have_all_their_names():
    tied, apart = (nn.ModuleList([nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)]) for _ in "ab")
    tied[1].weight = tied[0].weight
    with torch.no_grad():
        for linear in apart:
            linear.weight.copy_(tied[0].weight)
    assert fingerprint(tied).parameters == fingerprint(apart).parameters  # values are the same
    assert _changed(tied, lambda model: model[1].weight.data.add_(1)) == {"parameters"}


def test_the_hash_is_that_of_the_bytes():
    model = nn.Module()
    model.register_buffer("held", torch.tensor([1.0, -2.0]))
    content = hashlib.sha256(np.array([1.0, -2.0], dtype=np.float32).tobytes()).hexdigest()
    line = f"held ('Tensor', (2,), torch.float32, device(type='cpu'), False) {content}".encode()
    expected = hashlib.sha256(len(line).to_bytes(8, "little") + line).hexdigest()
    assert fingerprint(model).buffers == expected
