"""What subclasses of PyTorch's batch norm do around it, where their own code doesn't say so by ``super()``.

A subclass that computes batch norm itself and then goes on (timm's ``BatchNormAct2d``: dropout, activation)
can't be given another engine by inheritance. A rule says what it does around the engine. Classes are named
by their import path, so that no library is imported for the table's sake.
"""

from collections.abc import Callable
from functools import reduce
from importlib import import_module
from typing import Any

Rule = Callable[[Any, Callable[..., Any], Any], Any]
"""Called as ``rule(layer, engine, x)``: returns what the layer makes of ``x``, by way of ``engine(x)``."""

_RULES: dict[str, Rule] = {}

# By class and target: the class of the same library which is that layer exactly.
_TWINS = {
    ("timm.layers.norm_act.BatchNormAct2d", "torch-sync"): "timm.layers.norm_act.SyncBatchNormAct",
    ("timm.layers.norm_act.SyncBatchNormAct", "torch"): "timm.layers.norm_act.BatchNormAct2d",
}


def around(path: str) -> Callable[[Rule], Rule]:
    """Register what a class does around its batch norm; :func:`convscope.norm.convert` then keeps it.

    Args:
        path: the class's module and name, such as ``"timm.layers.norm_act.BatchNormAct2d"``.

    Example:
        >>> @around("my_layers.ShiftedBatchNorm")
        ... def shifted(layer, engine, x):
        ...     return engine(x) + layer.shift
    """

    def register(rule: Rule) -> Rule:
        _RULES[path] = rule
        return rule

    return register


def rule_of(cls: type) -> Rule | None:
    """Return the rule that is registered for a class itself, not for its ancestors; None without one."""
    return _RULES.get(f"{cls.__module__}.{cls.__qualname__}")


def twin_of(cls: type, kind: str, rank: int | None) -> type | None:
    """Return the class of the same library that is a class's counterpart of a kind, for maps; None if none.

    Args:
        cls: the layer's class.
        kind: that is wanted.
        rank: spatial dimensions of the layer's inputs; None if unknown.
    """
    path = _TWINS.get((f"{cls.__module__}.{cls.__qualname__}", kind))
    if path is None or rank not in (2, None):
        return None
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name, None)


@around("timm.layers.norm_act.BatchNormAct2d")
def _dropped_and_activated(layer: Any, engine: Callable[..., Any], x: Any) -> Any:
    return reduce(lambda value, step: step(value), (layer.drop, layer.act), engine(x))
