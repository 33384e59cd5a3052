"""Networks whose own code calls batch norms as functions, at the top of a file so that they pickle."""

import torch
import torch.nn.functional as F
from torch import nn


def held_norm(module, channels=5):
    """Let a module hold the tensors of a batch norm itself."""
    module.weight, module.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
    module.register_buffer("running_mean", torch.zeros(channels))
    module.register_buffer("running_var", torch.ones(channels))


class ByModules(nn.Module):
    """A convolution and a batch norm as modules, of which the batch norm is called as a function."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)

    def forward(self, x):
        bn = self.bn
        y = F.batch_norm(
            self.conv(x), bn.running_mean, bn.running_var, bn.weight, bn.bias, False, 0.1, bn.eps
        )
        return y.relu()

    def features(self, x):
        return ByModules.forward(self, x)


class WithoutBias(nn.Module):
    """Everything as functions; nothing holds a bias for the convolution."""

    def __init__(self, inputs=3):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(5, inputs, 3, 3) * 0.2)
        held_norm(self)

    def forward(self, x):
        y = F.conv2d(x, self.kernel, padding=1)
        return F.batch_norm(y, self.running_mean, self.running_var, self.weight, self.bias).relu()

    def features(self, x):
        return WithoutBias.forward(self, x)


class Matrix(nn.Module):
    """A linear function and a batch norm of its result."""

    def __init__(self, by_hand=False):
        super().__init__()
        self.by_hand = by_hand
        self.matrix = nn.Parameter(torch.randn(5, 3))
        held_norm(self)

    def forward(self, x):
        y = x @ self.matrix.T if self.by_hand else F.linear(x, self.matrix)
        return F.batch_norm(y, self.running_mean, self.running_var, self.weight, self.bias)


class Outer(nn.Module):
    """Such modules within one that skips a batch norm itself."""

    def __init__(self):
        super().__init__()
        self.first, self.second = WithoutBias(), WithoutBias(5)
        self.conv, self.bn = nn.Conv2d(5, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.conv(self.second(self.first(x)))
        bn = self.bn
        return torch.batch_norm(
            y, bn.weight, bn.bias, bn.running_mean, bn.running_var, False, 0.1, bn.eps, False
        )


class Doubled(nn.BatchNorm2d):
    """A batch norm whose module does more."""

    def forward(self, x):
        return 2 * super().forward(x)


class Both(nn.Module):
    """A batch norm that is called as a module and as a function."""

    def __init__(self):
        super().__init__()
        self.conv, self.other, self.bn = nn.Conv2d(3, 5, 3), nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)

    def forward(self, x):
        y = self.other(x)
        bn = self.bn
        z = F.batch_norm(y, bn.running_mean, bn.running_var, bn.weight, bn.bias, False, 0.1, bn.eps)
        return self.bn(self.conv(x)) * z


class ByInstance(nn.Module):
    """Instance norm by running statistics, as a function."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 5, 3), nn.InstanceNorm2d(5, affine=True, track_running_stats=True)

    def forward(self, x):
        n = self.norm
        return F.instance_norm(self.conv(x), n.running_mean, n.running_var, n.weight, n.bias, False)


class BeforeReLU(nn.Module):
    """A batch norm whose scale alone can go, into the convolution behind a ReLU."""

    def __init__(self, affine=True):
        super().__init__()
        self.bn, self.conv = nn.BatchNorm2d(3, affine=affine), nn.Conv2d(3, 4, 3)

    def forward(self, x):
        bn = self.bn
        y = F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias, False, 0.1, bn.eps)
        return self.conv(y.relu())
