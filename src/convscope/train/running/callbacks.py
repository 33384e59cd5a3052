"""The user's own calls after steps and epochs."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from convscope.core.errors import ConvscopeError


class Callbacks:
    """Objects with ``after_step(model, step)``, ``after_epoch(model, epoch)``, or both.

    They are called in order, on every process, with the network itself (no wrapper) as it is at that moment:
    in training mode (to which it is put back), on the training device, the gradients of the step still
    there. Steps and epochs are counted from 1 over the whole run. A call comes before the checkpoint of its
    moment: killed in between, a run makes it again when it is resumed.

    Args:
        callbacks: the objects.

    Raises:
        ConvscopeError: one has neither method.
    """

    def __init__(self, callbacks: Iterable[Any] = ()) -> None:
        if not isinstance(callbacks, Iterable):
            raise _not_callbacks(f"callbacks of type {type(callbacks).__name__}", "a list of objects")
        callbacks = list(callbacks)
        self._step = [each.after_step for each in callbacks if hasattr(each, "after_step")]
        self._epoch = [each.after_epoch for each in callbacks if hasattr(each, "after_epoch")]
        for each in callbacks:
            if not hasattr(each, "after_step") and not hasattr(each, "after_epoch"):
                raise _not_callbacks(f"callback of type {type(each).__name__}", "an object")

    def after_step(self, model: nn.Module, step: int) -> None:
        """Tell those who want to know of steps; afterwards the network is in training mode."""
        for call in self._step:
            call(model, step)
        if not model.training:
            model.train()

    def after_epoch(self, model: nn.Module, epoch: int) -> None:
        """Tell those who want to know of epochs."""
        for call in self._epoch:
            call(model, epoch)


def _not_callbacks(given: str, expected: str) -> ConvscopeError:
    return ConvscopeError(
        given,
        f"{expected} with after_step(model, step) or after_epoch(model, epoch)",
        "write a class with one of these methods, and give callbacks=[it]",
    )
