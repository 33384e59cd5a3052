"""Where does a network hold its modules: under names, and in plain lists, dicts and tuples beside them?

Code may call a module by either: ``self.steps = [self.conv, self.norm]`` registers nothing, and yet is run.

Limits: sets, and objects of a network's own that hold modules, aren't looked into; nor are lists, dicts and
tuples of classes of its own, unless they are written to as plain ones are.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

_PLAIN = {list.__setitem__, dict.__setitem__, OrderedDict.__setitem__}


@dataclass(frozen=True, eq=False)
class Place:
    """Where a module is held.

    Attributes:
        container: a list or dict.
        key: index or key in it.
        within: indices in tuples that lie there, the outermost first; none if the module itself does.
    """

    container: Any
    key: Any
    within: tuple[int, ...] = ()

    def hold(self, module: nn.Module) -> None:
        """Let another module be held there."""
        self.container[self.key] = _with(self.container[self.key], self.within, module)


def places_of_modules(model: nn.Module) -> dict[int, list[Place]]:
    """Return where a network holds its modules, by their ``id``.

    Example:
        >>> net = nn.Sequential(nn.ReLU())
        >>> net.steps = [net[0]]
        >>> [place.key for place in places_of_modules(net)[id(net[0])]]
        ['0', 0]
    """
    found: dict[int, list[Place]] = {}
    seen: set[int] = set()
    for module in model.modules():
        for place, held in _places(vars(module), seen):
            found.setdefault(id(held), []).append(place)
    return found


def _places(container: Any, seen: set[int]) -> Iterator[tuple[Place, nn.Module]]:
    """The modules in a list or dict and in what lies in it, each container once."""
    if id(container) in seen:
        return
    seen.add(id(container))
    for key, item in list(container.items() if isinstance(container, dict) else enumerate(container)):
        yield from _at(Place(container, key), item, seen)


def _at(place: Place, item: Any, seen: set[int]) -> Iterator[tuple[Place, nn.Module]]:
    if isinstance(item, nn.Module):
        yield place, item
        yield from _places(vars(item), seen)  # it may be registered nowhere
    elif isinstance(item, list | dict) and type(item).__setitem__ in _PLAIN:
        yield from _places(item, seen)
    elif isinstance(item, tuple) and (type(item) is tuple or hasattr(item, "_make")):
        for index, each in enumerate(item):
            yield from _at(Place(place.container, place.key, (*place.within, index)), each, seen)


def _with(item: Any, within: tuple[int, ...], module: nn.Module) -> Any:
    """What is held in a place, with another module in it; a tuple is made anew."""
    if not within:
        return module
    first, *rest = within
    items = list(item)
    items[first] = _with(items[first], tuple(rest), module)
    return item._make(items) if hasattr(item, "_make") else tuple(items)
