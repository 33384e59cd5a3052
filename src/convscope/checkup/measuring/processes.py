"""What the processes of a distributed run show beside one another: running statistics, compared exactly.

A collective call that one process makes alone never returns. So the processes first meet at the group's
store, for a few seconds: either all of them go on to exchange their statistics, or none does.

Limits: PyTorch's default group only.
"""

import math
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from convscope.checkup.observed import ProcessFacts
from convscope.core.address import ROOT
from convscope.norm.layers.sync import SyncBatchNorm

WAIT = timedelta(seconds=5)
"""How long a process waits for the others to begin their check-up."""

_GO, _OFF = "go", "off"


def undistributed(model: nn.Module) -> nn.Module:
    """Return the network inside of ``DistributedDataParallel``, whose own calls wait for all processes."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def has_synchronised(model: nn.Module) -> bool:
    """Return whether a layer's training waits for other processes."""
    return any(isinstance(module, nn.SyncBatchNorm | SyncBatchNorm) for module in model.modules())


def process_facts(model: nn.Module) -> ProcessFacts | None:
    """Return what the processes of the default group show; None in a single process.

    Statistics are compared if every process calls this within :data:`WAIT`; nobody hangs if not.

    Args:
        model: the same network in every process, in its wrapper or not.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return None
    count = distributed.get_world_size()
    if count == 1:
        return None
    broadcast = model.broadcast_buffers if isinstance(model, DistributedDataParallel) else None
    if not _all_meet(count):
        return ProcessFacts(count, broadcast, compared=False)
    own = _statistics(undistributed(model))
    found: list[Any] = [None] * count
    distributed.all_gather_object(found, own)
    return ProcessFacts(count, broadcast, _disagreements(found))


def _statistics(model: nn.Module) -> dict[str, tuple[Tensor, Tensor, float]]:
    """Running means and variances in float64, and ε, by path."""
    return {
        path or ROOT: (module.running_mean.double().cpu(), module.running_var.double().cpu(), module.eps)
        for path, module in model.named_modules()
        if isinstance(module, _BatchNorm)
        and module.running_mean is not None
        and module.running_var is not None
    }


def _disagreements(
    found: list[dict[str, tuple[Tensor, Tensor, float]]],
) -> dict[str, tuple[float, float]]:
    """Largest differences between processes; layers of which all have the same bits are left out."""
    differences = {}
    for path in found[0]:
        if any(path not in other or other[path][0].shape != found[0][path][0].shape for other in found):
            continue  # another network: not this fault
        means_PC = torch.stack([other[path][0] for other in found])
        variances_PC = torch.stack([other[path][1] for other in found]) + found[0][path][2]
        if _alike(means_PC) and _alike(variances_PC):
            continue
        logs_PC = variances_PC.clamp_min(torch.finfo(torch.float64).tiny).log()
        shift_C = (means_PC.amax(0) - means_PC.amin(0)) / variances_PC.mean(0).sqrt()
        ratio_C = logs_PC.amax(0) - logs_PC.amin(0)
        differences[path] = (_largest(shift_C), _largest(ratio_C))
    return differences


def _alike(values_PC: Tensor) -> bool:
    return bool(((values_PC == values_PC[0]) | (values_PC.isnan() & values_PC[0].isnan())).all())


def _largest(differences_C: Tensor) -> float:
    """The largest difference; infinity where one process has a number and another one none."""
    return float(differences_C.nan_to_num(nan=math.inf, posinf=math.inf).max())


def _all_meet(count: int) -> bool:
    """Return whether all processes are here; the same answer in each of those that are.

    The last one to come says "go"; one that has waited in vain says "off". Whoever is first settles it for
    all. A round that is settled is past: who comes later goes to the next.
    """
    # The group's store is what processes have in common outside of collective calls; it has no public name.
    store = distributed.distributed_c10d._get_default_store()
    try:
        number = 0
        while store.check([f"convscope/checkup/{number}"]):
            number += 1
        key = f"convscope/checkup/{number}"
        if store.add(f"{key}/here", 1) == count:
            return bool(store.compare_set(key, "", _GO) == _GO.encode())
        try:
            store.wait([key], WAIT)
        except RuntimeError:
            return bool(store.compare_set(key, "", _OFF) == _GO.encode())
        return bool(store.get(key) == _GO.encode())
    except (NotImplementedError, RuntimeError):  # a store without these operations, as simulated groups have
        return False
