"""Two gloo processes that recalibrate together, and write down what they find."""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from convscope.core.errors import ConvscopeError
from convscope.norm.recalibration import RecalibrationPlan
from convscope.norm.recalibration.recalibrate import recalibrate

SHARES = {"uneven": (17, 4), "a process without data": (21, 0)}
NUM_PROCESSES = 2


def data():
    return 2 + torch.randn(21, 3, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def network(last=nn.BatchNorm2d):
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), last(4)
    ).double()


def share(rank, name):
    sizes = SHARES[name]
    return list(data().split(sizes)[rank].split(5)) if sizes[rank] else []


def work(rank, _):
    """What one process finds."""
    found = {}
    for name in SHARES:
        for method in ("one-pass", "sequential"):
            # The forwards of both wait for processes that have no more batches.
            net = network(nn.SyncBatchNorm if name == "uneven" else nn.BatchNorm2d).train()
            wrapped = net if name == "uneven" else DistributedDataParallel(net)
            with torch.no_grad():
                net[1].num_batches_tracked.fill_(100 * rank)
            result = recalibrate(wrapped, share(rank, name), method=method)
            found[name, method] = (dict(net.named_buffers()), result.to_dict())
    found["alone"] = _alone(rank)
    found["refused"] = _refused(rank)
    found["failed"] = _failed(rank)
    return found


def _alone(rank):
    groups = [dist.new_group([0]), dist.new_group([1])]
    if rank:
        return None
    net = network()
    recalibrate(net, share(0, "uneven"), plan=RecalibrationPlan(group=groups[0]))
    return dict(net.named_buffers())


def _refused(rank):
    """A held-out loss that gets better on the first process and worse over all."""
    net = nn.Sequential(nn.BatchNorm1d(1))
    x = torch.randn(100, 1, generator=torch.Generator().manual_seed(rank))
    weights = torch.full((100,), -10.0 if rank else 1.0)
    found = recalibrate(
        net, 5 * x, held_out=(x, weights), loss=lambda outputs, weights: weights * outputs.square().sum(1)
    )
    return found.applied, found.held_out.before, found.held_out.after, found.held_out.num_samples


def _failed(rank):
    net = network()
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    batches = [torch.full((2, 3, 6, 6), float("nan"), dtype=torch.float64)] if rank else share(0, "uneven")
    try:
        recalibrate(net, batches)
    except ConvscopeError as error:
        return str(error), all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())
    return None
