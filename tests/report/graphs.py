"""Networks whose graph can be drawn by hand, and the page of each."""

from dataclasses import replace

import torch
from torch import nn

from convscope.cost import cost_of
from convscope.report.graph.network import graph_of
from convscope.tape import TrainingPlan, record


class Residual(nn.Module):
    """conv → bn → add of the input, in place → cat with the input → functional conv → flatten → fc."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.weight = nn.Parameter(torch.zeros(2, 8, 3, 3))
        self.fc = nn.Linear(2 * 6 * 6, 5)

    def forward(self, x):
        y = self.bn(self.conv(x))
        y += x
        y = nn.functional.conv2d(torch.cat([y, x.detach()], 1), self.weight)
        return self.fc(y.flatten(1))


class Twice(nn.Module):
    """One module called twice, inside a module that is called once."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))

    def forward(self, x):
        return self.head(self.body(self.body(self.stem(x))))


class Listed(nn.Module):
    """Blocks in containers that are never called themselves."""

    def __init__(self, blocks=3):
        super().__init__()
        self.stem = nn.Conv2d(4, 4, 1)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU()) for _ in range(blocks)
        )

    def forward(self, x):
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return x.mean((2, 3))


class Dense(nn.Module):
    """Every layer reads the input and all layers before it."""

    def __init__(self, layers):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(4 * each, 4, 1) for each in range(1, layers + 1))

    def forward(self, x):
        seen = [x]
        for layer in self.layers:
            seen.append(layer(torch.cat(seen, 1)))
        return seen[-1].mean((2, 3))


def chain(layers):
    """A network of as many layers, each a module of one container."""
    pairs = [(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()) for _ in range(layers // 2)]
    return nn.Sequential(*[layer for pair in pairs for layer in pair])


def read(model, inputs, plan=None):
    """The cost of a network and its graph."""
    tape = record(model, inputs, plan)
    found = cost_of(tape, plan, network=type(model).__name__)
    return found, graph_of(tape, found)


def with_graph(report, model, inputs):
    """A report whose cost and graph are those of a network, without what is about another one."""
    found, graph = read(model, inputs, TrainingPlan())
    return replace(report, cost=found, graph=graph, published=None, findings=())
