"""Small networks for the pages beside this file: their weights are drawn with a fixed seed."""

import torch
from torch import nn


def small() -> tuple[nn.Module, tuple[int, ...]]:
    """Two convolutions with batch norms, in the manner of ZFNet's stem, for ten classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential()
        network.conv1 = nn.Conv2d(3, 16, 7, stride=2, padding=1, bias=False)
        network.norm1 = nn.BatchNorm2d(16)
        network.relu1 = nn.ReLU()
        network.pool1 = nn.MaxPool2d(3, 2)
        network.conv2 = nn.Conv2d(16, 32, 3, bias=False)
        network.norm2 = nn.BatchNorm2d(32)
        network.relu2 = nn.ReLU()
        network.pool2 = nn.AdaptiveMaxPool2d(1)
        network.flatten = nn.Flatten()
        network.fc3 = nn.Linear(32, 10)
    return network, (1, 3, 32, 32)
