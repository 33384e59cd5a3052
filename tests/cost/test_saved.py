"""What layers keep for backward, against the tensors that autograd really saves in a real step."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from convscope import norm
from convscope.cost import cost


def really_saved(net, x):
    """Bytes of the storages that autograd saves, parameters and buffers excluded; each storage once."""
    standing = {tensor.untyped_storage().data_ptr() for tensor in (*net.parameters(), *net.buffers())}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in standing:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = net(x)
        target = torch.zeros(len(x), dtype=torch.long)
        _ = F.cross_entropy(out, target)
    return sum(storage.nbytes() for storage in kept.values())


class Residual(nn.Module):
    def __init__(self, inplace):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(4), norm.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=inplace)

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + x[:, :, :, :])


class Sliced(nn.Module):
    """Keeps a small view of a large storage, and drops a branch before backward."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3, padding=1)

    def forward(self, x):
        y = self.conv(x)
        _ = torch.exp(y)
        return torch.sigmoid(y[:, :2])


def _head(*layers):
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), *layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.LazyLinear(5)
    )


NETWORKS = {
    "pools": lambda: _head(nn.MaxPool2d(2), nn.ReLU(), nn.AvgPool2d(2)),
    "residual": lambda: _head(Residual(inplace=False)),
    "residual in place": lambda: _head(Residual(inplace=True), Residual(inplace=True)),
    "activations": lambda: _head(nn.Sigmoid(), nn.GELU(), nn.SiLU(inplace=True), nn.Hardswish(), nn.PReLU()),
    "norms": lambda: _head(
        nn.GroupNorm(2, 4), nn.LocalResponseNorm(3), norm.LocalResponseNorm(), nn.LayerNorm(8)
    ),
    "transposed": lambda: _head(nn.ConvTranspose2d(4, 4, 2, 2), nn.Softmax(1)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_kept_bytes_equal_what_autograd_saves(name):
    net = NETWORKS[name]()
    x = torch.randn(3, 3, 8, 8)
    net(x)
    assert cost(net, x).totals.saved_bytes == really_saved(net, x) > 0


def test_views_keep_whole_storages_and_dropped_branches_nothing():
    net = nn.Sequential(Sliced(), nn.Flatten(), nn.Linear(2 * 64, 5))
    x = torch.randn(3, 4, 8, 8)
    found = cost(net, x)
    result = 3 * 2 * 64 * 4  # sigmoid's own result; exp's is gone before backward
    assert found.row("0#1:exp.1").saved_bytes == 0
    assert found.row("0#1:sigmoid.1").saved_bytes == result
    assert found.row("0.conv").saved_bytes == x.nbytes


def test_every_storage_counts_once_at_the_first_that_keeps_it():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(4 * 64, 5))
    found = cost(net, (2, 3, 8, 8))
    sizes = [row.saved_bytes for row in found.rows if row.phase == "forward"]
    image, maps = 2 * 3 * 64 * 4, 2 * 4 * 64 * 4
    # The image, ReLU's result, nothing for the second convolution that reads it too, its own result.
    assert sizes == [image, maps, 0, 0, maps]


def test_checkpoint_keeps_its_input_where_that_is_made_and_nothing_inside():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 4, 1)
            self.block = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Sigmoid(), nn.Conv2d(4, 4, 1), nn.Sigmoid())
            self.head = nn.Linear(4 * 64, 5)

        def forward(self, x):
            y = checkpoint(self.block, self.first(x), use_reentrant=False)
            return self.head(y.flatten(1))

    found = cost(Net(), (2, 3, 8, 8))
    image, maps = 2 * 3 * 64 * 4, 2 * 4 * 64 * 4
    kept = {row.address: row.saved_bytes for row in found.rows if row.phase == "forward"}
    # The first layer keeps the image, and its result for the recomputation; the head the block's result.
    assert kept["first#1"] == image + maps
    assert [size for address, size in kept.items() if address.startswith("block")] == [0, 0, 0, 0]
    assert kept["head#1"] == maps


def test_index_bytes_are_the_switches_of_max_pools():
    found = cost(
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 2)), (2, 3, 8, 8)
    )
    pool = found.row("1")
    assert pool.index_bytes == 8 * pool.activations
    assert pool.saved_bytes == pool.index_bytes + 2 * 4 * 64 * 4
