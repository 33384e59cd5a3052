"""A room (sub-package) that can be called as its main verb: ``cs.cost(model, inputs)``."""

import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


class _CallableRoom(ModuleType):
    _verb: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._verb(*args, **kwargs)


def make_callable(room: str, verb: Callable[..., Any]) -> None:
    """Let the module named ``room`` be called as ``verb``, with its signature.

    ``import convscope.cost`` binds the module to ``convscope.cost``, the name that the public function
    has too; a module that can be called lets both meanings live under one name.
    """
    module = sys.modules[room]
    module.__class__ = _CallableRoom
    module._verb = verb  # type: ignore[attr-defined]
    module.__signature__ = inspect.signature(verb)  # type: ignore[attr-defined]
