"""Small networks that the tests of fold share."""

import copy

from torch import nn

from convscope.fold import fold

IMAGE = (2, 3, 6, 5)


class Functional(nn.Module):
    """A network given by a function of itself and its input."""

    def __init__(self, forward, **modules):
        super().__init__()
        self._forward = forward
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        return self._forward(self, x)


def conv(inputs=3, outputs=4, **options):
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


def fold_in_float64(net, shape, relative_error):
    twin = copy.deepcopy(net).double()
    return relative_error(twin, fold(twin, shape).model, *shape)
