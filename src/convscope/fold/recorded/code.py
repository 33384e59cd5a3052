"""Which attributes does a module's own code read? Told from its functions, without running them.

Followed are the methods that ``forward`` calls, its own and those of what it has names for: other modules,
classes, objects that are attributes, closures, functions of its file and of files that it imports.

Limits: a name is read if it occurs, on whatever object. Code that looks attributes up by names it computes,
and code that isn't Python, counts as reading everything.
"""

import types
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

# By these, code can come by any attribute.
_ALL = {
    "getattr", "vars", "attrgetter", "__dict__", "_parameters", "parameters", "named_parameters",
    "get_parameter", "state_dict",
}  # fmt: skip


def reads(module: nn.Module, name: str, held_by: nn.Module | None = None) -> bool:
    """Return whether a module's own code may read an attribute of a name, its own or another module's.

    Args:
        module: whose ``forward`` runs.
        name: the attribute.
        held_by: the module that has the attribute, whose methods the code may call; None for the same one.

    Example:
        >>> class Shifted(nn.Conv2d):
        ...     def forward(self, x):
        ...         return torch.conv2d(x, self.weight)
        >>> reads(nn.Conv2d(1, 1, 1), "bias"), reads(Shifted(1, 1, 1), "bias")
        (True, False)
    """
    modules = (module,) if held_by is None else (module, held_by)
    if any(isinstance(each, torch.jit.ScriptModule) for each in modules):
        return True
    forward = vars(module).get("forward", type(module).forward)
    if _function(forward) is None:
        return True
    pending: list[tuple[Any, Any]] = [(forward, module)]
    seen: set[int] = set()
    while pending:
        given, owner = pending.pop()
        function = _function(given)
        if function is None or id(function) in seen:
            continue
        seen.add(id(function))
        names = set(_names(function.__code__))
        if name in names or names & _ALL:
            return True
        around = dict(_around(function, names))
        owners = (*modules, owner)
        held = {**around, **{key: item for each in owners for key, item in _held(each) if key in names}}
        pending += ((item, owner) for item in held.values())
        for each in (*owners, *held.values()):
            pending += ((method, each) for method in _methods(each, names, around.get("__class__")))
    return False


def _function(given: Any) -> types.FunctionType | None:
    """The Python function that a callable runs, if there is one."""
    while not isinstance(given, types.FunctionType):
        if isinstance(given, partial):
            given = given.func
        elif isinstance(given, types.MethodType | staticmethod | classmethod):
            given = given.__func__
        elif isinstance(given, property):
            given = given.fget
        else:
            return None
    return None if given.__module__ == "torch.nn.modules.module" else given


def _names(code: types.CodeType) -> Iterator[str]:
    """The names that code reads: of globals, of attributes, and those in strings."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, types.CodeType):
            yield from _names(constant)


def _held(item: Any) -> Iterator[tuple[str, Any]]:
    """What a module or another object holds under names; of a file, what is defined there."""
    if isinstance(item, types.ModuleType) and item.__name__.partition(".")[0] == "torch":
        return
    yield from getattr(item, "__dict__", {}).items()
    if isinstance(item, nn.Module):
        yield from item._modules.items()


def _methods(item: Any, names: set[str], own: Any) -> Iterator[Any]:
    """What code can call of an object or a class; by ``super()`` what comes behind the code's own class."""
    classes = item.__mro__ if isinstance(item, type) else type(item).__mro__
    calls = () if isinstance(item, nn.Module | type) else ("__call__",)
    yield from _first(classes, {*names, *calls})
    if own in classes:
        yield from _first(classes[classes.index(own) + 1 :], names)
    if isinstance(item, types.ModuleType):
        yield from (found for key, found in _held(item) if key in names)


def _first(classes: Iterable[type], names: set[str]) -> Iterator[Any]:
    """What is found under names in classes, in the first one of them that has it."""
    left = set(names)
    for each in classes:
        if each is not nn.Module:
            yield from (vars(each)[name] for name in left & vars(each).keys())
            left -= vars(each).keys()


def _around(function: types.FunctionType, names: set[str]) -> Iterator[tuple[str, Any]]:
    """What a function finds around it by its names: in its closure, and in its file."""
    if not (function.__module__ or "").startswith("torch."):
        yield from ((name, function.__globals__[name]) for name in names & function.__globals__.keys())
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    yield from ((name, cell.cell_contents) for name, cell in cells if _is_filled(cell))


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - that it may be read is the question
    except ValueError:
        return False
    return True
