"""A loss that is a module, or holds some, comes back as it was, like the model.

Modules are found in what a loss is made of: itself, the object that it is a method of, what it is partially
applied to, the attributes of a callable object, and the variables that a function refers to. What lies
deeper isn't found.
"""

import inspect
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from convscope.core.preserved import preserved, preserved_rng, preserved_structure, same_bits


def modules_of(loss: Any) -> tuple[nn.Module, ...]:
    """Return the modules that a loss is, or is made of, each once.

    Example:
        >>> head = nn.Linear(3, 2)
        >>> modules_of(lambda outputs, labels: head(outputs).mean()) == modules_of(head) == (head,)
        True
    """
    return tuple({id(module): module for module in _found_in(loss)}.values())


@contextmanager
def preserved_loss(loss: Any) -> Iterator[None]:
    """Run a block after which the loss's modules are as they were, also after an exception.

    See :func:`convscope.core.preserved.preserved`; it costs the memory of their tensors once.
    """
    with ExitStack() as kept:
        for module in modules_of(loss):
            kept.enter_context(preserved(module))
        yield


def with_loss(model: nn.Module, loss: Any) -> nn.Module:
    """Return what a proof of state is about: the model, together with the modules of the loss if it has any.

    Example:
        >>> net = nn.Linear(3, 2)
        >>> with_loss(net, None) is net, len(with_loss(net, nn.CrossEntropyLoss()))
        (True, 2)
    """
    modules = modules_of(loss)
    return nn.ModuleList([model, *modules]) if modules else model


@contextmanager
def without_trace(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Run a block after which modules' buffers, attributes and modes, and random generators, are as before.

    Parameters, which no loss changes, aren't looked at: that would take their time in every call.
    """
    found = tuple(modules)
    kept = {id(b): (b, b.detach().clone()) for module in found for b in module.buffers()}
    try:
        with ExitStack() as stack:
            stack.enter_context(preserved_rng())
            for module in found:
                stack.enter_context(preserved_structure(module))
            yield
    finally:
        with torch.no_grad():
            for buffer, content in kept.values():
                if not same_bits(buffer, content):
                    buffer.copy_(content)


def _found_in(loss: Any) -> Iterator[nn.Module]:
    if isinstance(loss, nn.Module):
        yield loss
    elif isinstance(loss, partial):
        yield from _found_in(loss.func)
        yield from _modules_in((*loss.args, *loss.keywords.values()))
    elif inspect.ismethod(loss):
        owner = loss.__self__
        yield from [owner] if isinstance(owner, nn.Module) else _modules_in(_attributes(owner))
    elif inspect.isfunction(loss):
        yield from _modules_in(_variables(loss))
    else:
        yield from _modules_in(_attributes(loss))


def _variables(function: Any) -> Iterable[Any]:
    try:
        found = inspect.getclosurevars(function)
    except ValueError:  # a variable that has no value yet
        return ()
    return (*found.nonlocals.values(), *found.globals.values())


def _attributes(owner: Any) -> Iterable[Any]:
    return getattr(owner, "__dict__", {}).values()


def _modules_in(values: Iterable[Any]) -> Iterator[nn.Module]:
    return (value for value in values if isinstance(value, nn.Module))
