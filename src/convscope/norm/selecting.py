"""Which layers of a network does ``only=`` mean?

A word is a module's path, which stands for everything inside it (``"layer1"``), or a pattern over paths with
``*``, ``?`` and ``[]`` (``"backbone.*"``, ``"layer[12]"``, ``"*.bn1"``), where ``*`` crosses dots. ``""`` is
the whole network. A layer that several paths lead to is found by each of them and named by the first.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import Any

from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.tape.accepted import require_module

Only = str | Iterable[str] | None
"""One word or several; None for the whole network."""


def select(
    model: nn.Module, only: Only, wanted: Callable[[nn.Module], bool], kind: str
) -> dict[str, nn.Module]:
    """Return the wanted layers that ``only`` names, by path, each once, in the network's order.

    Args:
        model: the network; a layer on its own has the path ``""``.
        only: see the module's words; None for the whole network, which may have no wanted layer.
        wanted: whether a module is of the kind that is looked for.
        kind: what that is called in messages, such as ``"batch norm"``.

    Raises:
        ConvscopeError: ``model`` isn't a module; a word isn't text, names no module, or names modules
            without a wanted layer in them.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm2d(4)))
        >>> list(select(net, "2", lambda module: isinstance(module, nn.BatchNorm2d), "batch norm"))
        ['2.0']
    """
    words = _words(only)
    found = {path: module for path, module in region(model, words).items() if wanted(module)}
    if only is not None:
        layers = [path for path, module in model.named_modules() if wanted(module)]
        for word in words:
            if not any(map(wanted, region(model, word).values())):
                raise _nothing_inside(word, kind, layers)
    return found


def region(model: nn.Module, only: Only) -> dict[str, nn.Module]:
    """Return all modules that ``only`` names and those inside them, by path, each once.

    Raises:
        ConvscopeError: ``model`` isn't a module; a word isn't text, or names no module.
    """
    require_module(model)
    paths = dict(model.named_modules(remove_duplicate=False))
    tops = {top for word in _words(only) for top in _matches(word, paths)}
    inside = {id(module) for path, module in paths.items() if not tops.isdisjoint(_around(path))}
    return {path: module for path, module in model.named_modules() if id(module) in inside}


def _words(only: Any) -> list[str]:
    if only is None:
        return [""]
    words = list(only) if isinstance(only, Iterable) and not isinstance(only, str) else [only]
    for word in words:
        if not isinstance(word, str):
            raise ConvscopeError(
                f"only= with an object of type {type(word).__name__}",
                "module paths or patterns as text",
                "see dict(model.named_modules()) for the paths",
            )
    return words


def _matches(word: str, paths: dict[str, nn.Module]) -> list[str]:
    """The modules that a word names."""
    tops = [word] if word in paths else [path for path in paths if fnmatchcase(path, word)]
    if not tops:
        near = difflib.get_close_matches(word, paths, n=3, cutoff=0.5)
        raise ConvscopeError(
            f"only={word!r}, which is no module of this {type(paths['']).__name__}",
            "a module's path or a pattern such as 'backbone.*'",
            f"did you mean {' or '.join(map(repr, near))}?" if near else "see dict(model.named_modules())",
        )
    return tops


def _around(path: str) -> Iterator[str]:
    """The path itself and those of all modules that it is in."""
    yield ""
    yield from accumulate(path.split("."), "{}.{}".format)


def _nothing_inside(word: str, kind: str, layers: Iterable[str]) -> ConvscopeError:
    known = [*_shown(layers)]
    return ConvscopeError(
        f"only={word!r}, in which there is no {kind}",
        f"a path or pattern that contains one: {', '.join(known)}" if known else f"a network with a {kind}",
        "name another part, or leave out only= for the whole network",
    )


def _shown(paths: Iterable[str], most: int = 5) -> Iterator[str]:
    for number, path in enumerate(paths):
        if number == most:
            yield "…"
            return
        yield repr(path)
