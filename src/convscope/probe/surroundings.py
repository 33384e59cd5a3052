"""What surrounds a call or a value in a user's loop: whose run it is, and what it was made of."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack
from torch.utils._pytree import tree_leaves

from convscope.probe.probe import Probe

_MOST_NODES = 5000


def is_in_function() -> bool:
    """Whether we are in the forward of an autograd function, as a reentrant checkpoint's first run is."""
    frame = inspect.currentframe()
    while frame is not None:
        code = frame.f_code
        if code.co_name == "forward" and code.co_varnames[:1] == ("ctx",):
            return True
        frame = frame.f_back
    return False


def num_running(module: nn.Module) -> int:
    """Return how many calls of a module we are in.

    Example:
        >>> num_running(nn.ReLU())
        0
    """
    number, frame = 0, inspect.currentframe()
    while frame is not None:
        number += frame.f_code is nn.Module._call_impl.__code__ and frame.f_locals["self"] is module
        frame = frame.f_back
    return number


def tensors_in(values: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested containers, and those which objects in them have, in containers or not.

    Example:
        >>> len(list(tensors_in({"logits": torch.zeros(1), "others": [torch.zeros(2), 3]})))
        2
    """
    for leaf in tree_leaves(values):
        if isinstance(leaf, Tensor):
            yield leaf
            continue
        inner: Any = ()
        if isinstance(leaf, Mapping):
            inner = list(leaf.values())
        elif hasattr(leaf, "__dict__") and not isinstance(leaf, type | nn.Module):
            inner = list(vars(leaf).values())
        yield from (value for value in tree_leaves(inner) if isinstance(value, Tensor))


_NOT_THE_USERS = (Probe, FakeTensorMode)


def is_ours() -> bool:
    """Whether a probe, a recording or a compiler runs the network, and not the user's loop."""
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return True
    if not torch._C._len_torch_dispatch_stack():
        return False
    return any(isinstance(mode, _NOT_THE_USERS) for mode in _get_current_dispatch_mode_stack())


def is_compiled(module: nn.Module) -> bool:
    """Return whether a module is one that ``torch.compile`` returned, or that ``compile()`` was called on."""
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None


def is_transformed() -> bool:
    """Return whether we are within a transform of torch.func, such as vmap or grad."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def is_of_many(gradient: Tensor) -> bool:
    """Return whether a gradient stands for several at once, as in a Jacobian or under vmap."""
    functorch = torch._C._functorch
    return functorch.is_legacy_batchedtensor(gradient) or functorch.is_functorch_wrapped_tensor(gradient)


def trains_as_input(tensor: Tensor, model: nn.Module) -> bool:
    """Return whether a tensor that requires a gradient comes from outside a network, not from a part of it.

    Example:
        >>> net, x = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), torch.ones(1, 2, requires_grad=True)
        >>> trains_as_input(2 * x, net), trains_as_input(net[0](x), net)
        (True, False)
    """
    if tensor.grad_fn is None:
        return True
    own = {id(parameter) for parameter in model.parameters()}
    seen: set[Any] = set()
    ahead: list[Any] = [tensor.grad_fn]
    while ahead and len(seen) < _MOST_NODES:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        if id(getattr(node, "variable", None)) in own:
            return False
        seen.add(node)
        ahead.extend(behind for behind, _ in node.next_functions)
    return True
