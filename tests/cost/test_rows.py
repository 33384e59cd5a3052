"""Rows add up to the whole network: parameters, MACs, kept bytes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from convscope import norm
from convscope.cost import cost
from convscope.tape import TrainingPlan


class Tied(nn.Module):
    """An autoencoder whose decoder is its encoder's transpose, with a parameter that nothing reads."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(6, 4), nn.Linear(4, 6)
        self.decoder.weight = nn.Parameter(self.encoder.weight.detach().t().clone())
        self.twin = nn.Linear(6, 4)
        self.twin.weight = self.encoder.weight
        self.unused = nn.Parameter(torch.zeros(11))

    def forward(self, x):
        return self.decoder(F.relu(self.encoder(x)) + self.twin(x))


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = norm.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, (3, 5), padding=(1, 2), groups=8)
        self.gate = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        y = F.silu(self.norm(self.stem(x)), inplace=True)
        y = y + self.depthwise(y)
        y = y * torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True)))
        y = torch.cat([F.max_pool2d(y, 2), F.avg_pool2d(y, 2)], 1)
        return self.head(y.mean((2, 3)))


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(checkpoint(self.block, self.first(x), use_reentrant=False).mean((2, 3)))


NETWORKS = {
    "tied": (Tied, (3, 6)),
    "branches": (Branches, (2, 3, 8, 6)),
    "checkpointed": (Checkpointed, (2, 3, 8, 6)),
    "one parameter": (lambda: nn.PReLU(), (2, 3)),
}
FIELDS = (
    "activations", "macs", "forward_flops", "backward_input_flops", "backward_weight_flops",
    "recompute_flops", "elementwise_ops", "saved_bytes", "index_bytes",
)  # fmt: skip


@pytest.mark.parametrize("plan", [TrainingPlan(), None], ids=["training", "inference"])
@pytest.mark.parametrize("name", NETWORKS)
def test_rows_add_up_to_the_totals(name, plan):
    make, shape = NETWORKS[name]
    net = make()
    found = cost(net, shape, plan)
    for field in FIELDS:
        assert sum(getattr(row, field) for row in found.rows) == getattr(found.totals, field), field
    unused = sum(item.params for item in found.unused_parameters)
    assert sum(row.params for row in found.rows) + unused == found.totals.params
    assert found.totals.params == sum(parameter.numel() for parameter in net.parameters())
    assert found.totals.parameter_bytes == 4 * found.totals.params
    assert found.totals.forward_flops == 2 * found.totals.macs
    assert found.totals.backward_flops == found.totals.step_flops - found.totals.forward_flops
    assert found.uncounted == ()


def test_shared_parameters_count_at_their_first_reader_and_unused_ones_are_named():
    found = cost(Tied(), (3, 6))
    assert found.row("encoder").params == 28
    assert found.row("twin").params == 4
    assert found.row("decoder").params == 30
    assert [(item.name, item.params) for item in found.unused_parameters] == [("unused", 11)]


def test_addresses_are_unique_and_outputs_are_the_modules():
    found = cost(Branches(), (2, 3, 8, 6))
    addresses = [row.address for row in found.rows]
    assert len(set(addresses)) == len(addresses)
    assert found.row("stem").output_shape == (2, 8, 8, 6)
    assert found.row("stem").activations == 2 * 8 * 8 * 6
    assert found.row("self#1:silu.1") is None  # autograd keeps a copy, then works in place: two operators
    assert found.row("nowhere") is None


def test_rows_without_a_window_say_whether_they_see_the_whole_image():
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 4, 2, stride=2), nn.Conv2d(4, 4, 3),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
    )  # fmt: skip
    found = cost(layers, (2, 3, 8, 6))
    assert [(row.path, row.receptive_field is None, row.sees_whole_image) for row in found.rows[:3]] == [
        ("0", False, False), ("1", True, False), ("2", True, False),
    ]  # fmt: skip
    assert not any(row.sees_whole_image for row in found.rows if row.phase == "loss")
    del layers[1:3]
    found = cost(layers, (2, 3, 8, 6))
    layer_rows = [row for row in found.rows if row.phase == "forward" and row.path != "0"]
    assert all(row.receptive_field is None and row.sees_whole_image for row in layer_rows)
    told = {
        row["path"]: row["sees_whole_image"] for row in found.to_dict()["rows"] if row["phase"] == "forward"
    }
    assert told == {"0": False, "1": True, "2": True, "3": True}
    assert {row.path: row.sees_whole_image for row in found.rolled_up(1).rows if row.path in told} == told


def test_half_precision_halves_bytes_and_leaves_counts():
    full = cost(Branches(), (2, 3, 8, 6), TrainingPlan(precision="fp32"))
    half = cost(Branches(), (2, 3, 8, 6), TrainingPlan(precision="bf16"))
    assert half.totals.macs == full.totals.macs
    assert half.totals.params == full.totals.params
    assert 2 * half.totals.parameter_bytes == full.totals.parameter_bytes
    assert 2 * half.row("stem").activation_bytes == full.row("stem").activation_bytes


def test_inference_has_no_backward_and_keeps_nothing():
    totals = cost(Branches(), (2, 3, 8, 6), plan=None).totals
    assert totals.backward_flops == totals.saved_bytes == totals.recompute_flops == 0
    assert totals.step_flops == totals.forward_flops > 0


def test_counts_are_proportional_to_the_batch_and_memory_layout_changes_nothing():
    one, three = cost(Branches(), (1, 3, 8, 6)), cost(Branches(), (3, 3, 8, 6))
    assert three.totals.macs == 3 * one.totals.macs
    last = cost(Branches().to(memory_format=torch.channels_last), torch.zeros(1, 3, 8, 6))
    assert last.totals.step_flops == one.totals.step_flops
