"""Values made again in the backward pass, with the operators that made them: the same bits.

A value that others await, too, is cached until the last of them has had it. So a chain of residual blocks is
run through once, when the first of its values is asked for. Where every operator on the way treats each
sample by itself, to the same bits in a slice as in a batch, they run slice by slice (``slices``).
"""

from collections import Counter

import torch
from torch import Tensor

from convscope.norm.lean.operators import in_place_form
from convscope.norm.lean.slices import samples_at_a_time
from convscope.norm.lean.values import Argument, Origin, Value, geometry


class Recipe:
    """Stands for a saved tensor: the value to make again, and the tensor's place in it."""

    __slots__ = ("_place", "_round", "_value")

    def __init__(self, value: Value, tensor: Tensor) -> None:
        place = geometry(tensor)
        self._place = None if place == value.geometry else place
        self._value, self._round = value, value.round
        value.recipes += 1

    def __del__(self) -> None:
        self._value.recipes -= 1
        if self._value.recipes == 0:
            self._value.cache = None

    def unpacked(self) -> Tensor:
        """Return the tensor, made again or from the cache."""
        value = self._value
        self._round = value.taken(self._round)
        tensor = value.cache if value.cache is not None else _made_again(value)
        value.cache = tensor if value.is_awaited else None
        return tensor if self._place is None else tensor.as_strided(*self._place)


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
        self._origins = self._in_order()
        self._made: dict[Value, Tensor] = {}
        self._uses: Counter[Value] = Counter()
        self._part: slice | None = None

    def result(self) -> Tensor:
        """Run all operators; return the value's tensor."""
        samples = samples_at_a_time(self._value, self._origins)
        if samples is None:
            self._run_all()
            return self._made[self._value]
        return self._in_slices(samples)

    def _in_slices(self, samples: int) -> Tensor:
        """Run all operators on some samples after the other: between two of them, these stay in the cache."""
        origins = self._origins
        kept = [value for value in map(_only_result, origins) if value is self._value or value.recipes]
        whole = {value: value.empty() for value in kept}
        for start in range(0, self._value.geometry[0][0], samples):
            self._part = slice(start, start + samples)
            self._run_all()
            for value, tensor in whole.items():
                tensor[self._part] = self._made[value]
        for value in kept:
            if value is not self._value:
                value.cache = whole[value]
        return whole[self._value]

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

    def _run_all(self) -> None:
        self._made.clear()
        self._uses = Counter(
            argument.value
            for origin in self._origins
            for argument in origin.arguments
            if argument.held is None
        )
        for origin in self._origins:
            self._run(origin)

    def _run(self, origin: Origin) -> None:
        spare: set[int] = set()
        args = origin.given(lambda argument: self._tensor_of(argument, spare))
        values = [None if reference is None else reference() for reference in origin.results]
        func = origin.func
        if args and id(args[0]) in spare and _fits(origin.arguments[0], values[0]):
            func = in_place_form(func) or func
        results = func(*args, **origin.kwargs)
        for value, result in zip(values, results if isinstance(results, tuple) else (results,), strict=False):
            if value is None:
                continue
            if value is self._value or self._uses[value] or value.recipes:
                self._made[value] = result
            if value is not self._value and value.recipes and self._part is None:
                value.cache = result

    def _tensor_of(self, argument: Argument, spare: set[int]) -> Tensor:
        """An argument's tensor; its id is added to ``spare`` if nobody will look at it any more."""
        if isinstance(argument.held, Tensor):
            return argument.held
        if argument.held is not None:
            return self._of_part(argument.placed(argument.held.unpacked()))
        value = argument.value
        if value in self._cached:
            return self._of_part(argument.placed(self._cached[value]))
        self._uses[value] -= 1
        if self._uses[value] or value is self._value or value.recipes:
            return self._as_placed(argument, self._made[value])
        tensor = self._as_placed(argument, self._made.pop(value))
        spare.add(id(tensor))
        return tensor

    def _of_part(self, tensor: Tensor) -> Tensor:
        """The samples of the slice, of a tensor that has any: gates and sums may broadcast."""
        shape = self._value.geometry[0]
        if self._part is None or tensor.dim() < len(shape) or tensor.shape[0] != shape[0]:
            return tensor
        return tensor[self._part]

    def _as_placed(self, argument: Argument, tensor: Tensor) -> Tensor:
        return argument.placed(tensor) if self._part is None else tensor


def _only_result(origin: Origin) -> Value:
    value = origin.results[0]
    assert value is not None
    return value()  # type: ignore[return-value]  # it is asked for


def _fits(argument: Argument, value: Value | None) -> bool:
    """Whether an in-place operator on the argument gives what the value was."""
    return value is not None and argument.geometry == value.geometry and argument.value.dtype == value.dtype
