"""Roles of operators in a projection that are told by name: activations with a gate, and linear ones.

Users register operators of their own (``torch.library``) by the two functions of this file. convscope's own
linear operators are registered by the same one (:mod:`convscope.sight.projecting.linear`); the gates of
PyTorch's activations are in :mod:`convscope.sight.projecting.gates`, by autograd's backward operators.

Limits: an operator whose backward autograd knows from ``register_autograd``; what C++ code or a
``torch.autograd.Function`` around it differentiates has a node of its own, which no gate is put into.
"""

from collections.abc import Callable
from typing import Literal, get_args

from torch import Tensor

from convscope.core.errors import ConvscopeError
from convscope.tape.operator_names import plain_name

Gate = Callable[..., Tensor]
Linearity = Literal["all", "each", "first"]

GATES: dict[str, Gate] = {}
"""The gates of operators of other libraries, by name, from what the operator itself is given."""
LINEAR: dict[str, Linearity] = {}
"""In what an operator is linear, by name; see :func:`linear_operators`."""


def gate_rule(*operators: str) -> Callable[[Gate], Gate]:
    """Return a decorator which makes a function the gate of activations φ(x) = x · gate(x).

    Under the rule ``gated`` such an operator hands down max(g, 0) · gate(x) of the signal g.

    Args:
        operators: as ``"mylib::bent"`` or ``"mylib_bent"``. What is decorated gets the operator's own
            arguments, x first, and returns the gate, of x's shape or one that broadcasts to it.
            Half-precision tensors come in float32.

    Raises:
        ConvscopeError: a name can't be an operator's.

    Example:
        >>> @gate_rule("mylib::swish")
        ... def swish(x):
        ...     return x.sigmoid()
        >>> GATES.pop("mylib_swish") is swish
        True
    """
    names = [plain_name(operator) for operator in operators]

    def register(gate: Gate) -> Gate:
        GATES.update(dict.fromkeys(names, gate))
        return gate

    return register


def linear_operators(*operators: str, linear_in: Linearity = "all") -> None:
    """Let a projection pass operators by their own derivative: it is the same for all images.

    Args:
        operators: as ``"mylib::reversed"`` or ``"mylib_reversed"``.
        linear_in: ``"all"``: in all tensors together, such as sums, views, reorderings, means; ``"each"``: in
            each tensor while the others are held, such as products: linear wherever at most one of them
            depends on the image; ``"first"``: in the first tensor, such as quotients: wherever no other one
            depends on the image. A constant that is added doesn't matter.

    Raises:
        ConvscopeError: a name can't be an operator's, or ``linear_in`` is none of these.

    Example:
        >>> linear_operators("mylib::reversed")
        >>> LINEAR.pop("mylib_reversed")
        'all'
    """
    if linear_in not in get_args(Linearity):
        raise ConvscopeError(f"linear_in={linear_in!r}", "'all', 'each' or 'first'", "choose one of them")
    LINEAR.update(dict.fromkeys(map(plain_name, operators), linear_in))
