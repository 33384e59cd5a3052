"""Parameters count once for every region of memory: tied ones once, neighbours in one storage each."""

import torch
from torch import nn

from convscope.cost import cost

IN, OUT = 5, 7


class Flat(nn.Module):
    """Two layers whose parameters are views of one buffer; the second reads the first's weight, turned."""

    def __init__(self):
        super().__init__()
        flat = torch.zeros(OUT * IN + OUT + IN)
        self.weight = nn.Parameter(flat[: OUT * IN].view(OUT, IN))
        self.bias = nn.Parameter(flat[OUT * IN : OUT * IN + OUT])
        self.last_bias = nn.Parameter(flat[OUT * IN + OUT :])
        self.turned = nn.Parameter(self.weight.detach().t())

    def forward(self, x):
        return (x @ self.weight.t() + self.bias) @ self.turned.t() + self.last_bias


def test_parameters_in_one_storage_count_each_and_a_turned_one_is_the_same():
    found = cost(Flat(), (2, IN))
    assert found.totals.params == OUT * IN + OUT + IN
    assert found.totals.parameter_bytes == 4 * found.totals.params
    assert [row.params for row in found.rows if row.params] == [OUT * IN, OUT, IN]
    assert found.unused_parameters == ()


def test_what_of_one_storage_nobody_reads_is_named():
    class Half(Flat):
        def forward(self, x):
            return x @ self.weight.t()

    found = cost(Half(), (2, IN))
    assert [(item.name, item.params) for item in found.unused_parameters] == [
        ("bias", OUT),
        ("last_bias", IN),
    ]
    assert found.totals.params == OUT * IN + OUT + IN


def test_a_layer_that_reads_part_of_a_parameter_owns_it():
    class Sliced(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3 * IN, IN))

        def forward(self, x):
            return x @ self.weight[IN : 2 * IN]

    found = cost(Sliced(), (2, IN))
    assert found.totals.params == found.rows[0].params == 3 * IN * IN
