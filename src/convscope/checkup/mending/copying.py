"""The copy that repairs are made to: one that shares nothing with the user's model, or none."""

import copy
from collections.abc import Iterator
from itertools import chain

from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from convscope.core.errors import ConvscopeError

_NON_LEAF = "graph leaves"
_EXPECTED = "a model for copy.deepcopy, for repairs are made to a copy"


def copied(model: nn.Module) -> nn.Module:
    """Return a deep copy of a model, every module and every tensor of it its own.

    Raises:
        ConvscopeError: the model can't be copied, or its copy shares modules, parameters or buffers with it,
            as a ``__deepcopy__`` of its own may have it.

    Example:
        >>> net = nn.Linear(2, 3)
        >>> copied(net).weight.data_ptr() == net.weight.data_ptr()
        False
    """
    try:
        found = copy.deepcopy(model)
    except Exception as error:  # a module's own __deepcopy__ may raise anything
        raise _failure(model, error) from error
    shared = _shared(model, found)
    if shared is not None:
        raise ConvscopeError(
            f"model of type {type(model).__name__} whose copy shares {shared} with it, so that a repair of "
            "the copy would change your model",
            _EXPECTED,
            "let __deepcopy__ copy modules and tensors, or follow the remedies of the check-up by hand",
        )
    return found


def _failure(model: nn.Module, error: Exception) -> ConvscopeError:
    remedy = "follow the remedies of the check-up by hand"
    if _NON_LEAF in str(error):
        remedy = (
            "if the network keeps an activation as an attribute, run it once under torch.no_grad(), or clear "
            "that attribute; else " + remedy
        )
    return ConvscopeError(
        f"model of type {type(model).__name__} that can't be copied ({type(error).__name__}: {error})",
        _EXPECTED,
        remedy,
    )


def _shared(model: nn.Module, found: nn.Module) -> str | None:
    """The first module, parameter or buffer of a copy that is the model's, in words; None if none is."""
    modules = {id(module) for module in model.modules()}
    for name, module in found.named_modules():
        if id(module) in modules:
            return f"module '{name}'" if name else "everything"
    places = {place for _, tensor in _tensors(model) for place in _places(tensor)}
    for name, tensor in _tensors(found):
        if not places.isdisjoint(_places(tensor)):
            return f"the memory of '{name}'"
    return None


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return chain(model.named_parameters(), model.named_buffers())


def _places(tensor: Tensor) -> set[tuple[object, ...]]:
    """Where a tensor's numbers are; which object it is where that can't be told (lazy, on no device)."""
    if is_traceable_wrapper_subclass(tensor):
        inner, _ = tensor.__tensor_flatten__()
        return set().union(*(_places(getattr(tensor, name)) for name in inner))
    try:
        storage = tensor.untyped_storage()
        start = storage.data_ptr()
    except (NotImplementedError, RuntimeError, ValueError):  # sparse, lazy, fake
        return {("object", id(tensor))}
    return {(tensor.device, start)} if start else {("object", id(tensor))}
