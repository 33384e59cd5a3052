"""Which rule a network gets, and that the reason is true: the pictures that a deconvnet would give."""

import pytest
import torch
from torch import nn

from convscope.sight import project
from convscope.sight.projecting.below import Below
from convscope.sight.projecting.choice import chosen_rule
from convscope.tape import record


def conv(inputs, outputs, activation=nn.ReLU):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3), activation())


def choice(net):
    tape = record(net, (1, 3, 24, 24))
    return chosen_rule(Below(tape), tape.outputs)


def rows(*layers):
    return nn.Sequential(*layers)


POOLED_TWICE = rows(conv(3, 4), nn.MaxPool2d(2), conv(4, 4), nn.MaxPool2d(2), conv(4, 4))
DEEP_STEM = rows(conv(3, 4), conv(4, 4), nn.MaxPool2d(2), conv(4, 4))
POOLED_STEM = rows(conv(3, 4), nn.MaxPool2d(2), conv(4, 4), conv(4, 4))
STRIDED = rows(conv(3, 4), nn.Conv2d(4, 4, 3, 2), nn.ReLU())
SMOOTH = rows(conv(3, 4), conv(4, 4, nn.SiLU), nn.MaxPool2d(2), conv(4, 4))


@pytest.mark.parametrize(
    ("net", "rule", "reason"),
    [
        (POOLED_TWICE, "deconvnet", "at 3#1:max_pool2d_with_indices.1, above another"),
        (DEEP_STEM, "gated", "above 2#1:max_pool2d_with_indices.1"),
        (POOLED_STEM, "gated", "above 1#1:max_pool2d_with_indices.1"),
        (STRIDED, "gated", "no max-pool lies"),
        (SMOOTH, "gated", "silu at 1.1#1:silu.1 is another one"),
        (rows(conv(3, 4), conv(4, 4), nn.AvgPool2d(2), conv(4, 4)), "gated", "no max-pool lies"),
    ],
)  # fmt: skip
def test_the_rule_depends_on_switches_and_activations(net, rule, reason):
    found, why = choice(net)
    assert found == rule
    assert reason in why


def test_activations_that_only_serve_a_gate_do_not_count():
    class Excited(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk, self.squeeze = POOLED_TWICE, nn.Linear(4, 4)

        def forward(self, x):
            y = self.trunk(x)
            return y * nn.functional.silu(self.squeeze(y.mean((2, 3)))).sigmoid()[:, :, None, None]

    assert choice(Excited())[0] == "deconvnet"


def test_the_reason_is_true():
    """Without a switch above the stem, all images give one picture; with one they don't."""
    images = torch.randn(2, 3, 24, 24, dtype=torch.float64)
    for net, is_same in ((STRIDED, True), (POOLED_TWICE, False)):
        net = net.double()
        views = [project(net, each, "self", 1, rule="deconvnet", position=(1, 1)).image for each in images]
        assert torch.equal(*views) == is_same
        net.float()
