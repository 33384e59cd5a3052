"""Whether a value is made again slice by slice of the batch: each slice then stays in the processor's cache.

A norm, a ReLU and a sum that run one after the other over the whole batch read and write it in memory three
times; slice by slice, once. The bits are the same for operators that round every result once, or that go
through the samples one after the other anyway, as batch norm's kernel does.

Limits: CPUs only; maps that share the value's shape and layout, whose samples follow one another.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from convscope.norm.lean.operators import batch_norm_by_its_statistics, in_place_form, normaliser
from convscope.norm.lean.values import Argument, Origin, Value

_SLICE = 2**20
"""Bytes of a slice; several of them have to stay in a core's cache."""
_WORTH = 2**23
"""Bytes of a value from which slices pay."""
_SAME_BITS = {"relu", "hardtanh", "leaky_relu", "threshold", "clamp", "clamp_min", "add", "sub", "mul", "neg"}


def samples_at_a_time(value: Value, origins: list[Origin]) -> int | None:
    """Return how many samples a slice has; None if the operators had better run on the whole batch.

    Args:
        value: that is wanted.
        origins: the operators on the way to it.
    """
    shape = value.geometry[0]
    if value.device != "cpu" or value.nbytes < _WORTH or len(origins) < 2 or not shape:
        return None
    if not all(_goes_by_samples(origin, value) for origin in origins):
        return None
    samples = max(1, _SLICE * shape[0] // value.nbytes)
    return samples if 2 * samples <= shape[0] else None


def in_slices(
    value: Value, origins: list[Origin], cached: Mapping[Value, Tensor], samples: int
) -> dict[Value, Tensor]:
    """Run operators on some samples after the other.

    Args:
        value: that is wanted.
        origins: the operators on the way to it, in order.
        cached: values that have been made again already.
        samples: of a slice.

    Returns:
        The value, and those on the way to it for which recipes stand.
    """
    made = [_result(origin) for origin in origins]
    whole = {each: each.empty() for each in made if each is value or each.recipes}
    uses = Counter(argument.value for origin in origins for argument in origin.arguments)
    spare = {each for each in made if uses[each] == 1 and each not in whole}
    steps = [_Step(origin, made, cached, spare) for origin in origins]
    in_place = _let_write_in_place(steps, made, whole)
    for start in range(0, value.geometry[0][0], samples):
        part = slice(start, start + samples)
        results: list[Tensor] = []
        for each, step in zip(made, steps, strict=True):
            results.append(step.run(part, results))
            if each in whole and each not in in_place:
                whole[each][part] = results[-1]
    return whole


def _let_write_in_place(steps: "list[_Step]", made: list[Value], whole: Mapping[Value, Tensor]) -> set[Value]:
    """Have norms write where the end of their chain of in-place operators belongs; return those ends."""
    ends: dict[int, Value] = {}
    for number, step in reversed(list(enumerate(steps))):
        end = made[number] if made[number] in whole else ends.get(number)
        if end is None:
            continue
        if step.writes_over is not None:
            ends[step.writes_over] = end
        elif step.is_norm:
            step.out = whole[end]
    return {end for end, tensor in whole.items() if any(step.out is tensor for step in steps)}


class _Step:
    """One operator, made ready to run on slice after slice.

    Args:
        origin: the operator.
        made: the values that all operators make, in order.
        cached: values that have been made again already.
        spare: values that only one operator takes, which may write over them.

    Attributes:
        is_norm: whether it is a batch norm.
        writes_over: the number of the step over whose result it writes; None for a result of its own.
        out: a whole tensor to whose slices it writes, for a norm.
    """

    def __init__(
        self, origin: Origin, made: list[Value], cached: Mapping[Value, Tensor], spare: Collection[Value]
    ) -> None:
        self._func, self._kwargs = origin.func, origin.kwargs
        self._sliced: list[tuple[int, Tensor]] = []
        self._earlier: list[tuple[int, int]] = []
        self._args: list[Any] = origin.given(lambda argument: argument)  # type: ignore[arg-type, return-value]
        shape = _result(origin).geometry[0]
        for place, item in enumerate(self._args):
            if not isinstance(item, Argument):
                continue
            if item.held is None and item.value not in cached:
                self._earlier.append((place, made.index(item.value)))
                continue
            tensor = item.placed(cached[item.value]) if item.held is None else item.placed_held()
            self._args[place] = tensor
            if tensor.dim() == len(shape) and tensor.shape[0] == shape[0]:  # others are broadcast
                self._sliced.append((place, tensor))
        self.is_norm = self._func is batch_norm_by_its_statistics
        self.writes_over: int | None = None
        self.out: Tensor | None = None
        if self.is_norm:
            self._func, self._args = normaliser(*self._args[1:]), self._args[:1]
        elif self._earlier and self._earlier[0][0] == 0 and made[self._earlier[0][1]] in spare:
            form = in_place_form(self._func)
            if form is not None:
                self._func, self.writes_over = form, self._earlier[0][1]

    def run(self, part: slice, results: list[Tensor]) -> Tensor:
        """Return its result on a slice, from the earlier operators' results on it."""
        for place, tensor in self._sliced:
            self._args[place] = tensor[part]
        for place, number in self._earlier:
            self._args[place] = results[number]
        if self.out is not None:
            self._kwargs = {"out": self.out[part]}
        result: Tensor = self._func(*self._args, **self._kwargs)
        return result


def _result(origin: Origin) -> Value:
    reference = origin.results[0]
    value = None if reference is None else reference()
    assert value is not None  # its tensor is wanted, or another value is made from it
    return value


def _goes_by_samples(origin: Origin, value: Value) -> bool:
    if origin.func is not batch_norm_by_its_statistics and not _rounds_once(origin.func):
        return False
    if origin.kwargs.get("alpha", 1) != 1 or any(result is not None for result in origin.results[1:]):
        return False
    result = origin.results[0]
    made = None if result is None else result()
    return (
        made is not None
        and made.geometry == value.geometry
        and made.dtype == value.dtype
        and _samples_follow(value)
    )


def _rounds_once(func: Any) -> bool:
    return isinstance(func, torch._ops.OpOverload) and func._opname in _SAME_BITS


def _samples_follow(value: Value) -> bool:
    """Whether every sample is a block of memory of its own, one after the other."""
    (batch, *_), (stride, *_), _ = value.geometry
    return stride * batch * value.dtype.itemsize == value.nbytes
