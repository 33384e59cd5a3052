"""Loops written by hand, as users write them, and the faults that watching them may find."""

import torch
import torch.nn.functional as F
from torch.optim import SGD

from checkup.grown import Small, images

MINE = {
    "evaluating-in-training-mode",
    "training-in-evaluation-mode",
    "freeze-undone",
    "accumulated-batches",
    "recomputed-updates",
    "dummy-forwards",
    "per-sample-gradients",
    "scale-drift",
    "shared-over-domains",
}


def setting(rate=0.02):
    torch.manual_seed(0)
    net = Small()
    return net, SGD(net.parameters(), rate, momentum=0.9)


def batch(number=16):
    return images(number), torch.randint(0, 4, (number,))


def backward(net, number=16):
    x, y = batch(number)
    F.cross_entropy(net(x), y).backward()


def step(net, optimizer, number=16):
    optimizer.zero_grad()
    backward(net, number)
    optimizer.step()


def found(log):
    assert log.hearing.ended_by is None
    return {finding.fault for finding in log.findings} & MINE
