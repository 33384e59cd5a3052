"""Which operator calls make one row."""

import torch
import torch.nn.functional as F
from torch import nn

from convscope import norm
from convscope.cost import cost


def _rows(net, shape, plan=None):
    return [(row.address, row.op) for row in cost(net, shape, plan).rows]


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.fc = nn.Linear(8 * 3 * 3, 2)

    def forward(self, x):
        y = F.relu(self.conv(x))
        y = torch.cat([y, self.conv(x) + y], 1)
        return self.fc(F.max_pool2d(y, 2).flatten(1))


def test_functional_operators_have_rows_and_reused_modules_one_a_call():
    assert _rows(Functional(), (2, 3, 6, 6)) == [
        ("conv#1", "convolution"),
        ("self#1:relu.1", "relu"),
        ("conv#2", "convolution"),
        ("self#1:add.1", "add"),
        ("self#1:cat.1", "cat"),
        ("self#1:max_pool2d_with_indices.1", "max_pool2d"),
        ("fc#1", "linear"),
    ]


def test_layers_of_many_kinds_have_one_row_each():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(4), nn.ReLU(inplace=True),
        nn.MaxPool2d(2), nn.LocalResponseNorm(3), nn.Dropout(), nn.ConvTranspose2d(4, 4, 2, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2, bias=False), nn.LogSoftmax(1),
    )  # fmt: skip
    found = cost(net, (2, 3, 8, 8))
    assert [(row.address, row.op) for row in found.rows if row.phase == "forward"] == [
        ("0#1", "convolution"), ("1#1", "batch_norm"), ("2#1", "relu"), ("3#1", "max_pool2d"),
        ("4#1", "local_response_norm"), ("5#1", "dropout"), ("6#1", "transposed_convolution"),
        ("7#1", "adaptive_avg_pool2d"), ("8#1", "flatten"), ("9#1", "linear"), ("10#1", "log_softmax"),
    ]  # fmt: skip
    assert found.row("8").output_shape == (2, 4)
    assert found.row("8").elementwise_ops == found.row("8").saved_bytes == found.row("8").macs == 0


def test_normalisations_of_several_operators_are_one_row():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), norm.BatchNorm2d(4), nn.ReLU(), norm.LocalResponseNorm(3))
    found = cost(net, (2, 3, 8, 8))
    ops = [row.op for row in found.rows if row.phase == "forward"]
    assert ops == ["convolution", "batch_norm", "relu", "local_response_norm"]
    assert found.row("1").params == 8


def test_leaf_module_with_several_layers_has_a_row_for_each():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 3, 3, 3))

        def forward(self, x):
            return F.relu(F.conv2d(x, self.weight))

    found = cost(nn.Sequential(Block()), (1, 3, 5, 5), None)
    assert [row.address for row in found.rows] == ["0#1:convolution.1", "0#1:relu.1"]
    assert [row.params for row in found.rows] == [108, 0]
    assert {row.type_name for row in found.rows} == {"Block"}


def test_a_matrix_product_is_linear_only_with_a_parameter():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 4))

        def forward(self, x):
            return (x @ self.weight.t()) @ x

    assert [op for _, op in _rows(Net(), (4, 4))] == ["linear", "matmul"]


def test_loss_rows_come_last_and_say_so():
    found = cost(nn.Linear(3, 2), (4, 3))
    assert [(row.op, row.phase) for row in found.rows] == [
        ("linear", "forward"), ("log_softmax", "loss"), ("nll_loss", "loss"),
    ]  # fmt: skip


def test_network_without_operators_has_an_empty_table():
    found = cost(nn.Identity(), (1, 3), None)
    assert found.rows == ()
    assert found.totals.macs == found.forecast.allocated_peak_bytes - 512 == 0


def test_leaf_module_that_only_moves_data_twice_is_one_row():
    class Reordered(nn.Module):
        def forward(self, x):
            return x.roll(1, 1).flip(1)

    assert _rows(nn.Sequential(Reordered()), (2, 3)) == [("0#1", "reordered")]
