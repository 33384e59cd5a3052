"""``watch``: a check-up of the user's own training loop, while it runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.optim import Optimizer

from convscope.checkup.unchecked import Unchecked
from convscope.checkup.watching.layers import watched_kinds
from convscope.checkup.watching.log import TrainingLog
from convscope.checkup.watching.writing import writer_of
from convscope.core.errors import ConvscopeError
from convscope.core.modes import require_modes
from convscope.probe.events import listening
from convscope.probe.surroundings import is_compiled
from convscope.tape import require_values
from convscope.tape.accepted import require_eager


@contextmanager
def watch(
    model: nn.Module, optimizer: Any = None, every: int = 10, writer: Any = None
) -> Iterator[TrainingLog]:
    """Watch a training loop in a block: ``with cs.watch(model, optimizer) as log:``, then ``log.checkup()``.

    It sees what only a run shows: evaluation in training mode and training in evaluation mode, running
    averages that are updated several times in a step, dummy passes, freezing that is undone, one batch norm
    for inputs of several kinds, weights whose scale runs away. Training isn't changed by a bit, and the
    network carries no trace of it; all hooks are gone after the block, also after an exception.

    Args:
        model: the network that the loop runs, or the DistributedDataParallel around it. A part that the loop
            calls on its own, such as ``model.encoder(x)``, is seen too.
        optimizer: the one that trains it, before or after ``accelerator.prepare``, or several in a list; None
            to see modes only.
        every: how often a step is looked at closely: the first ten and every so-manyth one.
        writer: where :meth:`TrainingLog.metrics` go in these steps: see
            :func:`convscope.checkup.watching.writing.writer_of`.

    Yields:
        The log; it can be asked within the block and after it.

    Raises:
        ConvscopeError: no network, no optimizer, a compiled or scripted network, a lazy one that hasn't run
            yet, ``every`` below 1, no writer.

    Not covered: batch norms called as functions; replicas of DataParallel on several devices; compiled
    code; passes within transforms of torch.func.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten())
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        >>> with watch(net, optimizer) as log:
        ...     for step in range(4):
        ...         net(torch.randn(8, 3, 5, 5)).square().mean().backward()
        ...         optimizer.step()
        ...     with torch.no_grad():  # without net.eval()
        ...         _ = net(torch.randn(8, 3, 5, 5))
        >>> [finding.fault for finding in log.findings if finding.severity == "error"]
        ['evaluating-in-training-mode']
    """
    inner = _network(model)
    if type(every) is not int or every < 1:
        raise ConvscopeError(f"every={every!r}", "a whole number from 1", "leave it out for every tenth step")
    optimizers = tuple(_optimizers(optimizer))
    log = TrainingLog(inner, optimizers, every, writer_of(writer), tuple(_unseen(model)))
    with listening(inner, optimizers, watched_kinds(inner), log.ledger, log.after_step) as log.hearing:
        yield log


def _network(model: Any) -> nn.Module:
    """The network itself, without the wrapper that distributes it."""
    require_values(model)
    require_modes(model)
    if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        return _network(model.module)
    if is_compiled(model):
        raise ConvscopeError(
            "a compiled network, in which batch norms can't be seen",
            "the network before torch.compile",
            "watch a short run without compiling: the faults are those of the loop",
        )
    require_eager(model)
    return model  # type: ignore[no-any-return]


def _unseen(model: nn.Module) -> Iterator[Unchecked]:
    if isinstance(model, nn.DataParallel) and len(model.device_ids) > 1:
        devices = len(model.device_ids)
        yield Unchecked("training run", f"DataParallel runs copies on {devices} devices, which aren't seen")


def _optimizers(optimizer: Any) -> Iterator[Optimizer]:
    """The optimizers themselves, without the wrappers that accelerate and others put around them."""
    if optimizer is None:
        return
    if isinstance(optimizer, list | tuple | set):
        for each in optimizer:
            yield from _optimizers(each)
        return
    while (inner := _wrapped(optimizer)) is not None:
        optimizer = inner
    if not isinstance(optimizer, Optimizer):
        raise ConvscopeError(
            f"optimizer of type {type(optimizer).__name__}",
            "a torch.optim.Optimizer, or several in a list",
            "pass the one that the loop steps",
        )
    yield optimizer


def _wrapped(optimizer: Any) -> Optimizer | None:
    """The optimizer that one stands around and steps, as accelerate's and sharpness-aware ones do."""
    inside = (getattr(optimizer, name, None) for name in ("optimizer", "base_optimizer"))
    return next((each for each in inside if isinstance(each, Optimizer)), None)
