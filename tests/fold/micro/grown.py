"""Networks that grow: a list of steps over the values before them, whose shapes say what fits next."""

import torch
from hypothesis import strategies as st
from torch import nn


class Grown(nn.Module):
    """A network that runs its steps one after the other, each on earlier values.

    Attributes:
        layers, norms, scales: what steps call, by number.
        steps: name and function of each step; a function takes the network and the values so far.
        private: paths of batch norms that directly follow a layer of their own: these always fold.
        returned: which values it returns beside the last one.
    """

    def __init__(self):
        super().__init__()
        self.layers, self.norms, self.scales = nn.ModuleList(), nn.ModuleList(), nn.ParameterList()
        self.steps = []
        self.private = []
        self.returned = []

    def forward(self, x):
        values = [x.clone()]
        for _, step in self.steps:
            values.append(step(self, values))
            self.see(values[-1])
        return [values[-1], *(values[i] for i in self.returned)]

    def see(self, value):
        """Called with every value."""

    def __repr__(self):
        """The steps, with what they call: what hypothesis shows of a network that fails."""
        parts = [f"{i}: {part}" for i, part in enumerate(self.layers)]
        return f"Grown({[name for name, _ in self.steps]}, {parts}, returns {self.returned})"


class Grower:
    """Draws a network and keeps the values of a run, whose shapes say what fits."""

    def __init__(self, draw, shape):
        self.draw, self.net = draw, Grown()
        torch.manual_seed(draw(st.integers(0, 2**16)))
        self.values = [torch.zeros(shape, dtype=torch.float64)]
        self.open_layers, self.open_norms = [], []  # those that may be called again

    def choose(self, *options):
        return self.draw(st.sampled_from(options))

    def channels(self, i):
        return self.values[i].shape[1]

    def is_small(self, i):
        """Whether a stride would leave too little of a value."""
        return min(self.values[i].shape[2:]) < 5

    def value(self):
        """The number of an earlier value: mostly the last one."""
        last = len(self.values) - 1
        return last if self.draw(st.integers(0, 3)) else self.draw(st.integers(0, last))

    def like(self, index, axis=None):
        """The number of a value of the same shape, but for one axis."""

        def key(i):
            return [n for a, n in enumerate(self.values[i].shape) if a != axis]

        return self.draw(st.sampled_from([i for i in range(len(self.values)) if key(i) == key(index)]))

    def add(self, name, step):
        self.net.steps.append((name, step))
        with torch.no_grad():
            self.values.append(step(self.net.double(), self.values))

    def layer(self, channels, outputs=None, same=False):
        """The number of a new layer of any kind, of one that was there, or of one with a tied weight."""
        number = len(self.net.layers)
        fitting = [
            i
            for i in self.open_layers
            if self.net.layers[i].in_channels == channels
            and (outputs is None or self.net.layers[i].out_channels == outputs)
            and (not same or self.net.layers[i].keeps_size)
        ]
        reuse = self.choose("new", "new", "again", "tied") if fitting else "new"
        if reuse == "again":
            return self.draw(st.sampled_from(fitting))
        made = self.new_layer(channels, outputs, same)
        if reuse == "tied":
            other = self.net.layers[self.draw(st.sampled_from(fitting))]
            if type(other) is type(made) and other.weight.shape == made.weight.shape:
                made.weight = other.weight
        self.net.layers.append(made)
        self.open_layers.append(number)
        return number

    def new_layer(self, channels, outputs, same):
        outputs = outputs or self.choose(channels, 4, 6)
        kind = self.choose("square", "square", "point", "transposed", "depthwise", "strided")
        bias = self.draw(st.booleans())
        groups = self.choose(*[g for g in (1, 1, 2, 3) if channels % g == 0 and outputs % g == 0])
        keeps = True
        if kind == "transposed":
            made = nn.ConvTranspose2d(channels, outputs, 3, padding=1, groups=groups, bias=bias)
        elif kind == "point":
            made = nn.Conv2d(channels, outputs, 1, groups=groups, bias=bias)
        elif kind == "depthwise" and outputs % channels == 0:
            made = nn.Conv2d(channels, outputs, 3, padding=1, groups=channels, bias=bias)
        elif kind == "strided" and not same:
            keeps = False
            made = nn.Conv2d(channels, outputs, 3, stride=2, padding=self.choose(0, 1), bias=bias)
        else:
            mode = self.choose("zeros", "zeros", "reflect", "replicate", "circular")
            made = nn.Conv2d(channels, outputs, 3, padding=1, padding_mode=mode, groups=groups, bias=bias)
        made.keeps_size = keeps
        return made

    def norm(self, channels):
        """The number of a batch norm, new or called again."""
        fitting = [i for i in self.open_norms if self.net.norms[i].num_features == channels]
        if fitting and self.draw(st.integers(0, 4)) == 0:
            return self.draw(st.sampled_from(fitting))
        self.open_norms.append(number := self.new_norm(channels))
        return number

    def new_norm(self, channels):
        affine, eps = self.draw(st.integers(0, 4)) > 0, self.choose(1e-5, 1e-3, 0.1)
        self.net.norms.append(nn.BatchNorm2d(channels, affine=affine, eps=eps))
        return len(self.net.norms) - 1
