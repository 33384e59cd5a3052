"""Two gloo processes that check the same network together, and one that does it alone."""

import datetime

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from convscope.checkup import checkup
from convscope.checkup.measuring import processes
from convscope.norm import convert

NUM_PROCESSES = 2


def network(rank=0):
    """Two batch norms, of which the first has other statistics in the second process."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)
    )
    with torch.no_grad():
        net[1].running_mean += torch.tensor([0.0, 0.5, -2.0, 1.0]) * rank
        net[1].running_var *= 1 + 3 * rank
    return net


def work(rank, _):
    """What one process finds."""
    processes.WAIT = datetime.timedelta(seconds=2)
    wrapped = DistributedDataParallel(network())
    together = network()
    convert(together, "sync")
    found = {}
    if rank == 0:
        found["alone"] = processes.process_facts(network())
        found["wrapped alone"] = _checked(wrapped)
        found["synchronised alone"] = _checked(together)
    dist.barrier()
    found["together"] = processes.process_facts(network(rank))
    found["again"] = processes.process_facts(network())
    found["wrapped"] = _checked(wrapped)
    found["synchronised"] = _checked(together)
    return found


def _checked(net):
    """Every finding's fault and address, and what couldn't be checked."""
    result = checkup(net.train(), [torch.randn(8, 3, 8, 8)] * 2)
    return [layer.address for layer in result.layers], [note.what for note in result.unchecked]
