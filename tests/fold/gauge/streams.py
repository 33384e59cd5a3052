"""Pre-activation networks in which all batch norms read one value."""

import torch
import torch.nn.functional as F
from torch import nn

from fold.micro.oracle import Operators

SHAPE = (2, 3, 8, 7)
CHANNELS = 4


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(CHANNELS), nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)

    def forward(self, x):
        return x + self.conv(F.relu(self.norm(x)))


def stream(num_blocks):
    """A stem, blocks that add to what it wrote, and a head: the batch norms all read one value."""
    blocks = (Block() for _ in range(num_blocks))
    return nn.Sequential(
        nn.Conv2d(3, CHANNELS, 3), *blocks, nn.BatchNorm2d(CHANNELS), nn.ReLU(), nn.Conv2d(CHANNELS, 2, 1)
    )


def norms(net):
    return [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]


def batch_norms_run(net, shape):
    with torch.no_grad(), Operators() as seen:
        net(torch.randn(shape, dtype=torch.float64))
    return len(seen.batch_norms())
