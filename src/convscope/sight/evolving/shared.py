"""The network inside a wrapper, and one set of buffers for all processes while it is looked at."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.core.preserved import preserved
from convscope.sight.collecting.processes import Processes


def network_of(model: nn.Module) -> nn.Module:
    """Return the network without the wrappers of several processes or devices, and of ``torch.compile``.

    Raises:
        ConvscopeError: it isn't a module.
    """
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            if not isinstance(model, nn.Module):
                raise ConvscopeError(
                    f"an object of type {type(model).__name__} as the network",
                    "a torch.nn.Module",
                    "pass the network that is trained",
                )
            return model


@contextmanager
def lent_buffers(network: nn.Module, processes: Processes) -> Iterator[None]:
    """Run a block in which every process's network has the first one's buffers; afterwards its own again.

    Each process updates running statistics by its own batches; DistributedDataParallel itself evens them out
    at the next forward pass only.
    """
    if processes.size == 1:
        yield
        return
    with preserved(network):
        with torch.no_grad():
            for buffer in network.buffers():
                buffer.copy_(processes.broadcast(buffer.detach().cpu()))
        yield
