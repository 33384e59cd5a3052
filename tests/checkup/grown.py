"""Networks whose running statistics are right, and images to see it on."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from cases import state_of


class Small(nn.Module):
    """Two convolutions with batch norm and ReLU, one batch norm before a sum, and a linear head."""

    def __init__(self, norm=nn.BatchNorm2d, bias=False):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=bias)
        self.bn1 = norm(8)
        self.conv2 = nn.Conv2d(8, 12, 3, stride=2, bias=bias)
        self.bn2 = norm(12)
        self.conv3 = nn.Conv2d(12, 12, 3, padding=1, bias=bias)
        self.bn3 = norm(12)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = nn.functional.relu(self.bn2(self.conv2(x)), inplace=True)
        x = torch.relu(self.bn3(self.conv3(x)) + x)
        return self.head(self.drop(x.mean((2, 3))))


def images(number, size=(11, 9), channels=3):
    """Images with a mean and a contrast of their own, as photographs have."""
    shape = (number, 1, 1, 1)
    return torch.randn(number, channels, *size) * (0.5 + torch.rand(shape)) + 0.4 * torch.randn(shape)


def loader(number=96, batch_size=16, size=(11, 9)):
    """Shuffled batches of images with labels."""
    data = TensorDataset(images(number, size), torch.randint(0, 4, (number,)))
    return DataLoader(data, batch_size, shuffle=True)


def grow(model, batches=200, make=lambda: images(16)):
    """Let running statistics come to rest, with gains and offsets that aren't 1 and 0."""
    model.train()
    for name, parameter in model.named_parameters():
        if "bn" in name:
            with torch.no_grad():
                parameter.add_(torch.rand_like(parameter) * 0.5)
    with torch.no_grad():
        for _ in range(batches):
            model(make())
    return model


def faults(checkup):
    """The faults that were found, with their addresses."""
    return [(finding.fault, finding.address) for finding in checkup.findings]


def evidence(finding, name):
    """One of a finding's numbers."""
    return next(item.value for item in finding.evidence if item.name == name)


def bits_of(model):
    """Everything about a model but how often its tensors were written to: a training step does write."""
    return {
        key: (*value[:2], value[3]) if key.endswith("!kind") else value
        for key, value in state_of(model).items()
    }
