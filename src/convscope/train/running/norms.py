"""What batch norms are for the time of a run: synchronised, and their averages slowed down."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from convscope.core.errors import ConvscopeError
from convscope.norm import SyncBatchNorm, convert, correct_momentum
from convscope.norm.conversion.changing import Undo
from convscope.train.config import TrainConfig


@contextmanager
def norms_of_run(model: nn.Module, config: TrainConfig) -> Iterator[None]:
    """Run a block in which batch norms are as the settings want them; afterwards they are what they were.

    With ``sync_batch_norm`` they are :class:`convscope.norm.SyncBatchNorm`; with ``accumulation`` their
    momentum is corrected. Classes, settings and state dict keys come back; running statistics keep what the
    block made of them.

    Args:
        model: the network, before it is wrapped for several processes.
        config: the settings.

    Raises:
        ConvscopeError: a network without batch norm, or with one that can't be synchronised.
    """
    updates = config.accumulation
    with ExitStack() as stack:
        if config.sync_batch_norm:
            stack.enter_context(_synchronised(model))
        if updates > 1:
            stack.enter_context(correct_momentum(model, updates))
        yield


@contextmanager
def _synchronised(model: nn.Module) -> Iterator[None]:
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    undo = Undo([*layers])
    try:
        convert(model, "sync")
        _check_all(model)
        yield
    finally:
        now = [dict(layer._buffers) for layer in layers]
        undo.undo()
        _keep_values(layers, now)


def _check_all(model: nn.Module) -> None:
    for path, module in model.named_modules():
        if isinstance(module, _BatchNorm) and not isinstance(module, SyncBatchNorm):
            raise ConvscopeError(
                f"{type(module).__name__} at {path!r}, which can't be synchronised",
                "batch norms that convscope.norm.convert(model, 'sync') changes",
                "see what it says of that layer, or train with sync_batch_norm=False",
            )


@torch.no_grad()
def _keep_values(layers: list[_BatchNorm], now: list[dict[str, torch.Tensor | None]]) -> None:
    """The layers have their own buffers again; these get the values of those used meanwhile."""
    for layer, buffers in zip(layers, now):
        for name, used in buffers.items():
            own = layer._buffers.get(name)
            if own is not None and used is not None and own is not used:
                own.copy_(used)
