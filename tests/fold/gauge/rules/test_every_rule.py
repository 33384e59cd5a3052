"""Every rule in the table is tried on numbers, under every name that a recording has for its operator."""

import pytest
import torch
import torch.nn.functional as F

from convscope.fold.gauge.reading import RULES
from fold.gauge.claims import case
from fold.gauge.rules import (
    test_averages,
    test_layers,
    test_linear,
    test_maxima,
    test_movement,
    test_products,
)

MODULES = (test_averages, test_layers, test_linear, test_maxima, test_movement, test_products)
SEQUENCE, IMAGE, CUBE = (2, 4, 6), (2, 4, 3, 5), (2, 2, 2, 3, 4)

OTHERWISE = {
    "adaptive_avg_pool1d": case(lambda s, x: F.adaptive_avg_pool1d(x, 2), SEQUENCE),
    "adaptive_avg_pool2d": case(lambda s, x: F.adaptive_avg_pool2d(x, 2), IMAGE),
    "adaptive_avg_pool3d": case(lambda s, x: F.adaptive_avg_pool3d(x, 2), CUBE),
    "adaptive_max_pool1d": case(lambda s, x: F.adaptive_max_pool1d(x, 2), SEQUENCE),
    "avg_pool1d": case(lambda s, x: F.avg_pool1d(x, 2), SEQUENCE),
    "max_pool1d": case(lambda s, x: F.max_pool1d(x, 2), SEQUENCE),
    "max_pool1d_with_indices": case(lambda s, x: F.max_pool1d(x, 2, return_indices=True)[0], SEQUENCE),
    "max_pool2d": case(lambda s, x: F.max_pool2d(x, 2), IMAGE),
    "max_pool3d": case(lambda s, x: F.max_pool3d(x, 2), CUBE),
    "_pad_circular": case(lambda s, x: F.pad(x, (1, 1), mode="circular"), SEQUENCE),
    "alias": case(lambda s, x: torch.ops.aten.alias(x) + 0, IMAGE),
    "detach": case(lambda s, x: x.detach() + 0, IMAGE),
    "lift_fresh": case(lambda s, x: x + torch.tensor([1.0]), IMAGE),
    "chunk": case(lambda s, x: x.chunk(2, 1), IMAGE),
    "tensor_split": case(lambda s, x: x.tensor_split(3, 1), IMAGE),
    "concat": case(lambda s, x: torch.concat([x, x]), IMAGE),
    "concatenate": case(lambda s, x: torch.concatenate([x, x]), IMAGE),
    "contiguous": case(lambda s, x: x.mT.contiguous(), IMAGE),
    "expand_as": case(lambda s, x, y: x.expand_as(y) + y, (2, 4, 1, 1), IMAGE),
    "flatten": case(lambda s, x: x.flatten(1), IMAGE),
    "unflatten": case(lambda s, x: x.unflatten(1, (2, 2)), IMAGE),
    "reshape": case(lambda s, x: x.reshape(8, 15), IMAGE),
    "matmul": case(lambda s, x: torch.matmul(x, x.mT), IMAGE),
    "movedim": case(lambda s, x: x.movedim(1, -1), IMAGE),
    "swapaxes": case(lambda s, x: x.swapaxes(1, -1), IMAGE),
    "narrow": case(lambda s, x: x.narrow(1, 1, 2), IMAGE),
    "prelu": case(lambda s, x: torch.prelu(x, torch.ones(1, dtype=x.dtype)), IMAGE),
    "rrelu": case(lambda s, x: F.rrelu(x), IMAGE),
    "softmax": case(lambda s, x: torch.softmax(x, 1), IMAGE),
    "to": case(lambda s, x: x.to(torch.float32), IMAGE),
}
"""Names which a recording never has, since PyTorch runs other operators: these have the rules."""


def recorded(each):
    """The names of the operators that a case's recording has, in place or not."""
    return {name for call in each.tape.calls for name in (call.op, call.op.rstrip("_"))}


def test_every_rule_has_a_case():
    tried = {name for module in MODULES for each in module.CASES.values() for name in recorded(each)}
    assert RULES.keys() <= tried


@pytest.mark.parametrize("name", OTHERWISE)
def test_other_names_are_not_recorded(name):
    assert name not in recorded(OTHERWISE[name])
    assert name not in RULES
