"""Classes that put another engine under a subclass's own code.

A layer of class ``S``, a subclass of PyTorch's batch norm whose forward pass is ``super().forward(x)`` and
something around it, becomes another kind of layer in one of two ways.

- Woven: ``class (S, Engine)``. Python's order of inheritance puts the engine between S and the class that it
  is built on, so that ``super().forward`` means the engine's. The layer stays an ``S``.
- Transplanted: the same methods on another base. The layer is no longer what S is built on: neither a batch
  norm after it became group norm, nor synchronised after it became an ordinary batch norm.

Both kinds of class are made when they are needed, always the same for the same recipe, and layers of them
are copied and pickled like others.

Not covered: classes that call their base by name (``nn.BatchNorm2d.forward(self, x)``).
"""

import copyreg
from collections.abc import Callable
from types import CellType, FunctionType, new_class
from typing import Any, Literal

from torch import nn

from convscope.norm.conversion.around import Rule, rule_of
from convscope.norm.conversion.kinds import library_class

How = Literal["woven", "transplanted"]


class Unweavable(Exception):  # noqa: N818 - no error: a verdict
    """A class can't be given another engine; the text says why."""


class _Made(type):
    """The class of classes made here: they are pickled by their recipe."""

    recipe: tuple[How, type, type]


def engine_under(cls: type[nn.Module], target: type[nn.Module], how: How) -> type[nn.Module]:
    """Return the class of a layer that is ``cls`` on the engine of ``target``.

    Args:
        cls: a class of the table, or a subclass of one.
        target: a class of the table.
        how: see the module's words; for a class of the table itself, ``target`` is the answer to both.

    Raises:
        Unweavable: the class computes its output itself, and no rule is registered.

    Example:
        >>> class Doubled(nn.BatchNorm1d):
        ...     def forward(self, x):
        ...         return 2 * super().forward(x)
        >>> from convscope.norm.layers.batch import BatchNorm1d
        >>> woven = engine_under(Doubled, BatchNorm1d, "woven")
        >>> woven.__name__, issubclass(woven, Doubled)
        ('Doubled[BatchNorm1d]', True)
    """
    base = library_class(cls)
    if cls is base:
        return target
    for ancestor in cls.__mro__[: cls.__mro__.index(base)]:
        forward = vars(ancestor).get("forward")
        if forward is not None and rule_of(ancestor) is None and not _is_cooperative(forward):
            raise Unweavable(
                f"{ancestor.__name__}.forward computes its output itself; say what it does around the "
                "normalisation with convscope.norm.around"
            )
    if type(cls) is not type:
        raise Unweavable(f"{cls.__name__} has a metaclass of its own, {type(cls).__name__}")
    return _made(how, cls, target)


_MADE: dict[tuple[How, type, type], type[nn.Module]] = {}


def _made(how: How, cls: type[nn.Module], target: type[nn.Module]) -> type[nn.Module]:
    recipe = how, cls, target
    if recipe not in _MADE:
        made = _woven(cls, target) if how == "woven" else _transplanted(cls, target)
        made.__name__ = f"{cls.__name__}[{target.__name__}]"
        made.__qualname__ = f"{cls.__qualname__}[{target.__name__}]"
        made.__module__ = cls.__module__
        made.recipe = recipe  # type: ignore[attr-defined]  # declared on its metaclass
        _MADE[recipe] = made
    return _MADE[recipe]


def _woven(cls: type[nn.Module], target: Any) -> type[nn.Module]:
    base = library_class(cls)
    assert base is not None
    if issubclass(target, base):
        engine: type[nn.Module] = target
    else:  # what the base would answer itself comes from the target
        answers = {"forward": target.forward, "_check_input_dim": target._check_input_dim}
        engine = _class(target.__name__, (target, base), answers)
    for ancestor in _own_classes(cls):
        rule = rule_of(ancestor)
        if rule is not None:
            body = {"forward": _ruled(rule, CellType(ancestor))}
            engine = _class(ancestor.__name__, (ancestor, engine), body)
            break
    return engine if issubclass(engine, cls) else _class(cls.__name__, (cls, engine), {})


def _transplanted(cls: type[nn.Module], target: type[nn.Module]) -> type[nn.Module]:
    """A copy of a class, and of its ancestors up to the table's, whose ``super()`` ends in the target."""
    own = _own_classes(cls)
    copies: dict[type, type] = {}
    for ancestor in reversed(own):
        bases = tuple(
            copies.get(parent, target if parent is library_class(cls) else parent)
            for parent in ancestor.__bases__
        )
        cell = CellType()
        body = {
            name: _rebound(value, cell) if isinstance(value, FunctionType) else value
            for name, value in vars(ancestor).items()
            if name not in ("__dict__", "__weakref__")
        }
        rule = rule_of(ancestor)
        if rule is not None:
            body["forward"] = _ruled(rule, cell)
        copies[ancestor] = cell.cell_contents = _class(ancestor.__name__, bases, body)
    return copies[cls]


def _own_classes(cls: type) -> list[type]:
    """A class and its ancestors, as far as they are built on a class of the table."""
    base = library_class(cls)
    assert base is not None
    return [ancestor for ancestor in cls.__mro__ if issubclass(ancestor, base) and ancestor is not base]


def _class(name: str, bases: tuple[type, ...], body: dict[str, Any]) -> Any:
    return new_class(name, bases, {"metaclass": _Made}, lambda namespace: namespace.update(body))


def _ruled(rule: Rule, owner: CellType) -> Callable[[Any, Any], Any]:
    """A forward pass that applies a rule around what comes after the owner in the order of inheritance."""

    def forward(self: Any, x: Any) -> Any:
        return rule(self, super(owner.cell_contents, self).forward, x)

    return forward


def _rebound(function: FunctionType, cell: CellType) -> FunctionType:
    """A method whose ``super()`` looks up from the class in the cell, also inside a decorator."""
    names, cells = function.__code__.co_freevars, function.__closure__ or ()
    closure = tuple(cell if name == "__class__" else _refilled(old, cell) for name, old in zip(names, cells))
    if all(new is old for new, old in zip(closure, cells)):
        return function
    code, defaults = function.__code__, function.__defaults__
    made = FunctionType(code, function.__globals__, function.__name__, defaults, closure)
    made.__kwdefaults__ = function.__kwdefaults__
    made.__dict__.update(vars(function))
    return made


def _refilled(old: CellType, cell: CellType) -> CellType:
    """A cell whose function, if it holds a method, is bound to another class."""
    try:
        content = old.cell_contents
    except ValueError:  # nothing in it
        return old
    if not isinstance(content, FunctionType) or "__class__" not in content.__code__.co_freevars:
        return old
    return CellType(_rebound(content, cell))


def _is_cooperative(forward: Any) -> bool:
    """Whether a forward pass calls ``super().forward``."""
    while hasattr(forward, "__wrapped__"):
        forward = forward.__wrapped__
    code = getattr(forward, "__code__", None)
    return code is not None and {"super", "forward"} <= {*code.co_names}


def _recipe(cls: _Made) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    return _made, vars(cls)["recipe"]


copyreg.pickle(_Made, _recipe)
