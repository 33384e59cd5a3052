"""One forward pass, watched: what every tensor was computed from, and what autograd saves.

A dispatch mode sees the operators below autograd, functional ones too, and the hooks for saved tensors decide
for each whether it is kept or a recipe stands for it. Under ``no_grad`` and inside a backward pass nothing is
noted. A storage that any other operator writes to holds a new, unknown value from then on.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode

from convscope.norm.lean.accounts import Account
from convscope.norm.lean.again import Recipe
from convscope.norm.lean.operators import Again, again, is_made_again, joins_maps, result_serves_gradient
from convscope.norm.lean.securing import SMALL, secured
from convscope.norm.lean.values import Argument, Hooks, Kept, Origin, Value, geometry
from convscope.tape.operators import operator, written_tensors

_PLAIN = (Tensor, nn.Parameter, nn.Buffer, FakeTensor)


class Recording(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes where values come from while it is entered, and packs what autograd saves.

    Args:
        account: of what is saved.
        hooks: others' hooks for saved tensors, for what is kept.
        residual: whether values are made again through the sum of two maps.
    """

    knows_kernels = True  # those of ``norm.fast`` may run below it

    def __init__(self, account: Account, hooks: Hooks | None, *, residual: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._account, self._residual, self._hooks = account, residual, hooks
        self._values: dict[int, tuple[weakref.ref[Any], Value]] = {}
        self._last: weakref.ref[Recipe] | None = None  # since the last operator

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch what runs in the block."""
        try:
            with self, torch.autograd.graph.saved_tensors_hooks(self.pack, unpack):
                yield
        finally:
            self._values.clear()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:  # it wraps every call, for networks that are compiled
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, last = kwargs or {}, self._last
        self._last = None
        result = func(*args, **kwargs)
        known = operator(func)
        if not (known.written or is_made_again(func)) or _in_backward():
            return result
        written = written_tensors(known, args, kwargs) if known.written else []
        if self._is_noted(func, args, kwargs, written):
            recipe = self._for_gradient_of(func, args, None if last is None else last())
            self._note(again(func, args, kwargs, result), result)
            if recipe is not None:
                self._serve_with(result, recipe)
        else:
            for tensor in written:
                if _is_plain(tensor):
                    self._values.pop(tensor.untyped_storage()._cdata, None)
        return result

    def pack(self, tensor: Tensor) -> "Kept | Recipe":
        """Return what stands for a tensor that autograd saves."""
        layer = self._account.layer
        if not _is_plain(tensor) or _in_backward() or self._is_weight(tensor):
            return Kept(tensor, layer, self._hooks)
        value = self._value_of(tensor)
        if value.kept is None and value.origin is not None and tensor.dtype == value.dtype:
            extra = secured(value, layer, self._hooks)
            if extra is not None:
                self._account.made_again(value, extra)
                recipe = Recipe(value, tensor)
                self._last = weakref.ref(recipe)
                return recipe
        self._account.kept(value)
        return value.keep(tensor, layer, self._hooks)

    def _is_weight(self, tensor: Tensor) -> bool:
        """Whether nothing that is made again needs a tensor: a convolution's or a linear layer's weight."""
        return tensor.dim() > 1 and self._account.is_standing(tensor)

    def _for_gradient_of(self, func: Any, args: Any, last: Recipe | None) -> Recipe | None:
        """The recipe for what an operator's gradient asks for, where the operator's result would do."""
        if last is None or not result_serves_gradient(func, args):
            return None
        is_saved = torch.is_grad_enabled() and args[0].requires_grad
        return last if is_saved and last.is_of(self._value_of(args[0])) else None

    def _serve_with(self, result: Tensor, recipe: Recipe) -> None:
        """Have the recipe for what an operator's gradient asks for make its result, as others may."""
        value = self._value_of(result)
        if secured(value, self._account.layer, self._hooks) == ([], 0):
            recipe.make_instead(value)

    def _is_noted(self, func: Any, args: Any, kwargs: Any, written: list[Tensor]) -> bool:
        """Whether an operator's results are known to come from its arguments."""
        if not is_made_again(func) or (not self._residual and joins_maps(func, args)):
            return False
        if written and not written[0].is_floating_point():  # a counter
            return False
        if any(isinstance(item, Tensor) for item in kwargs.values()) or not all(
            map(_is_plain, _tensors(args))
        ):
            return False
        # Part of a storage that is written to says nothing of the whole.
        return all(geometry(tensor) == self._value_of(tensor).geometry for tensor in written)

    def _note(self, again: Again, result: Any) -> None:
        """Note that an operator has run, and what it takes to run it again."""
        tensors = result if isinstance(result, tuple) else (result,)
        small = int(SMALL * tensors[0].nbytes)

        def argument(tensor: Tensor) -> Argument:
            value = self._value_of(tensor)
            return Argument(value, tensor, is_small=value.nbytes <= small or value.is_standing)

        origin = Origin(*again, argument)
        for tensor in tensors:
            # A normalisation's statistics are saved rather than counted again.
            if tensor.nbytes <= small:
                origin.results.append(None)
                continue
            value = Value(tensor, origin)
            origin.results.append(weakref.ref(value))
            self._put(tensor, value)

    def _value_of(self, tensor: Tensor) -> Value:
        """What a tensor's storage holds now."""
        key = tensor.untyped_storage()._cdata
        if key not in self._values:
            self._put(tensor, self._unknown(tensor))
        return self._values[key][1]

    def _unknown(self, tensor: Tensor) -> Value:
        value = Value(tensor)
        value.is_standing = self._account.is_standing(tensor)
        return value

    def _put(self, tensor: Tensor, value: Value) -> None:
        storage = tensor.untyped_storage()
        key, values = storage._cdata, self._values
        if key in values:
            values[key] = values[key][0], value
        else:
            values[key] = weakref.ref(storage, lambda _: values.pop(key, None)), value


def unpack(packed: "Kept | Recipe") -> Tensor:
    """Return the tensor that something packed stands for."""
    return packed.unpacked()


def others_hooks() -> Hooks | None:
    """Return the hooks for saved tensors that are in force."""
    hooks: Hooks | None = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return hooks


def _in_backward() -> bool:
    return bool(torch._C._current_graph_task_id() != -1)


def _tensors(items: Any) -> Iterator[Tensor]:
    for item in items:
        if isinstance(item, Tensor):
            yield item
        elif isinstance(item, list | tuple):
            yield from _tensors(item)


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is real numbers in a storage: not sparse, not another library's, not a wrapper."""
    return (
        type(tensor) in _PLAIN
        and tensor.layout is torch.strided
        and not tensor.is_complex()
        and not tensor.is_inference()
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    )
