"""Values made again in the backward pass, with the operators that made them: the same bits.

A value that others await, too, is cached until the last of them has had it. So a chain of residual blocks is
run through once, when the first of its values is asked for. Where every operator on the way treats each
sample by itself, to the same bits in a slice as in a batch, they run slice by slice (``slices``).
"""

from collections import Counter

import torch
from torch import Tensor

from convscope.norm.lean.operators import in_place_form
from convscope.norm.lean.slices import in_slices, samples_at_a_time
from convscope.norm.lean.values import Argument, Origin, Value, geometry

_CLONE = torch.ops.aten.clone.default


class Recipe:
    """Stands for a saved tensor: the value to make again, and the tensor's place in it."""

    __slots__ = ("__weakref__", "_place", "_round", "_value")

    def __init__(self, value: Value, tensor: Tensor) -> None:
        place = geometry(tensor)
        self._place = None if place == value.geometry else place
        self._value, self._round = value, value.round
        value.recipes += 1

    def __del__(self) -> None:
        self._leave()

    def _leave(self) -> None:
        self._value.recipes -= 1
        if self._value.recipes == 0:
            self._value.cache = None

    def is_of(self, value: Value) -> bool:
        """Whether it makes all of a value again, or of a copy of it."""
        origin = self._value.origin
        is_copy = origin is not None and origin.func is _CLONE and origin.arguments[0].value is value
        return self._place is None and (is_copy or self._value is value)

    def make_instead(self, value: Value) -> None:
        """Make a value again that does just as well; see :func:`.operators.result_serves_gradient`."""
        if value.geometry == self._value.geometry and value.dtype == self._value.dtype:
            self._leave()
            self._value, self._round = value, value.round
            value.recipes += 1

    def unpacked(self) -> Tensor:
        """Return the tensor, made again or from the cache."""
        value = self._value
        self._round = value.taken(self._round)
        tensor = value.cache if value.cache is not None else _made_again(value)
        value.cache = tensor if value.is_awaited else None
        return tensor if self._place is None else tensor.as_strided(*self._place)


def _itself(tensor: Tensor, **_: object) -> Tensor:
    """A copy of what nobody else will look at."""
    return tensor


def _made_again(value: Value) -> Tensor:
    with torch.no_grad():
        if not torch.is_autocast_enabled(value.device):
            return _Rerun(value).result()
        with torch.autocast(value.device, enabled=False):
            return _Rerun(value).result()


class _Rerun:
    """The way from what is held to a value."""

    def __init__(self, value: Value) -> None:
        self._value = value
        self._cached: dict[Value, Tensor] = {}
        self._made: dict[Value, Tensor] = {}
        self._origins = self._in_order()
        self._uses = Counter(
            argument.value
            for origin in self._origins
            for argument in origin.arguments
            if argument.held is None
        )

    def result(self) -> Tensor:
        """Run all operators; return the value's tensor."""
        samples = samples_at_a_time(self._value, self._origins)
        if samples is not None:
            for value, tensor in in_slices(self._value, self._origins, self._cached, samples).items():
                self._keep(value, tensor)
            return self._made[self._value]
        for origin in self._origins:
            self._run(origin)
        return self._made[self._value]

    def _in_order(self) -> list[Origin]:
        """The operators to run, each after those whose results it takes."""
        order: dict[int, Origin] = {}
        waiting = [(self._value, False)]
        while waiting:
            value, is_ready = waiting.pop()
            assert value.origin is not None
            if id(value.origin) in order:
                continue
            if is_ready:
                order[id(value.origin)] = value.origin
                continue
            waiting.append((value, True))
            for argument in value.origin.arguments:
                before = argument.value
                if argument.held is not None:
                    continue
                if before.cache is not None:
                    self._cached[before] = before.cache
                else:
                    waiting.append((before, False))
        return list(order.values())

    def _run(self, origin: Origin) -> None:
        spare: list[Tensor] = []
        args = origin.given(lambda argument: self._tensor_of(argument, spare))
        values = [None if reference is None else reference() for reference in origin.results]
        func = origin.func
        if args and any(args[0] is tensor for tensor in spare) and _fits(args[0], values[0]):
            func = _itself if func is _CLONE else in_place_form(func) or func
        results = func(*args, **origin.kwargs)
        for value, result in zip(values, results if isinstance(results, tuple) else (results,), strict=False):
            if value is not None:
                self._keep(value, result)

    def _keep(self, value: Value, tensor: Tensor) -> None:
        if value is not self._value and value.recipes:
            value.cache = self._cached[value] = tensor
        elif value is self._value or self._uses[value]:
            self._made[value] = tensor

    def _tensor_of(self, argument: Argument, spare: list[Tensor]) -> Tensor:
        """An argument's tensor; it is added to ``spare`` if nobody will look at it any more."""
        if argument.held is not None:
            return argument.placed_held()
        value = argument.value
        self._uses[value] -= 1
        if value in self._cached:
            return argument.placed(self._cached[value])
        if self._uses[value]:
            return argument.placed(self._made[value])
        tensor = argument.placed(self._made.pop(value))
        spare.append(tensor)
        return tensor


def _fits(tensor: Tensor, value: Value | None) -> bool:
    """Whether an in-place operator on the tensor gives what the value was."""
    return value is not None and geometry(tensor) == value.geometry and tensor.dtype == value.dtype
